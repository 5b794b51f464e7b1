"""Frames that come as they should not, and what the watch makes of them; all on real files."""

import os
import shutil

import netCDF4
import numpy as np
import pytest
import xarray as xr

from cubecast.cube import check_cube
from cubecast.errors import InputError, UsageError
from cubecast.steps import Step
from cubecast.watch import Outbox, Rules, Watcher

STEP = 300.0


def check_accounts(site):
    f = site.status()["forecasts"]
    assert f["due"] == f["made"] + f["skipped"] + f["failed"] + f["waiting"], f
    return f


def test_a_forecast_for_each_new_frame_that_says_what_it_was_made_of(site):
    site.put(0, 1, 2)
    site.at(2)
    watcher = site.watch(stale=None)
    assert site.settle(watcher) == ["nowcast_20200601T001000.nc"]
    site.put(3)
    site.at(3)
    assert site.settle(watcher) == ["nowcast_20200601T001500.nc"]
    assert site.made() == [2, 3]
    forecast = site.forecast(3)
    direct = site.model.predict(site.cube.isel(time=slice(1, 4)))
    np.testing.assert_array_equal(forecast["rainfall_rate"].values, direct["rainfall_rate"].values)
    assert forecast.attrs["newest_frame_time"] == "2020-06-01T00:15:00Z"
    assert forecast.attrs["newest_frame_age_seconds"] == 61
    assert forecast.attrs["filled_frames"] == "none"
    assert forecast.attrs["date_created"] == "2020-06-01T00:16:01Z"
    assert forecast.attrs["creator"] == "cubecast watch"
    assert (site.out / "latest.nc").is_symlink()
    assert os.readlink(site.out / "latest.nc") == "nowcast_20200601T001500.nc"
    assert site.settle(watcher) == []
    check_accounts(site)


def test_the_first_frames_have_no_history_and_are_accounted_for(site):
    site.put(0, 1, 2)
    watcher = site.watch(deadline=100)
    site.settle(watcher)
    assert site.status()["forecasts"]["waiting"] == 2  # older frames may still come
    site.now += 100
    site.settle(watcher)
    f = check_accounts(site)
    assert (f["due"], f["made"], f["skipped_reasons"]) == (3, 1, {"history": 2})


def test_a_file_that_grows_is_left_alone_until_two_looks_find_it_the_same(site):
    site.put(0, 1, 2)
    whole = site.path(2).read_bytes()
    watcher = site.watch()
    for part in (0.3, 0.6, 0.9):
        site.path(2).write_bytes(whole[: int(len(whole) * part)])
        site.now += 1
        assert watcher.cycle() == []
    assert site.status()["files"]["opened"] == 2
    assert site.status()["files"]["moving"] == 1
    site.path(2).write_bytes(whole)
    assert len(site.settle(watcher)) == 1


