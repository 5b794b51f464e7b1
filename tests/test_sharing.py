"""Processes that read a part of the data each: all is read, nothing twice, and what they know is what one would."""

from threading import get_ident

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from cubecast.channels import Channels
from cubecast.config import ScalingConfig
from cubecast.cube import iter_blocks
from cubecast.sharing import ALL
from cubecast.windows import wet_map


class Stored:
    """Values that note which frames each thread reads."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape, self.dtype, self.ndim = values, values.shape, values.dtype, values.ndim
        self.read: list[tuple[int, int]] = []

    def __getitem__(self, key):
        self.read += [(get_ident(), frame) for frame in range(*key[0].indices(len(self.values)))]
        return self.values[key]

    def of_each(self) -> list[list[int]]:
        """The frames that each thread read."""
        return [[f for t, f in self.read if t == thread] for thread in dict.fromkeys(t for t, _ in self.read)]


@pytest.fixture
def archive():
    """Three years of months of something, with gaps in it, in chunks of four frames; and what was read of it."""
    rng, frames = np.random.default_rng(0), 36
    values = rng.gamma(0.5, 2.0, (frames, 6, 7)) + 3 * (np.arange(frames) % 12 // 6)[:, None, None]
    values[rng.random(values.shape) < 0.1] = np.nan
    values[5] = np.nan
    stored = Stored(values)
    time = np.datetime64("2001-01", "M") + np.arange(frames)
    cube = xr.DataArray(
        da.from_array(stored, chunks=(4, 6, 7), meta=values[:0]),
        dims=("time", "y", "x"),
        coords={"time": time.astype("datetime64[ns]"), "y": np.arange(6.0), "x": np.arange(7.0)},
        attrs={"units": "mm h-1"},
        name="rain",
    )
    stored.read.clear()
    with dask.config.set(scheduler="synchronous"):
        yield cube, stored


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("kind", ["log", "dbr", "standardise", "monthly_anomaly"])
def test_a_fit_reads_a_part_and_knows_all(kind, ranks, archive, together):
    cube, stored = archive

    def fit(share):
        scaling = ScalingConfig(kind=kind)
        return Channels.fit([cube], outputs=None, scaling=scaling, mask_channel=False, share=share).scalings["rain"]

    alone = fit(ALL)
    stored.read.clear()
    shared = together(ranks, fit)
    parts = stored.of_each()
    assert len(parts) == ranks
    assert max(map(len, parts)) <= 36 // ranks + 4
    assert sorted(f for part in parts for f in part) == list(range(36)), "all of it, and nothing twice"
    for one in shared:
        for name, value in vars(alone).items():
            if isinstance(value, float | np.ndarray):
                np.testing.assert_allclose(getattr(one, name), value, rtol=1e-12)
            else:
                assert getattr(one, name) == value


def test_a_wet_map_is_shared_bit_for_bit(archive, together):
    cube, stored = archive
    alone = wet_map(cube, threshold=1.0, block=3)
    stored.read.clear()
    for one in together(2, lambda share: wet_map(cube, threshold=1.0, block=3, share=share)):
        np.testing.assert_array_equal(one, alone)
    assert sorted(map(len, stored.of_each())) == [16, 20]


def test_a_cube_of_one_chunk_is_read_once(archive, together):
    cube, stored = archive
    sizes = together(3, lambda share: sum(len(v) for _, v in iter_blocks(cube[:4], share)))
    assert sorted(sizes) == [0, 0, 4]
    assert len(stored.read) == 4
