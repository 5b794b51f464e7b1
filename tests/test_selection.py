"""Which frames, reference times and pixels a verification counts."""

import numpy as np
import pytest

from cubecast.errors import InputError, UsageError
from cubecast.selection import overlapping, select_period, select_references, select_region


def test_a_period_has_both_of_its_ends(rain):
    cube = rain(20)
    assert select_period(cube, "2020-06-01T00:10", "2020-06-01T00:30").sizes["time"] == 5
    assert select_period(cube, None, None).sizes["time"] == 20
    with pytest.raises(UsageError, match="start or end: found noon to None"):
        select_period(cube, "noon", None)
    assert select_period(cube, "2020-06-01T00:10Z", "2020-06-01T00:30Z").sizes["time"] == 5
    for nothing in ("NaT", np.datetime64("NaT"), "nan"):
        with pytest.raises(UsageError, match="start or end: found"):
            select_period(cube, nothing, None)
    with pytest.raises(InputError, match="no frames to verify"):
        select_period(cube, cube.time.values[-1], None)


def test_references_have_a_history_and_a_lead_in_the_period(rain):
    cube = rain(20, missing=[7])
    times = cube.time.values
    found = select_references(cube, cube, history=3, horizon=2)
    assert np.array_equal(found, times[[2, 3, 4, 5, 6, 9, 10, 11, 12, 13, 14, 15, 16, 17]])
    late = select_references(cube, select_period(cube, times[15], None), history=3, horizon=2)
    assert np.array_equal(late, times[[13, 14, 15, 16, 17]])
    with pytest.raises(InputError, match="no case to verify"):
        select_references(cube, cube, history=15, horizon=2)


def test_references_can_be_named(rain):
    cube = rain(20, missing=[7])
    times = cube.time.values
    found = select_references(cube, cube, history=3, horizon=2, at=[times[9], times[4], times[9]])
    assert np.array_equal(found, times[[4, 9]])
    with pytest.raises(InputError, match="nothing to verify after 2020-06-01T01:35"):
        select_references(cube, cube, history=3, horizon=2, at=times[[4, -1]])
    with pytest.raises(InputError, match="no case to verify"):
        select_references(cube, cube, history=3, horizon=2, at=[])
    with pytest.raises(UsageError, match="reference time: found yesterday; allowed: values of 'time'"):
        select_references(cube, cube, history=3, horizon=2, at="yesterday")
    with pytest.raises(InputError, match="frames are missing before 2020-06-01T00:40"):
        select_references(cube, cube, history=3, horizon=2, at=times[[7]])


def test_forecasts_overlap_with_neighbours_within_the_horizon(rain):
    cube = rain(20, missing=[7])
    times = cube.time.values
    assert overlapping(cube, times[2:12], 3) == 3
    assert overlapping(cube, times[[2, 5]], 4) == 2
    assert overlapping(cube, times[[5, 8]], 4) == 1  # a frame is missing between them: they are four steps apart


def test_regions(rain):
    cube = rain(6)
    assert select_region(cube, {}, None) is None
    south = select_region(cube, {"y": (0, 5000)}, None)
    assert south.sum().item() == 6 * 28
    both = select_region(cube, {"y": (0, 5000)}, 0.1)
    assert both.sum().item() == (cube.isel(y=slice(-6, None)).min("time") >= 0.1).sum().item()
    with pytest.raises(UsageError, match="region: found lat; allowed: y, x"):
        select_region(cube, {"lat": (0, 1)}, None)
    with pytest.raises(UsageError, match="region y: found 5000 to 0; allowed: from the lower to the higher value"):
        select_region(cube, {"y": (5000, 0)}, None)
    with pytest.raises(InputError, match=r"no pixel to verify: found none in .*; allowed: .*'y': '0 to 23000'"):
        select_region(cube, {"y": (50000, 60000)}, None)