@pytest.mark.parametrize("kind", ["NETCDF4", "NETCDF3_CLASSIC"])
def test_a_half_copied_file_is_tried_until_patience_ends_and_reported_once(site, kind):
    site.put(0, 1)
    site.cube.isel(time=[2]).to_netcdf(site.path(2), format=kind)
    whole = site.path(2).read_bytes()
    site.path(2).write_bytes(whole[: len(whole) * 2 // 3])
    watcher = site.watch(patience=50)
    site.settle(watcher)
    assert site.status()["files"]["refused"] == {}
    for _ in range(3):
        site.now += 40
        site.settle(watcher)
    assert site.status()["files"]["refused"] == {"unreadable": 1}
    assert [r["why"].split(":")[0] for r in site.status()["recent"] if r["what"] == "refused"] == [site.path(2).name]
    opened = site.status()["files"]["opened"]
    site.settle(watcher)
    assert site.status()["files"]["opened"] == opened
    site.path(2).write_bytes(whole)  # the copy is made again
    assert len(site.settle(watcher)) == 1


def test_a_half_copied_file_that_is_completed_within_patience_is_a_frame(site):
    site.put(0, 1, 2)
    whole = site.path(2).read_bytes()
    site.path(2).write_bytes(whole[: len(whole) // 2])
    watcher = site.watch()
    site.settle(watcher)
    site.path(2).write_bytes(whole)
    assert len(site.settle(watcher)) == 1
    assert site.status()["files"]["refused"] == {}


def test_names_of_copies_in_progress_are_not_frames(site):
    site.put(0, 1, 2)
    shutil.copy(site.path(2), site.frames / ".rain_x.nc.Ab12")
    shutil.copy(site.path(2), site.frames / "rain_x.nc.part")
    assert site.settle(site.watch()) == ["nowcast_20200601T001000.nc"]
    assert site.status()["files"]["seen"] == 3


def test_a_late_frame_is_waited_for_up_to_the_deadline(site):
    site.put(0, 1, 3)
    site.at(3)
    watcher = site.watch(deadline=200)
    assert site.settle(watcher) == []
    assert site.status()["forecasts"]["waiting"] >= 2
    site.now += 100
    site.put(2)
    assert site.settle(watcher) == ["nowcast_20200601T001000.nc", "nowcast_20200601T001500.nc"]  # in order of time
    assert site.forecast(3).attrs["filled_frames"] == "none"
    f = check_accounts(site)
    assert (f["made"], f["deadlines_met"], f["deadlines_missed"]) == (2, 2, 0)


def test_a_missing_frame_is_interpolated_in_time_and_the_file_says_so(site):
    site.put(0, 1, 3)
    site.at(3)
    watcher = site.watch(deadline=200, fill=1)
    site.settle(watcher)
    site.now += 160  # three quarters of the deadline: the rest is for the forecast itself
    assert site.settle(watcher) == ["nowcast_20200601T001500.nc"]
    forecast = site.forecast(3)
    assert forecast.attrs["filled_frames"] == "2020-06-01T00:10:00Z"
    assert forecast.attrs["filled_frames_count"] == 1
    assert "interpolated linearly in time" in forecast.attrs["comment"]
    cube = site.cube.isel(time=slice(1, 4)).copy(deep=True)
    cube[1] = (cube[0] + cube[2]).values / 2
    expected = site.model.predict(cube)["rainfall_rate"].values
    np.testing.assert_allclose(forecast["rainfall_rate"].values, expected, rtol=1e-5, atol=1e-6)
    assert site.status()["last_forecast"]["deadline_met"] is True
    assert check_accounts(site)["skipped_reasons"] == {"history": 2, "missing": 1}


def test_a_given_up_frame_is_not_waited_for_twice_and_counts_when_it_comes_after_all(site):
    site.put(0, 1, 3)
    watcher = site.watch(deadline=200)
    site.settle(watcher)
    site.now += 200
    site.settle(watcher)
    site.put(4)
    assert site.settle(watcher) == ["nowcast_20200601T002000.nc"]  # at once, with the same frame filled
    assert site.forecast(4).attrs["filled_frames"] == "2020-06-01T00:10:00Z"
    site.put(2)
    assert site.settle(watcher) == ["nowcast_20200601T001000.nc"]
    assert os.readlink(site.out / "latest.nc") == "nowcast_20200601T002000.nc"  # not back to an older one
    assert check_accounts(site)["skipped_reasons"] == {"history": 2}
    site.put(5)
    site.settle(watcher)
    assert site.forecast(5).attrs["filled_frames"] == "none"


@pytest.mark.parametrize(("fill", "made"), [(1, False), (2, True)])
def test_no_more_frames_are_filled_than_allowed(site, fill, made):
    site.put(0, 1, 4)
    watcher = site.watch(deadline=10, fill=fill)
    site.settle(watcher)
    site.now += 10
    site.settle(watcher)
    assert (4.0 in site.made()) is made
    f = check_accounts(site)
    assert f["skipped_reasons"]["missing"] == 2
    if made:
        assert site.forecast(4).attrs["filled_frames_count"] == 2
    else:
        assert any("2 frames of its history are missing" in r["why"] for r in site.status()["recent"])


def test_a_long_gap_is_accounted_for_and_forgotten(site):
    site.put(0, 1, 2)
    watcher = site.watch(deadline=0)
    site.settle(watcher)
    site.put(40, 41, 42)
    site.settle(watcher)
    f = check_accounts(site)
    assert (f["due"], f["made"]) == (43, 2)
    assert f["skipped_reasons"] == {"history": 4, "missing": 37}
    assert len(watcher.intake.series.frames) == 3


def test_of_two_frames_of_one_time_the_newer_file_wins_before_the_forecast(site):
    site.put(0, 1, 2)
    site.put(2, suffix="a", change=lambda c: c * 3)  # sorts and is written after
    site.settle(site.watch())
    cube = site.cube.isel(time=slice(0, 3)).copy(deep=True)
    cube[2] *= 3
    expected = site.model.predict(cube)["rainfall_rate"].values
    np.testing.assert_allclose(site.forecast(2)["rainfall_rate"].values, expected, rtol=1e-6)
    assert site.status()["files"]["refused"] == {"duplicate": 1}


def test_the_newer_of_two_files_wins_whatever_their_names(site):
    site.put(2, suffix="a", change=lambda c: c * 3)
    site.put(0, 1, 2)
    site.settle(site.watch())
    expected = site.model.predict(site.cube.isel(time=slice(0, 3)))["rainfall_rate"].values
    np.testing.assert_array_equal(site.forecast(2)["rainfall_rate"].values, expected)


def test_a_duplicate_after_the_forecast_is_ignored_with_a_note(site):
    site.put(0, 1, 2)
    watcher = site.watch()
    site.settle(watcher)
    before = site.forecast(2)["rainfall_rate"].values
    site.put(2, suffix="a", change=lambda c: c * 3)
    assert site.settle(watcher) == []
    np.testing.assert_array_equal(site.forecast(2)["rainfall_rate"].values, before)
    assert any("a forecast after 2020-06-01T00:10:00Z was made with" in r["why"] for r in site.status()["recent"])
    site.put(3)
    site.settle(watcher)
    expected = site.model.predict(site.cube.isel(time=slice(1, 4)))["rainfall_rate"].values
    np.testing.assert_array_equal(site.forecast(3)["rainfall_rate"].values, expected)


def test_frames_out_of_order_are_sorted_by_their_own_times(site):
    watcher = site.watch()
    for i in (1, 0, 3, 2, 4):
        site.put(i)
        site.settle(watcher)
    assert site.made() == [3, 2, 4] or site.made() == [2, 3, 4]
    expected = site.model.predict(site.cube.isel(time=slice(2, 5)))["rainfall_rate"].values
    np.testing.assert_array_equal(site.forecast(4)["rainfall_rate"].values, expected)
    assert check_accounts(site)["failed"] == 0


def finer(cube):
    return cube.assign_coords(x=cube.x * 0.5)


def metres(cube):
    return cube.assign_attrs(units="m s-1")


def off_step(cube):
    return cube.assign_coords(time=cube.time + np.timedelta64(2, "m"))


def all_missing(cube):
    return cube.where(cube < -1)


def tomorrow(cube):
    return cube.assign_coords(time=cube.time + np.timedelta64(1, "D"))


REFUSED = {"grid": finer, "units": metres, "step": off_step, "empty": all_missing, "future": tomorrow}


@pytest.mark.parametrize("word", REFUSED)
def test_a_frame_that_does_not_fit_is_refused_with_its_reason_and_the_watch_goes_on(site, word):
    site.put(0, 1, 2)
    site.at(4)
    watcher = site.watch(deadline=0)
    site.settle(watcher)
    site.put(3, change=REFUSED[word])
    assert site.settle(watcher) == []
    assert site.status()["files"]["refused"] == {word: 1}
    assert sum(word in r["why"] for r in site.status()["recent"]) == 1
    site.put(4)
    assert site.settle(watcher) == ["nowcast_20200601T002000.nc"]
    assert site.forecast(4).attrs["filled_frames"] == "2020-06-01T00:15:00Z"


def test_a_file_with_another_step_inside_is_refused(site):
    check_cube(site.cube)
    site.cube.isel(time=slice(0, 6, 2)).to_netcdf(site.frames / "a.nc")
    site.settle(site.watch())
    assert site.status()["files"]["refused"] == {"step": 1}


def test_a_history_of_frames_on_another_grid_becomes_the_grid(site):
    site.put(0, change=finer)  # the first frame of all is the wrong one
    watcher = site.watch(deadline=0)
    site.settle(watcher)
    site.put(1, 2)
    site.settle(watcher)
    assert site.made() == []
    site.put(3)
    assert site.settle(watcher) == ["nowcast_20200601T001500.nc"]
    assert site.forecast(3)["x"].values[1] == 1000.0
    assert any(r["what"] == "takeover" for r in site.status()["recent"])
    site.put(4)
    site.settle(watcher)
    assert site.made() == [3, 4]
    check_accounts(site)


def test_single_frames_of_another_grid_never_take_over(site):
    site.put(0, 1, 2)
    watcher = site.watch(deadline=0)
    site.settle(watcher)
    for i in range(3, 12, 2):
        site.put(i)
        site.put(i + 1, change=finer)
        site.settle(watcher)
    assert site.status()["files"]["refused"] == {"grid": 5}
    assert site.forecast(11)["x"].values[1] == 1000.0


def test_values_that_are_missing_or_infinite_in_part_are_data(site):
    site.put(0, 1)
    site.put(2, change=lambda c: c.where(c.x > 3000))
    watcher = site.watch()
    assert len(site.settle(watcher)) == 1
    site.put(3, change=lambda c: c.where(c.y > 3000, np.inf))
    assert len(site.settle(watcher)) == 1
    assert not np.isinf(site.forecast(3)["rainfall_rate"].values).any()


def test_nothing_is_forecast_after_a_stale_frame(site):
    site.put(0, 1, 2)
    site.at(2)
    site.now += 2 * STEP  # all valid times have passed
    watcher = site.watch(stale=None)
    assert site.settle(watcher) == []
    f = check_accounts(site)
    assert f["skipped_reasons"] == {"stale": 3}
    assert site.status()["last_frame"]["stale"] is True
    site.put(3, 4, 5)
    site.at(5)
    assert site.settle(watcher) == ["nowcast_20200601T002000.nc", "nowcast_20200601T002500.nc"]
    assert check_accounts(site)["skipped_reasons"] == {"stale": 4}


def test_a_file_with_many_frames_that_grows_gives_a_forecast_each_time(site):
    path = site.frames / "day.nc"
    site.cube.isel(time=slice(0, 4)).to_netcdf(path)
    watcher = site.watch()
    assert len(site.settle(watcher)) == 2
    site.cube.isel(time=slice(0, 6)).to_netcdf(path)
    assert len(site.settle(watcher)) == 2
    assert site.status()["files"]["refused"] == {}
    assert site.made() == [2, 3, 4, 5]


def test_single_frames_of_a_file_between_the_steps_are_refused(site):
    """The last one fits, so the file does."""
    site.put(0, 1, 2)
    cube = site.cube.isel(time=slice(3, 7))
    jitter = np.array([7, 7, 7, 5]) * np.timedelta64(1, "s")
    cube.assign_coords(time=cube.time + jitter).to_netcdf(site.frames / "some.nc")
    site.settle(site.watch())
    assert site.status()["state"] == "watching"
    assert site.status()["files"]["refused"] == {"step": 3}


def test_old_files_are_not_opened_again_and_again(site):
    site.put(0)
    for n in range(2000):
        os.link(site.path(0), site.frames / f"rain_1999-{n:06d}.nc")
    site.put(*range(48, 54))
    site.at(53)
    watcher = site.watch(stale=None)
    assert site.settle(watcher) == ["nowcast_20200601T042000.nc", "nowcast_20200601T042500.nc"]
    first = site.status()["files"]
    assert first["seen"] == 2007
    assert first["opened"] < 20
    for _ in range(3):
        site.settle(watcher)
    assert site.status()["files"]["opened"] == first["opened"]


def test_a_backlog_is_worked_off_in_order_with_only_the_window_held(site):
    site.put(*range(16))
    watcher = site.watch(deadline=0)
    assert site.settle(watcher) == sorted(p.name for p in site.out.glob("nowcast_*.nc"))
    assert site.made() == list(range(2, 16))
    assert len(watcher.intake.series.frames) == 7
    assert check_accounts(site)["due"] == 16


def test_a_folder_that_is_away_for_a_while_does_not_end_the_watch(site):
    site.put(0, 1, 2)
    watcher = site.watch()
    site.settle(watcher)
    site.frames.rename(site.frames.with_name("away"))
    site.settle(watcher)
    assert "cannot read the folder" in site.status()["problem"]
    site.frames.with_name("away").rename(site.frames)
    site.put(3)
    assert len(site.settle(watcher)) == 1
    assert site.status()["problem"] is None


def test_a_disk_that_is_full_or_closed_is_tried_again_until_the_deadline(site):
    site.put(0, 1, 2)
    watcher = site.watch(deadline=100)
    # a folder of that name stands in the way: what root, too, cannot write over
    block = site.out / "nowcast_20200601T001000.nc"
    block.mkdir()
    assert site.settle(watcher) == []
    assert site.status()["forecasts"]["failed"] == 0
    block.rmdir()
    assert site.settle(watcher) == ["nowcast_20200601T001000.nc"]
    (site.out / "nowcast_20200601T001500.nc").mkdir()
    site.put(3)
    site.settle(watcher)
    site.now += 100
    site.settle(watcher)
    f = check_accounts(site)
    assert f["failed_reasons"] == {"output": 1}


def test_a_missed_deadline_is_said(site):
    site.put(0, 1, 2)
    watcher = site.watch(deadline=0)
    clock = iter(np.arange(1000.0))
    watcher.maker.clock = lambda: site.now + next(clock)
    site.settle(watcher)
    assert site.status()["last_forecast"]["deadline_met"] is False
    assert site.status()["forecasts"]["deadlines_missed"] == 1


def test_rules_follow_from_the_step(loaded):
    rules = Rules.build(loaded.step, 12)
    assert (rules.poll, rules.deadline, rules.patience, rules.stale) == (5.0, 300.0, 300.0, 3600.0)
    assert Rules.build(Step("seconds", 86400.0), 3).poll == 30.0
    assert Rules.build(Step("months", 1.0), 3).stale > 89 * 86400
    assert rules.waiting(0) == 225
    assert rules.waiting(60) == 180
    assert rules.waiting(1000) == 150


@pytest.mark.parametrize("days", [1e9, float("inf")])
def test_what_is_to_be_kept_for_ever_is(site, days):
    site.put(0, 1, 2, 3)
    assert len(site.settle(site.watch(keep=days))) == 2
    assert site.made() == [2, 3]


@pytest.mark.parametrize(
    "wrong", [{"poll": 0.0}, {"deadline": -1.0}, {"keep": 0.0}, {"fill": -1}, {"stale": float("nan")}]
)
def test_wrong_rules_are_usage_errors(loaded, wrong):
    with pytest.raises(UsageError, match=f"--{next(iter(wrong))}"):
        Rules.build(loaded.step, 12, **wrong)


def test_what_cannot_be_watched_is_refused(site, tmp_path):
    with pytest.raises(UsageError, match="time steps"):
        Rules.build(Step("number", 0.5, "ft"), 12)
    with pytest.raises(InputError, match="no such folder"):
        Watcher(tmp_path / "none", site.model, Outbox(site.out), Rules.build(site.model.step, 2))
    assert not site.out.exists()


def test_the_files_are_closed(site):
    site.put(*range(6))
    watcher = site.watch()
    site.settle(watcher)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    site.put(*range(6, 12))
    site.settle(watcher)
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after <= before


def test_a_classic_file_and_one_of_other_variables(site):
    for i in (0, 1, 2):
        site.cube.isel(time=[i]).to_netcdf(site.path(i), format="NETCDF3_64BIT")
    with netCDF4.Dataset(site.frames / "zz.nc", "w") as file:
        file.createDimension("n", 3)
        file.createVariable("snow", "f4", ("n",))
    watcher = site.watch(patience=0)
    assert len(site.settle(watcher)) == 1
    assert site.status()["files"]["refused"] == {"unreadable": 1}
    xr.testing.assert_equal(site.forecast(2)["x"].drop_vars("x"), site.cube["x"].drop_vars("x"))
