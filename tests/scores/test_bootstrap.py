import numpy as np
import pytest
import xarray as xr

from cubecast.errors import InputError, UsageError
from cubecast.scores import intervals, scores_from, statistics
from cubecast.scores.bootstrap import draw_cases


def _errors(values):
    """Statistics, kept per case, of forecasts whose error at the one point of case i is values[i]."""
    start = np.datetime64("2020-06-01", "ns") + np.arange(len(values)) * np.timedelta64(5, "m")
    coords = {"forecast_reference_time": start, "lead_time": [np.timedelta64(5, "m").astype("m8[ns]")]}
    dims = ("forecast_reference_time", "lead_time", "station")
    forecast = xr.DataArray(np.asarray(values, float)[:, None, None], dims=dims, coords=coords)
    return statistics(forecast, xr.zeros_like(forecast), per_case=True)


def test_each_resample_has_as_many_cases_in_whole_blocks():
    times = draw_cases(7, resamples=200, block=3, seed=1)
    assert times.shape == (200, 7)
    assert (times.sum(axis=1) == 7).all()
    assert times.sum(axis=0) == pytest.approx(200, abs=60)
    # blocks of all the cases: each resample is the sample
    assert (draw_cases(5, resamples=9, block=5, seed=0) == 1).all()
    again = draw_cases(7, resamples=200, block=3, seed=1)
    np.testing.assert_array_equal(times, again)
    assert (times != draw_cases(7, resamples=200, block=3, seed=2)).any()


def test_blocks_are_neighbours():
    times = draw_cases(6, resamples=300, block=2, seed=0)
    # three blocks of two: a case that is drawn never stands alone
    alone = (times > 0) & (np.roll(times, 1, axis=1) == 0) & (np.roll(times, -1, axis=1) == 0)
    assert not alone.any()
    assert ((draw_cases(6, resamples=300, block=1, seed=0) > 0) != (times > 0)).any()


def test_the_interval_of_a_mean_is_that_of_normal_theory():
    values = np.random.default_rng(0).normal(2.0, 1.0, 400)
    low, high = intervals(_errors(values), resamples=2000, seed=3)
    half = 1.96 * values.std() / 20
    assert low["bias"].item() == pytest.approx(values.mean() - half, abs=0.01)
    assert high["bias"].item() == pytest.approx(values.mean() + half, abs=0.01)


def test_neighbours_that_are_alike_need_blocks_to_be_as_unsure_as_they_are():
    values = np.random.default_rng(0).normal(size=60).repeat(10)
    widths = []
    for block in (1, 10, 40):
        low, high = intervals(_errors(values), resamples=500, block=block)
        widths.append((high["bias"] - low["bias"]).item())
    honest = 2 * 1.96 * values.std() / np.sqrt(60)
    assert widths[0] < 0.5 * honest
    assert widths[1] == pytest.approx(honest, rel=0.25)
    assert widths[2] == pytest.approx(honest, rel=0.25)


def test_all_equal_cases_leave_no_doubt_and_the_order_of_chunks_does_not_matter():
    low, high = intervals(_errors([3.0] * 12), resamples=50, block=4)
    assert low["mae"].item() == high["mae"].item() == 3
    sums = _errors(np.arange(12.0))
    shuffled = sums.isel(forecast_reference_time=[5, 1, 0, 11, 10, 3, 2, 4, 6, 9, 8, 7])
    one, other = (intervals(s, resamples=50, block=3)[0]["mse"].item() for s in (sums, shuffled))
    assert one == other


def test_every_score_has_its_interval_with_the_score_inside(rain_pair):
    forecast, observed = rain_pair(cases=9)
    members = xr.concat([forecast, 0.5 * forecast, 0.8 * forecast + 0.2], "realization")
    options = {"thresholds": (0.5, 2.0), "fss_windows": {"3cells": 3}, "cell": 1.0}
    sums = statistics(members, observed, **options, per_case=True)
    scores = scores_from(sums)
    low, high = intervals(sums, resamples=100, block=2)
    assert set(low.data_vars) == set(scores.data_vars)
    for name in ("mse", "csi", "csi_mean", "fss", "blur", "crps", "spread_error", "brier", "roc_area"):
        score = scores[name].transpose(*low[name].dims)
        assert (low[name] <= score + 1e-12).all(), name
        assert (score <= high[name] + 1e-12).all(), name
        assert (low[name] < high[name]).any() or name == "blur", name  # all of these are weaker at all wavelengths


def test_too_few_blocks_have_no_interval():
    low, high = intervals(_errors(np.arange(8.0)), resamples=20, block=3)
    assert np.isnan(low["mse"].item())
    assert np.isnan(high["mse"].item())
    assert np.isfinite(intervals(_errors(np.arange(9.0)), resamples=20, block=3)[0]["mse"].item())


def test_an_event_in_one_case_alone_is_not_in_all_resamples():
    start = np.datetime64("2020-06-01", "ns") + np.arange(4) * np.timedelta64(5, "m")
    coords = {"forecast_reference_time": start, "lead_time": [np.timedelta64(5, "m").astype("m8[ns]")]}
    dims = ("forecast_reference_time", "lead_time", "station")
    wet = xr.DataArray(np.array([1.0, 0, 0, 0])[:, None, None], dims=dims, coords=coords)
    low, high = intervals(statistics(wet, wet, thresholds=(1.0, 9.0), per_case=True), resamples=50)
    assert low["csi"].values.tolist()[0][0] == high["csi"].values.tolist()[0][0] == 1.0
    assert np.isnan(low["csi"].values[0][1])


def test_refusals(rain_pair):
    with pytest.raises(InputError, match="per_case=True"):
        intervals(statistics(*rain_pair()), resamples=10)
    with pytest.raises(UsageError, match="0 resamples"):
        intervals(_errors([1.0, 2.0, 3.0]), resamples=0)
