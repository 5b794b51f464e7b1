"""Our pooled scores beside the `scores` package on the whole data, and beside plain NumPy loops."""

import operator

import numpy as np
import pytest
import scores.categorical
import scores.continuous
import scores.probability
import scores.spatial
import xarray as xr

from cubecast.scores import pool, scores_from, statistics

DIMS = ("forecast_reference_time", "lead_time", "y", "x")
THRESHOLDS = (0.1, 1.0, 5.0)
WHOLE = ["forecast_reference_time", "y", "x"]


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(3)
    shape = (5, 2, 26, 31)
    truth = np.where(rng.random(shape) < 0.6, 0.0, rng.gamma(0.6, 4.0, shape))
    guess = np.clip(0.6 * truth + rng.normal(0, 1.5, shape), 0, None)
    truth[rng.random(shape) < 0.1] = np.nan
    guess[:, :, :4, :5] = np.nan
    coords = {"lead_time": np.array([5, 10], "timedelta64[m]").astype("timedelta64[ns]")}
    return tuple(xr.DataArray(a.astype(np.float32).astype(float), dims=DIMS, coords=coords) for a in (guess, truth))


def _pooled(forecast, observed, **options):
    """Our scores from statistics of one case at a time."""
    cases = range(forecast.sizes[DIMS[0]])
    return scores_from(pool(statistics(forecast[[i]], observed[[i]], **options) for i in cases))


@pytest.mark.parametrize("weighted", [False, True])
def test_errors_agree_with_the_scores_package(pair, weighted):
    forecast, observed = pair
    weights = xr.DataArray(np.cos(np.linspace(0, 1.5, 26)), dims="y") if weighted else None
    ours = _pooled(forecast, observed, weights=weights)
    for name, theirs in (("mse", "mse"), ("rmse", "rmse"), ("mae", "mae"), ("bias", "additive_bias")):
        whole = getattr(scores.continuous, theirs)(forecast, observed, reduce_dims=WHOLE, weights=weights)
        np.testing.assert_allclose(ours[name], whole, rtol=1e-12, err_msg=name)


def test_correlation_agrees_with_the_scores_package(pair):
    forecast, observed = pair
    whole = scores.continuous.correlation.pearsonr(forecast, observed, reduce_dims=WHOLE)
    np.testing.assert_allclose(_pooled(forecast, observed)["corr"], whole, rtol=1e-12)


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_events_agree_with_the_scores_package(pair, threshold):
    forecast, observed = pair
    ours = _pooled(forecast, observed, thresholds=THRESHOLDS).sel(threshold=threshold)
    match = scores.categorical.ThresholdEventOperator(default_event_threshold=threshold, default_op_fn=operator.ge)
    table = match.make_contingency_manager(forecast, observed).transform(reduce_dims=WHOLE)
    np.testing.assert_allclose(ours["pod"], table.probability_of_detection(), rtol=1e-12)
    np.testing.assert_allclose(ours["far"], table.false_alarm_ratio(), rtol=1e-12)
    np.testing.assert_allclose(ours["csi"], table.critical_success_index(), rtol=1e-12)
    np.testing.assert_allclose(ours["frequency_bias"], table.frequency_bias(), rtol=1e-12)


def test_the_mean_csi_agrees_with_the_scores_package(pair):
    forecast, observed = pair
    ours = _pooled(forecast, observed, thresholds=(1.0,))["csi_mean"].sel(threshold=1.0)
    match = scores.categorical.ThresholdEventOperator(default_event_threshold=1.0, default_op_fn=operator.ge)
    table = match.make_contingency_manager(forecast, observed).transform(preserve_dims=list(DIMS[:2]))
    np.testing.assert_allclose(ours, table.critical_success_index().mean(DIMS[0]), rtol=1e-12)


@pytest.mark.parametrize("cells", [1, 3, 7])
def test_fss_agrees_with_the_scores_package_away_from_edges_and_missing_data(cells):
    """`scores` neither masks nor shortens windows at the edge, so events keep a window's distance from it."""
    rng = np.random.default_rng(5)
    inside = [np.pad(rng.gamma(0.4, 3.0, (4, 2, 12, 15)), [(0, 0), (0, 0), (8, 8), (8, 8)]) for _ in range(2)]
    inside[0] = 0.5 * inside[0] + 0.5 * np.roll(inside[1], 1, axis=-1)
    coords = {"lead_time": np.array([5, 10], "timedelta64[m]").astype("timedelta64[ns]")}
    forecast, observed = (xr.DataArray(a, dims=DIMS, coords=coords) for a in inside)
    ours = _pooled(forecast, observed, thresholds=THRESHOLDS, fss_windows={"w": cells})["fss"].sel(window="w")
    for threshold in THRESHOLDS:
        theirs = scores.spatial.fss_2d(
            forecast,
            observed,
            event_threshold=threshold,
            window_size=(cells, cells),
            spatial_dims=("y", "x"),
            reduce_dims=WHOLE,
            threshold_operator=np.greater_equal,
        )
        np.testing.assert_allclose(ours.sel(threshold=threshold), theirs, rtol=1e-12)


def _plain_fss(forecast, observed, valid, threshold, cells):
    """Sums of the fractions skill score, window by window."""
    half, apart, size = cells // 2, 0.0, 0.0
    for y, x in np.argwhere(valid):
        near = np.s_[max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1]
        share = [np.mean(field[near][valid[near]] >= threshold * (1 - 1e-5)) for field in (forecast, observed)]
        apart += (share[0] - share[1]) ** 2
        size += share[0] ** 2 + share[1] ** 2
    return apart, size


