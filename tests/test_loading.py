"""The loader on archives: packed batches equal decoded ones, rows are read once, ranks and resumed epochs agree."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
import xarray as xr

from cubecast.batches import Batches
from cubecast.channels import Channels
from cubecast.config import DataConfig, ScalingConfig, TaskConfig
from cubecast.reading import CubeRows
from cubecast.sharing import ALL
from cubecast.sources import open_cube
from cubecast.windows import find_windows

TASK = TaskConfig(history=3, horizon=2)


@pytest.fixture
def archive(rain, tmp_path):
    """Rain as packed netCDF-4 in small chunks, with holes."""
    cube = rain(40, size=(40, 48))
    cube = cube.where(np.random.default_rng(0).random(cube.shape) > 0.02)
    packing = {"dtype": "i2", "scale_factor": np.float32(0.05), "_FillValue": -1, "chunksizes": (4, 16, 16)}
    path = tmp_path / "rain.nc"
    cube.to_netcdf(path, encoding={cube.name: {**packing, "zlib": True}, "time": {"dtype": "f8"}})
    return path


def make(cubes, *, seed=0, train=True, static=None, share=ALL, scaling="auto", mask_channel=True, **data):
    windows = [w for i, c in enumerate(cubes) for w in find_windows(c, length=5, index=i)]
    channels = Channels.fit(cubes, outputs=None, scaling=ScalingConfig(kind=scaling), mask_channel=mask_channel)
    return Batches(
        cubes,
        windows,
        channels,
        task=TASK,
        data=DataConfig(**{"crop": 16, "crops_per_window": 3, "batch_size": 4, "prefetch": 0, **data}),
        static=static or [None] * len(cubes),
        wet_bias=0.5,
        seed=seed,
        train=train,
        share=share,
    )


@pytest.fixture
def small_rows(monkeypatch):
    """Rows of single chunks, and what was read of them."""
    monkeypatch.setattr("cubecast.reading.ROW_BYTES", 1)
    done, read = [], CubeRows.read

    def counting(self, row, boxes):
        done.append(row)
        return read(self, row, boxes)

    monkeypatch.setattr(CubeRows, "read", counting)
    return done


def equal(one, two):
    return all(torch.equal(getattr(one, n), getattr(two, n)) for n in ("inputs", "targets", "observed"))


def test_packed_batches_are_what_decoded_ones_are(archive) -> None:
    cube = open_cube(archive)
    static = [np.random.default_rng(1).random((2, 40, 48), np.float32)]
    settings = {"flips": True, "negate": True, "scaling": "standardise", "static": static}
    packed, decoded = make([cube], **settings), make([cube.compute()], **settings)
    assert packed._samples.rows[0].table is not None
    assert decoded._samples.rows[0].table is None
    found = {tuple(b.inputs[i].flatten().tolist()): b.targets[i] for b in packed.epoch(1) for i in range(len(b.inputs))}
    others = [(b.inputs[i], b.targets[i]) for b in decoded.epoch(1) for i in range(len(b.inputs))]
    assert len(found) == len(others) == 36 * 3
    for inputs, targets in others:  # in another order, for their rows are others
        assert torch.equal(found[tuple(inputs.flatten().tolist())], targets)


def test_cubes_that_are_packed_and_cubes_that_are_not_share_batches(archive) -> None:
    cube = open_cube(archive)
    mixed, plain = make([cube, cube.compute()], train=False), make([cube.compute()] * 2, train=False)
    assert all(equal(a, b) for a, b in zip(mixed.epoch(0), plain.epoch(0), strict=True))


@pytest.mark.parametrize("skip", [1, 5, 20, 26, 27])
@pytest.mark.parametrize("prefetch", [0, 3])
def test_a_resumed_epoch_goes_on_with_the_same_batches(archive, skip, prefetch) -> None:
    batches = make([open_cube(archive)], flips=True, prefetch=prefetch)
    whole, rest = list(batches.epoch(2)), list(batches.epoch(2, skip=skip))
    assert len(rest) == max(0, len(whole) - skip)
    assert all(equal(a, b) for a, b in zip(whole[skip:], rest, strict=True))


def test_prefetch_changes_no_batch(archive) -> None:
    several = [list(make([open_cube(archive)], flips=True, prefetch=p).epoch(1)) for p in (0, 1, 4)]
    for other in several[1:]:
        assert all(equal(a, b) for a, b in zip(several[0], other, strict=True))


def test_rows_are_read_once_and_skipped_ones_not_at_all(archive, small_rows) -> None:
    batches = make([open_cube(archive)], shuffle_blocks=16)
    list(batches.epoch(0))
    assert sorted(small_rows) == list(range(10)), "as many lanes as rows: each is read once"
    small_rows.clear()
    two = make([open_cube(archive)], shuffle_blocks=2)
    list(two.epoch(0))
    assert len(small_rows) <= 10 + 2 * 2, "two runs, and windows that reach into the next one"
    small_rows.clear()
    list(two.epoch(0, skip=len(two) - 2))
    assert len(set(small_rows)) <= 4


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_read_their_own_part(archive, small_rows, ranks, together) -> None:
    cube = open_cube(archive)
    seen, rows, lengths = [], [], set()
    for batches in together(ranks, lambda share: make([cube], share=share, crops_per_window=2)):
        small_rows.clear()
        found = list(batches.epoch(3))
        assert len(found) == len(batches)
        lengths.add(tuple(len(b.inputs) for b in found))
        seen += [bytes(x.numpy().tobytes()) for b in found for x in b.inputs]
        rows.append(set(small_rows))
    assert len(lengths) == 1, "the same batches in number and size"
    assert len(set(seen)) == len(seen) == 36 // ranks * ranks * 2, "no sample twice"
    assert all(len(r) <= 10 // ranks + 4 for r in rows)


def test_samples_of_one_place_do_not_depend_on_the_order(archive) -> None:
    cube = open_cube(archive)
    one, two = (make([cube], shuffle_blocks=n, flips=True) for n in (1, 16))
    sets = [sorted(x.numpy().tobytes() for b in o.epoch(1) for x in b.inputs) for o in (one, two)]
    assert sets[0] == sets[1]


def test_training_on_lazy_netcdf_neither_hangs_nor_crashes(archive, tmp_path) -> None:
    code = f"""
        import dask, numpy as np
        import cubecast, xarray as xr
        lazy = cubecast.open_cube({str(archive)!r})
        dask.compute(lazy.mean(), lazy.max())  # dask's threads have run
        user = cubecast.open_cube(xr.open_dataset({str(archive)!r}, chunks={{"time": 4}}))
        settings = dict(history=3, horizon=2, hidden_channels=[4], crop=16, epochs=2, flips=True)
        model = cubecast.Nowcaster(**settings).fit([lazy, user])
        print("trained", len(model.log), all(0 <= r["waiting_share"] <= 1 for r in model.log))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "trained 2 True", done.stderr


def test_a_damaged_chunk_is_an_error_and_not_rain(archive, tmp_path) -> None:
    store = tmp_path / "rain.zarr"
    ds = xr.open_dataset(archive, mask_and_scale=False, decode_times=False).drop_encoding().chunk(time=4, y=16, x=16)
    ds["time"].attrs.pop("_FillValue", None)
    ds.to_zarr(store, zarr_format=3, consolidated=False)
    chunk = store / "rainfall_rate" / "c" / "3" / "1" / "1"
    whole = make([open_cube(store)])
    content = chunk.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"x" * 100):
        chunk.write_bytes(damaged)
        with pytest.raises(ValueError, match="cannot read"):
            list(whole.epoch(0))
