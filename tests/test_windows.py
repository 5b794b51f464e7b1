"""Windows, their split by time, and crops that favour rain."""

import json

import dask.array
import numpy as np
import pytest
import xarray as xr

from cubecast.errors import InputError, UsageError
from cubecast.windows import Window, draw_crops, find_windows, split_windows, wet_map


def make_cube(frames, *, size=(6, 8), missing=(), dims=("y", "x")):
    """A cube of 5-minute frames with some of them taken out."""
    time = np.datetime64("2020-01-01", "ns") + np.arange(frames) * np.timedelta64(5, "m")
    keep = np.setdiff1d(np.arange(frames), missing)
    values = np.zeros((len(keep), *size[: len(dims)]), np.float32)
    return xr.DataArray(values, dims=("time", *dims), coords={"time": time[keep]}, attrs={"units": "mm h-1"}, name="r")


def starts(windows):
    return [w.start for w in windows]


def test_windows_of_a_whole_cube():
    assert starts(find_windows(make_cube(6), length=4)) == [0, 1, 2]


def test_no_window_crosses_a_gap_and_the_stride_is_counted_anew_after_it():
    cube = make_cube(16, missing=[7])
    assert starts(find_windows(cube, length=3)) == [0, 1, 2, 3, 4, 7, 8, 9, 10, 11, 12]
    assert starts(find_windows(cube, length=3, stride=3)) == [0, 3, 7, 10]


def test_a_short_cube_has_no_windows():
    assert find_windows(make_cube(3), length=4) == []


@pytest.mark.parametrize("wrong", [{"length": 0}, {"length": 2, "stride": 0}])
def test_lengths_below_one_are_refused(wrong):
    with pytest.raises(UsageError, match="found 0; allowed: 1 or more"):
        find_windows(make_cube(5), **wrong)


def test_split_leaves_an_embargo_of_a_window_length():
    training, validating = split_windows([make_cube(100)], length=10, validation=0.2)
    assert starts(validating) == list(range(80, 91))
    # Frames 0..69 train, 70..79 are the embargo: the last training window is 60..69.
    assert starts(training) == list(range(61))


def test_split_validates_on_one_window_at_least():
    training, validating = split_windows([make_cube(40)], length=12, validation=0.1)
    assert starts(validating) == [28]
    assert starts(training) == list(range(5))


def test_split_reaches_back_when_gaps_leave_no_window_at_the_end():
    training, validating = split_windows([make_cube(61, missing=[55])], length=10, validation=0.2)
    assert starts(validating) == [45]
    assert training[-1].start + 10 == 35


def test_a_cube_too_short_for_the_split_trains_whole():
    training, validating = split_windows([make_cube(14), make_cube(50)], length=10, validation=0.2)
    assert [w.start for w in training if w.cube == 0] == [0, 1, 2, 3, 4]
    assert {w.cube for w in validating} == {1}


def test_a_split_without_validation_says_what_to_do():
    with pytest.raises(InputError, match=r"no window to validate on: found at most 14 frames.*shorten history"):
        split_windows([make_cube(14)], length=10, validation=0.2)
    with pytest.raises(InputError, match="no window to train on"):
        split_windows([make_cube(4)], length=10, validation=0.2)
    with pytest.raises(UsageError, match=r"validation: found 1\.5"):
        split_windows([make_cube(40)], length=2, validation=1.5)


def test_indexers_of_whole_fields_crops_and_clipped_crops():
    cube = make_cube(9, size=(6, 8))
    assert cube.isel(Window(0, 2, 4).indexers(cube)).shape == (4, 6, 8)
    piece = cube.isel(Window(0, 2, 4, y=1, x=3, crop=5).indexers(cube))
    assert piece.shape == (4, 5, 5)
    assert piece.time[0] == cube.time[2]
    assert cube.isel(Window(0, 2, 4, y=0, x=1, crop=7).indexers(cube)).shape == (4, 6, 7)


def test_series_have_windows_but_no_crops():
    series = make_cube(9, dims=())
    assert series.isel(Window(0, 3, 4).indexers(series)).shape == (4,)
    stations = make_cube(9, size=(5,), dims=("station",))
    assert stations.isel(find_windows(stations, length=2)[-1].indexers(stations)).shape == (2, 5)
    with pytest.raises(UsageError, match="crop of a point series"):
        Window(0, 3, 4, y=0, x=0, crop=2).indexers(stations)


@pytest.mark.parametrize("bad", [{"cube": 0, "start": 1}, {"cube": 0, "start": 1, "length": "2"}, {"start": None}])
def test_a_broken_saved_window_is_refused(bad):
    with pytest.raises(InputError, match="a window: found"):
        Window.from_json(json.loads(json.dumps(bad)))