def test_scores_agree_with_plain_loops_over_masked_rain(pair):
    """The definitions of the pysteps comparison: pooled over cases, a mask for all systems, windows cut by the mask."""
    forecast, observed = pair
    ours = _pooled(forecast, observed, thresholds=THRESHOLDS, fss_windows={"5cells": 5})
    for lead in range(2):
        f, o = forecast.values[:, lead], observed.values[:, lead]
        ok = np.isfinite(f) & np.isfinite(o)
        a, b = f[ok], o[ok]
        mine = ours.isel(lead_time=lead)
        assert mine["mse"].item() == pytest.approx(np.mean((a - b) ** 2), rel=1e-12)
        assert mine["mae"].item() == pytest.approx(np.mean(np.abs(a - b)), rel=1e-12)
        assert mine["corr"].item() == pytest.approx(np.corrcoef(a, b)[0, 1], rel=1e-12)
        assert mine["pixels"].item() == ok.sum()
        for threshold in THRESHOLDS:
            p, q = a >= threshold * (1 - 1e-5), b >= threshold * (1 - 1e-5)
            one = mine.sel(threshold=threshold)
            assert one["csi"].item() == pytest.approx((p & q).sum() / (p | q).sum(), rel=1e-12)
            assert one["frequency_bias"].item() == pytest.approx(p.sum() / q.sum(), rel=1e-12)
        apart, size = np.sum([_plain_fss(f[i], o[i], ok[i], 1.0, 5) for i in range(len(f))], axis=0)
        fss = mine["fss"].sel(threshold=1.0, window="5cells").item()
        assert fss == pytest.approx(1 - apart / size, rel=1e-12)


@pytest.fixture(scope="module")
def ensemble(pair):
    """Six members of intermittent rain, with missing points and many ties, and their observation."""
    forecast, observed = pair
    rng = np.random.default_rng(8)
    spread = np.where(rng.random((6, *forecast.shape)) < 0.3, 0.0, rng.gamma(2.0, 0.5, (6, *forecast.shape)))
    members = xr.DataArray(spread, dims=("realization", *DIMS)) * forecast
    return members.where(forecast.notnull()).transpose(DIMS[0], "realization", ...), observed


@pytest.mark.parametrize("weighted", [False, True])
def test_ensemble_scores_agree_with_the_scores_package(ensemble, weighted):
    members, observed = ensemble
    weights = xr.DataArray(np.cos(np.linspace(0, 1.5, 26)), dims="y") if weighted else None
    ours = _pooled(members, observed, weights=weights, thresholds=THRESHOLDS)
    both = members.notnull().all("realization") & observed.notnull()
    f, o = members.where(both), observed.where(both)
    options = {"reduce_dims": WHOLE, "weights": weights}
    for name, method in (("crps", "ecdf"), ("crps_fair", "fair")):
        theirs = scores.probability.crps_for_ensemble(f, o, "realization", method=method, **options)
        np.testing.assert_allclose(ours[name], theirs, rtol=1e-12, err_msg=name)
    events = {"threshold": xr.DataArray(list(THRESHOLDS), dims="threshold")}
    said = (f >= events["threshold"]).where(both).mean("realization", skipna=False)
    brier = scores.probability.brier_score_for_ensemble(
        f, o, "realization", list(THRESHOLDS), fair_correction=False, **options
    )
    np.testing.assert_allclose(ours["brier"].transpose(*brier.dims), brier, rtol=1e-12)
    happened = (o >= events["threshold"]).where(both).astype(float)
    area = (
        scores.probability.roc_auc(said, happened, preserve_dims=["lead_time", "threshold"]) if not weighted else None
    )
    if area is not None:
        np.testing.assert_allclose(ours["roc_area"].transpose(*area.dims), area, rtol=1e-12)


def test_the_rank_histogram_agrees_with_the_scores_package(ensemble):
    members, observed = ensemble
    both = members.notnull().all("realization") & observed.notnull()
    with pytest.warns(UserWarning, match="NaN"):
        theirs = scores.probability.rank_histogram(
            members.where(both), observed.where(both), "realization", preserve_dims=["lead_time"]
        )
    ours = _pooled(members, observed)["rank_histogram"]
    np.testing.assert_array_equal(ours["rank"], theirs["rank"])
    np.testing.assert_allclose(ours.transpose(*theirs.dims), theirs, rtol=1e-12)


def test_the_power_spectrum_agrees_with_a_plain_sum_over_waves():
    rng = np.random.default_rng(2)
    truth, size = rng.normal(size=(9, 12)), (9, 12)
    field = xr.DataArray(truth[None, None], dims=DIMS, coords={"lead_time": [np.timedelta64(5, "m").astype("m8[ns]")]})
    ours = statistics(field, field, cell=2.0).isel(lead_time=0)
    y, x = np.meshgrid(*(np.arange(n) + 0.5 for n in size), indexing="ij")
    window = np.sin(np.pi * y / 9) ** 2 * np.sin(np.pi * x / 12) ** 2
    seen = window * (truth - (window * truth).sum() / window.sum())
    power = {}
    for a in range(-4, 5):
        for b in range(-5, 7):
            k = np.hypot(a / 9, b / 12)
            if 0 < k <= 0.5 + 1e-9:
                wave = (seen * np.exp(-2j * np.pi * (a * y / 9 + b * x / 12))).sum()
                band = int(np.floor(3 * np.log2(12 * k) + 1e-9))
                power.setdefault(band, []).append(abs(wave) ** 2 / (truth.size * (window**2).sum()))
    assert ours["waves"].values.tolist() == [len(power[b]) for b in sorted(power)]
    np.testing.assert_allclose(ours["power_observed"], [np.mean(power[b]) for b in sorted(power)], rtol=1e-10)
    assert ours["wavelength"].values[0] == pytest.approx(24.0)
