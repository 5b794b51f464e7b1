"""Batches: every sample once an epoch, the same for the same seed, read ahead, and never from outside its window."""

import dask
import numpy as np
import pytest
import torch
import xarray as xr

from cubecast.batches import Batches
from cubecast.channels import Channels
from cubecast.config import DataConfig, ScalingConfig, TaskConfig
from cubecast.windows import find_windows

TASK = TaskConfig(history=3, horizon=2)


def make(cubes, *, seed=0, train=True, static=None, mask_channel=True, **data):
    windows = [w for i, c in enumerate(cubes) for w in find_windows(c, length=5, index=i)]
    channels = Channels.fit(cubes, outputs=None, scaling=ScalingConfig(kind="identity"), mask_channel=mask_channel)
    return Batches(
        cubes,
        windows,
        channels,
        task=TASK,
        data=DataConfig(**{"crop": None, "batch_size": 4, "prefetch": 0, **data}),
        static=static or [None] * len(cubes),
        wet_bias=0.5,
        seed=seed,
        train=train,
    )


def counting(frames, *, size=(4, 6), chunks=None, missing=()):
    """A cube whose value is the number of its frame: a batch tells which window it came from."""
    time = np.datetime64("2020-01-01", "ns") + np.arange(frames) * np.timedelta64(5, "m")
    values = np.broadcast_to(np.arange(frames, dtype=np.float32)[:, None, None], (frames, *size)).copy()
    cube = xr.DataArray(values, dims=("time", "y", "x"), coords={"time": time}, attrs={"units": "1"}, name="n")
    cube = cube.isel(time=np.setdiff1d(np.arange(frames), missing))
    return cube if chunks is None else cube.chunk(time=chunks)


def first_frames(batches, epoch=0):
    return [float(v) for batch in batches.epoch(epoch) for v in batch.inputs[:, 0, 0, 0, 0]]


def test_every_window_once_an_epoch_and_targets_follow_history():
    batches = make([counting(20, chunks=7)])
    assert sorted(first_frames(batches)) == list(range(16))
    for batch in batches.epoch(0):
        start = batch.inputs[:, 0, 0, 0, 0]
        assert torch.equal(batch.targets[:, 0, 0, 0, 0], start + 3)
        assert torch.equal(batch.targets[:, 1, 0, 0, 0], start + 4)


def test_length_is_the_number_of_batches_with_grids_of_two_sizes():
    batches = make([counting(20), counting(13, size=(5, 5))])
    found = list(batches.epoch(0))
    assert len(found) == len(batches) == 4 + 3
    assert {tuple(b.inputs.shape[-2:]) for b in found} == {(4, 6), (5, 5)}


def test_same_seed_and_epoch_give_the_same_batches_and_others_do_not():
    cube = counting(40)
    assert first_frames(make([cube], seed=1), 3) == first_frames(make([cube], seed=1), 3)
    assert first_frames(make([cube], seed=1), 3) != first_frames(make([cube], seed=1), 4)
    assert first_frames(make([cube], seed=1), 3) != first_frames(make([cube], seed=2), 3)


def test_validation_keeps_its_order_and_its_crops(rain):
    batches = make([rain(20)], train=False, crop=8)
    one, two = list(batches.epoch(0)), list(batches.epoch(5))
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(one, two, strict=True))
    assert first_frames(make([counting(20)], train=False)) == list(range(16))


def test_shuffling_mixes_blocks(monkeypatch):
    monkeypatch.setattr("cubecast.reading.ROW_BYTES", 4 * 24 * 8)
    batches = make([counting(80)], shuffle_blocks=16)
    order = first_frames(batches)
    assert sorted(order) == list(range(76))
    neighbours = np.abs(np.diff(order)) == 1
    assert neighbours.mean() < 0.2


def test_prefetch_gives_the_same_batches_and_raises_the_reader_errors():
    cube = counting(20, chunks=4)
    assert first_frames(make([cube], prefetch=2)) == first_frames(make([cube], prefetch=0))

    @dask.delayed
    def broken():
        raise OSError("disk gone")

    data = dask.array.from_delayed(broken(), cube.shape, np.float32)
    with pytest.raises(OSError, match="disk gone"):
        list(make([cube.copy(data=data)], prefetch=2).epoch(0))


def test_a_reader_that_stops_early_ends_the_thread():
    import threading

    before = threading.active_count()
    reading = make([counting(60)], prefetch=1).epoch(0)
    next(reading)
    reading.close()
    assert threading.active_count() == before