def test_wet_map_counts_wet_pixels_in_whole_and_partial_tiles():
    values = np.zeros((3, 5, 7), np.float32)
    values[1, 0, 0] = 0.1  # in float32 a little above 0.1; see the next frame
    values[2, 4, 4:] = np.float32(0.1) - np.float32(1e-8)  # a packed 0.1
    values[0, 2, 2] = np.nan
    cube = make_cube(3, size=(5, 7)).copy(data=values)
    wet = wet_map(cube, threshold=0.1, block=4)
    expected = np.zeros((3, 2, 2))
    expected[1, 0, 0] = 1 / 16
    expected[2, 1, 1] = 3 / 3
    np.testing.assert_allclose(wet, expected)
    assert wet.dtype == np.float32


def test_wet_map_of_a_lazy_cube_reads_every_frame_once():
    reads = []

    def load(block, block_info=None):
        reads.append(block_info[None]["array-location"][0])
        return np.full(block.shape, 1.0, np.float32)

    lazy = dask.array.zeros((12, 40, 40), chunks=(5, 40, 40), dtype="f4")
    lazy = lazy.map_blocks(load, dtype="f4", meta=np.empty((0, 0, 0), "f4"))
    cube = make_cube(12, size=(40, 40)).copy(data=lazy)
    assert (wet_map(cube, threshold=0.5, block=16) == 1).all()
    assert sorted(reads) == [(0, 5), (5, 10), (10, 12)]


def test_wet_map_wants_one_variable_of_a_field():
    with pytest.raises(UsageError, match=r"allowed: \(time, y, x\)"):
        wet_map(make_cube(3, dims=()), threshold=0.1, block=4)


def corner_counts(wet_pixels, *, crop, block, wet_bias, draws):
    """How often each corner is drawn for one frame of wet (1) and dry (0) pixels."""
    cube = make_cube(2, size=wet_pixels.shape)
    cube = cube.copy(data=np.broadcast_to(wet_pixels, cube.shape).astype(np.float32))
    wet, rng = wet_map(cube, threshold=0.5, block=block), np.random.default_rng(3)
    counts = np.zeros([max(n - crop, 0) + 1 for n in wet_pixels.shape])
    for _ in range(draws):
        (window,) = draw_crops(
            Window(0, 0, 2), wet, count=1, grid=wet_pixels.shape, crop=crop, block=block, wet_bias=wet_bias, rng=rng
        )
        counts[window.y, window.x] += 1
    return counts


@pytest.mark.parametrize("wet_bias", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("crop", [3, 6])
def test_crops_are_drawn_with_the_chances_of_the_docstring(wet_bias, crop):
    wet = np.zeros((5, 8))
    wet[0, 0] = wet[2:4, 5] = 1  # tiles of one pixel: the wet share of each crop is exact, at the edges as well
    drawn = corner_counts(wet, crop=crop, block=1, wet_bias=wet_bias, draws=4000)
    share = np.array(
        [[wet[y : y + crop, x : x + crop].sum() for x in range(drawn.shape[1])] for y in range(drawn.shape[0])]
    )
    chance = (1 - wet_bias) / share.size + wet_bias * share / share.sum()
    assert (drawn[chance == 0] == 0).all()
    # Five standard errors of a count.
    assert (np.abs(drawn - 4000 * chance) <= 5 * np.sqrt(4000 * chance) + 1e-9).all()


def test_corners_need_not_lie_on_tile_edges():
    wet = np.zeros((32, 32))
    wet[20, 20] = 1
    drawn = corner_counts(wet, crop=12, block=8, wet_bias=1.0, draws=500)
    rows, columns = np.nonzero(drawn)
    assert len(set(rows % 8)) == 8
    assert len(set(columns % 8)) == 8


def test_a_dry_window_is_cropped_anywhere():
    drawn = corner_counts(np.zeros((6, 6)), crop=4, block=2, wet_bias=1.0, draws=500)
    assert (drawn > 0).all()


def test_rain_outside_the_window_does_not_attract_crops():
    wet = np.zeros((6, 1, 4), np.float32)
    wet[4:, 0, 3] = 1
    wet[0, 0, 0] = 1
    draw = {"count": 1, "grid": (1, 4), "crop": 1, "block": 1, "wet_bias": 1.0, "rng": np.random.default_rng(0)}
    assert {draw_crops(Window(0, 0, 3), wet, **draw)[0].x for _ in range(20)} == {0}
    assert {draw_crops(Window(0, 3, 3), wet, **draw)[0].x for _ in range(20)} == {3}


def test_a_crop_as_large_as_the_field_leaves_the_window_whole():
    window = Window(0, 0, 2)
    wet = np.ones((4, 2, 2), np.float32)
    rng = np.random.default_rng(0)
    assert draw_crops(window, wet, count=1, grid=(6, 8), crop=8, block=4, wet_bias=0.5, rng=rng) == [window]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"grid": (64, 64)}, "wet map"), ({"wet_bias": 1.5}, "wet_bias"), ({"crop": 0}, "crop")],
)
def test_wrong_crop_arguments_are_refused(wrong, message):
    arguments = {"count": 1, "grid": (6, 8), "crop": 4, "block": 4, "wet_bias": 0.5}
    arguments |= {"rng": np.random.default_rng(0), **wrong}
    with pytest.raises(UsageError, match=message):
        draw_crops(Window(0, 0, 2), np.ones((4, 2, 2), np.float32), **arguments)
