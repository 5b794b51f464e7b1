"""What holds for the windows of any cube."""

import itertools
import json

import numpy as np
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from cubecast.errors import InputError
from cubecast.windows import Window, draw_crops, find_windows, split_windows

places = st.lists(st.integers(1, 3) | st.just(1), min_size=2, max_size=60).map(np.cumsum)
"""Positions of frames on the step; a difference above 1 is a gap."""


def make_cube(place):
    # Two frames one step apart make sure that the step is what it is.
    place = np.concatenate([[place[0] - 1], place])
    time = np.datetime64("2020-01-01", "ns") + place * np.timedelta64(600, "s")
    time = np.unique(np.concatenate([time, time[-1] + np.arange(1, len(time) + 2) * np.timedelta64(600, "s")]))
    return xr.DataArray(np.zeros(len(time)), dims="time", coords={"time": time}, attrs={"units": "K"}, name="t")


def minutes(cube):
    return (cube.time.values - cube.time.values[0]) // np.timedelta64(600, "s")


@given(places, st.integers(1, 12), st.integers(1, 5))
def test_no_window_crosses_a_gap_and_none_is_lost(place, length, stride):
    cube = make_cube(place)
    at = minutes(cube)
    found = [w.start for w in find_windows(cube, length=length, stride=stride)]
    good = [i for i in range(len(at) - length + 1) if at[i + length - 1] - at[i] == length - 1]
    assert set(found) <= set(good)
    assert stride > 1 or found == good
    assert all(b - a >= stride or at[b] - at[a] > b - a for a, b in itertools.pairwise(found))


@given(st.lists(places, min_size=1, max_size=3), st.integers(1, 10), st.floats(0.05, 0.6), st.integers(1, 4))
def test_training_and_validation_are_an_embargo_apart(parts, length, validation, stride):
    cubes = [make_cube(place) for place in parts]
    try:
        training, validating = split_windows(cubes, length=length, validation=validation, stride=stride)
    except InputError:
        for cube in cubes:  # no room for the earliest window, the embargo and a validation part with a window in it
            at = minutes(cube)
            good = [w.start for w in find_windows(cube, length=length)]
            first = min([len(at) - max(int(validation * len(at)), length), *good[-1:]])
            assert not good or at[first] - at[good[0] + length - 1] <= length
        return
    assert training
    assert validating
    for index, cube in enumerate(cubes):
        at = minutes(cube)
        for w in (w for w in training + validating if w.cube == index):
            assert at[w.start + length - 1] - at[w.start] == length - 1
        last = max((at[w.start + length - 1] for w in training if w.cube == index), default=-length)
        first = min((at[w.start] for w in validating if w.cube == index), default=None)
        assert first is None or first - last > length


@settings(deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(1, 45),
    st.integers(1, 9),
    st.floats(0, 1),
    st.integers(0, 2**32),
)
def test_crops_lie_inside_the_grid_and_repeat_with_the_seed(grid, crop, block, wet_bias, seed):
    tiles = [-(-n // block) for n in grid]
    wet = np.random.default_rng(seed).random((5, *tiles)).astype(np.float32).round()
    window = Window(0, 1, 3)
    settings = {"count": 1, "grid": grid, "crop": crop, "block": block, "wet_bias": wet_bias}
    ((first,), (again,)) = (draw_crops(window, wet, **settings, rng=np.random.default_rng(seed)) for _ in range(2))
    assert first == again
    cube = xr.DataArray(np.zeros((5, *grid)), dims=("time", "y", "x"), coords={"time": np.arange(5)})
    assert cube.isel(first.indexers(cube)).shape == (3, min(crop, grid[0]), min(crop, grid[1]))
    if first.crop is not None:
        assert 0 <= first.y <= max(grid[0] - crop, 0)
        assert 0 <= first.x <= max(grid[1] - crop, 0)


counts = st.integers(0, 10**6)


@given(st.builds(Window, counts, counts, counts, st.none() | counts, st.none() | counts, st.none() | counts))
def test_windows_survive_json(window):
    assert Window.from_json(json.loads(json.dumps(window.to_json()))) == window