def test_missing_values_become_zero_and_a_mask():
    cube = counting(8)
    cube[2, 1, 2] = np.nan
    cube[4, 0, 0] = np.nan
    (batch,) = make([cube], train=False).epoch(0)
    inputs, mask = batch.inputs[0, :, 0], batch.inputs[0, :, 1]
    assert inputs[2, 1, 2] == 0
    assert mask[2, 1, 2] == 0
    assert float(mask.sum()) == mask.numel() - 1
    assert not batch.observed[0, 1, 0, 0, 0]
    assert batch.targets[0, 1, 0, 0, 0] == 0
    assert int((~batch.observed[0]).sum()) == 1


def test_crops_come_from_inside_and_static_fields_are_cut_alike():
    y, x = np.meshgrid(np.arange(20), np.arange(30), indexing="ij")
    time = np.datetime64("2020-01-01", "ns") + np.arange(9) * np.timedelta64(5, "m")
    place = np.broadcast_to((100.0 * y + x).astype(np.float32), (9, 20, 30))
    cube = xr.DataArray(place, dims=("time", "y", "x"), coords={"time": time}, attrs={"units": "1"}, name="n")
    static = (100.0 * y + x)[None].astype(np.float32)
    batches = make([cube], crop=8, crops_per_window=3, static=[static])
    found = list(batches.epoch(0))
    assert sum(len(b.inputs) for b in found) == 15
    for batch in found:
        assert batch.inputs.shape[-2:] == (8, 8)
        assert torch.equal(batch.inputs[:, :, 0], batch.inputs[:, :, 2])


def test_flips_keep_inputs_and_targets_aligned(rain):
    batches = make([rain(12, size=(24, 24))], flips=True, mask_channel=False)
    plain = make([rain(12, size=(24, 24))], mask_channel=False)
    turned = 0
    for seen, original in zip(batches.epoch(0), plain.epoch(0), strict=True):
        assert torch.allclose(seen.inputs.sum(), original.inputs.sum(), rtol=1e-4) or len(seen.inputs) > 1
        for a, b in zip(seen.inputs, seen.targets, strict=True):
            # Rain moves one cell a step: the last input and the first target differ by one roll along some axis.
            last, first = a[-1, 0], b[0, 0]
            rolls = [torch.roll(last, s, d) for d in (0, 1) for s in (1, -1)]
            assert any(torch.allclose(r, first, atol=1e-4) for r in rolls)
            turned += not torch.allclose(torch.roll(last, 1, 1), first, atol=1e-4)
    assert turned > 0


def test_series_are_fields_of_one_column():
    time = np.datetime64("2020-01-01", "ns") + np.arange(9) * np.timedelta64(1, "h")
    one = xr.DataArray(np.arange(9.0), dims="time", coords={"time": time}, attrs={"units": "K"}, name="t")
    stations = xr.DataArray(np.zeros((9, 3)), dims=("time", "station"), coords={"time": time}, attrs={"units": "K"})
    assert next(make([one], mask_channel=False).epoch(0)).inputs.shape == (4, 3, 1, 1, 1)
    assert next(make([stations], mask_channel=False).epoch(0)).inputs.shape == (4, 3, 1, 3, 1)


def test_negate_mirrors_whole_samples_but_neither_masks_nor_static_fields():
    cube = counting(40) + 1.0
    cube.attrs["units"] = "1"
    cube[5, 0, 0] = np.nan
    static = np.full((1, 4, 6), 7.0, np.float32)
    signs = []
    for batch in make([cube], negate=True, static=[static]).epoch(0):
        sign = torch.sign(batch.inputs[:, 0, 0, 1, 1])
        start = batch.inputs[:, 0, 0, 1, 1].abs()
        assert torch.equal(batch.targets[:, 0, 0, 1, 1], sign * (start + 3))
        assert set(batch.inputs[:, :, 1].unique().tolist()) <= {0.0, 1.0}
        assert (batch.inputs[:, :, 2] == 7).all()
        signs += sign.tolist()
    assert 8 <= signs.count(-1.0) <= 28, "about half of 36"
    assert all((b.inputs >= 0).all() for b in make([cube], negate=True, train=False).epoch(0))


def test_validation_on_whole_fields_beside_training_on_crops():
    cube = counting(20, size=(9, 12))
    settings = {"crop": 4, "crops_per_window": 3, "validate_whole": True}
    shapes = {
        train: [tuple(b.inputs.shape) for b in make([cube], train=train, **settings).epoch(0)]
        for train in (True, False)
    }
    assert {shape[-2:] for shape in shapes[True]} == {(4, 4)}
    assert {shape[-2:] for shape in shapes[False]} == {(9, 12)}
    assert (sum(s[0] for s in shapes[True]), sum(s[0] for s in shapes[False])) == (48, 16)
    assert len(make([cube], train=False, **settings)) == len(shapes[False])
