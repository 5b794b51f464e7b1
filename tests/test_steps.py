"""The step of a sequence coordinate: found, counted, added."""

import numpy as np
import pytest

from cubecast.errors import InputError
from cubecast.steps import MONTH_DAYS, Step, infer_step, parse_time

NOON = np.datetime64("2024-01-31T12:00", "ns")


def times(*texts):
    return np.array(texts, "datetime64[ns]")


@pytest.mark.parametrize("text", ["2024-07-01T12:00+02:00", "now", "NaT", "2024-07-01T12:00Z+", "12:00"])
def test_times_of_other_zones_and_words_are_refused(text):
    with pytest.raises(ValueError, match="not a UTC time"):
        parse_time(text)
    assert parse_time("2024-07-01T12:00Z") == parse_time("2024-07-01 12:00") == np.datetime64("2024-07-01T12:00")


def test_the_middles_of_months_are_months_and_keep_their_day_and_hour():
    middles = times("2023-12-16T12:00", "2024-01-16T12:00", "2024-02-15T12:00", "2024-03-16T12:00")
    step = infer_step(middles)
    assert step == Step("months", 1)
    assert str(Step("months", 3)) == "3 months"
    np.testing.assert_array_equal(step.add(middles[:2], 1), times("2024-01-16T12:00", "2024-02-16T12:00"))
    np.testing.assert_array_equal(step.offsets(middles, middles[0]), [0, 1, 2, 3])
    assert step.lead(2) == np.timedelta64(round(2 * MONTH_DAYS * 86400), "s")


@pytest.mark.parametrize("nanoseconds", [10_000_000, 300_000_000_000, 3_600_000_000_000])
def test_the_most_common_difference_is_the_step_and_gaps_are_counted(nanoseconds):
    stamps = NOON + np.array([0, 1, 2, 5, 6]) * np.timedelta64(nanoseconds, "ns")
    step = infer_step(stamps)
    assert step == Step("seconds", nanoseconds / 1e9)
    np.testing.assert_array_equal(step.offsets(stamps, NOON), [0, 1, 2, 5, 6])
    np.testing.assert_array_equal(step.add(NOON, [0, 1, 2, 5, 6]), stamps)


def test_stamps_that_jitter_agree():
    jitter = np.array([0, 2, -1, 1, 0]) * np.timedelta64(1, "s")
    stamps = NOON + np.arange(5) * np.timedelta64(5, "m") + jitter
    assert infer_step(stamps).size == pytest.approx(300, abs=3)
    np.testing.assert_array_equal(Step("seconds", 300).offsets(stamps, NOON), range(5))


def test_depths_have_a_step_with_their_unit():
    step = infer_step(np.array([2793.0, 2793.5, 2794.0, 2795.0]), units="ft")
    assert step == Step("number", 0.5, "ft")
    assert str(step) == "0.5 ft"
    np.testing.assert_allclose(step.add(2795.0, [1, 2]), [2795.5, 2796.0])
    assert Step(**step.to_dict()) == step


def test_steps_say_themselves_in_the_largest_unit_that_is_whole():
    assert [str(Step("seconds", s)) for s in (86400, 7200, 300, 90, 0.01)] == ["1 d", "2 h", "5 min", "90 s", "0.01 s"]


def test_what_has_no_step_is_refused():
    with pytest.raises(InputError, match="2 or more frames"):
        infer_step(times("2024-01-01"))
    with pytest.raises(InputError, match="does not increase"):
        infer_step(times("2024-01-02", "2024-01-01"))
    with pytest.raises(InputError, match="not a whole number of steps of 5 min"):
        Step("seconds", 300).offsets(NOON + np.timedelta64(150, "s"), NOON)


def test_the_ends_of_months_stay_the_ends_and_a_day_that_is_not_there_is_the_last():
    ends = times("2024-01-31T06:00", "2024-02-29T06:00", "2024-03-31T06:00", "2024-04-30T06:00")
    step = infer_step(ends)
    assert step == Step("months", 1)
    for first in range(4):
        np.testing.assert_array_equal(step.add(ends[first], np.arange(4) - first), ends)
    thirtieth = times("2024-01-30", "2024-02-29", "2024-03-30")
    np.testing.assert_array_equal(step.add(thirtieth[0], [0, 1, 2]), thirtieth)
    np.testing.assert_array_equal(Step("months", 12).add(times("2024-02-29"), 1), times("2025-02-28"))
