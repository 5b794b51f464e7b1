"""Properties of the scores: pooling is exact, ranges hold, a perfect forecast is perfect."""

import itertools

import numpy as np
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cubecast.scores import join_cases, pool, scores_from, statistics

DIMS = ("forecast_reference_time", "lead_time", "y", "x")
REF = DIMS[0]
EVENTS = {"thresholds": (0.5, 2.0), "fss_windows": {"1cells": 1, "3cells": 3}}
LEADS = np.array([5, 10], "timedelta64[m]").astype("timedelta64[ns]")

rates = st.one_of(st.just(0.0), st.just(np.nan), st.floats(0, 50, width=32))


@st.composite
def pairs(draw):
    shape = (draw(st.integers(1, 5)), 2, draw(st.integers(1, 4)), draw(st.integers(1, 5)))
    made = (draw(hnp.arrays(np.float64, shape, elements=rates)) for _ in range(2))
    weights = draw(hnp.arrays(np.float64, shape[2:], elements=st.sampled_from([0.0, 0.5, 1.0, 2.0])))
    forecast, observed = (xr.DataArray(a, dims=DIMS, coords={"lead_time": LEADS}) for a in made)
    return forecast, observed, xr.DataArray(weights, dims=DIMS[2:])


@settings(max_examples=25, deadline=None)
@given(pairs(), st.lists(st.integers(0, 5), max_size=4), st.randoms())
def test_any_chunks_in_any_order_pool_to_the_whole(pair, cuts, random):
    forecast, observed, weights = pair
    edges = sorted({0, forecast.sizes[REF], *(c for c in cuts if c < forecast.sizes[REF])})
    chunks = [slice(a, b) for a, b in itertools.pairwise(edges)]
    random.shuffle(chunks)
    parts = [statistics(forecast.isel({REF: c}), observed.isel({REF: c}), weights=weights, **EVENTS) for c in chunks]
    whole = statistics(forecast, observed, weights=weights, **EVENTS)
    xr.testing.assert_allclose(pool(parts), whole, rtol=1e-10, atol=1e-10)
    exact = ["pixels", "cases", "weight", "hits", "misses", "false_alarms", "correct_negatives"]
    xr.testing.assert_equal(pool(parts)[exact], whole[exact])


@st.composite
def ensembles(draw):
    _, observed, weights = draw(pairs())
    values = st.sampled_from([0.0, 0.5, 1.0, 2.5, 50.0, np.nan])
    shape = (observed.shape[0], draw(st.integers(1, 4)), *observed.shape[1:])
    members = draw(hnp.arrays(np.float64, shape, elements=values))
    dims = (REF, "realization", *DIMS[1:])
    return xr.DataArray(members, dims=dims, coords={"lead_time": LEADS}), observed.round(0), weights


@settings(max_examples=8, deadline=None)
@given(ensembles())
def test_cases_of_ensembles_pool_to_the_whole_whether_kept_apart_or_not(pair):
    members, observed, weights = pair
    options = {"weights": weights, "thresholds": (0.5, 2.0)}
    parts = [statistics(members[[i]], observed[[i]], **options) for i in range(len(observed))]
    kept = [statistics(members[[i]], observed[[i]], **options, per_case=True) for i in range(len(observed))]
    whole = statistics(members, observed, **options)
    xr.testing.assert_allclose(pool(parts), whole, rtol=1e-10, atol=1e-10)
    xr.testing.assert_allclose(pool([join_cases(kept)]), whole, rtol=1e-10, atol=1e-10)
    each = statistics(members, observed, **options, per_case=True)
    xr.testing.assert_allclose(join_cases(kept), each, rtol=1e-10, atol=1e-10)


@settings(max_examples=15, deadline=None)
@given(ensembles())
def test_ensemble_scores_stay_in_their_ranges(pair):
    members, observed, weights = pair
    s = scores_from(statistics(members, observed, weights=weights, thresholds=(0.5, 2.0)))
    for name in ("brier", "roc_area", "reliability", "hit_rate", "false_alarm_rate", "rank_histogram"):
        assert bool((((s[name] >= -1e-9) & (s[name] <= 1 + 1e-9)) | s[name].isnull()).all()), name
    assert bool(((s["crps"] >= -1e-9) | s["crps"].isnull()).all())
    for name, dim in (("rank_histogram", "rank"), ("said_share", "yes_members")):
        total = s[name].sum(dim)
        assert bool(((abs(total - 1) < 1e-9) | (s["pixels"] == 0)).all()), name


@settings(max_examples=25, deadline=None)
@given(pairs())
def test_scores_stay_in_their_ranges(pair):
    forecast, observed, weights = pair
    sums = statistics(forecast, observed, weights=weights, **EVENTS)
    s = scores_from(sums)
    small = 1e-9

    def ordered(low, high):
        low, high = np.broadcast_arrays(low, high)
        assert ((low <= high + small) | np.isnan(low) | np.isnan(high)).all()

    values = {str(name): s[name].values for name in s.data_vars}
    ordered(values["mae"], values["rmse"])
    ordered(np.abs(values["bias"]), values["mae"])
    ordered(np.abs(values["corr"]), 1 + 1e-6)
    for name in ("pod", "far", "csi", "fss"):
        ordered(0.0, values[name])
        ordered(values[name], 1.0)
    ordered(values["csi"], values["pod"])
    ordered(values["csi"], 1 - values["far"])
    total = sums["hits"] + sums["misses"] + sums["false_alarms"] + sums["correct_negatives"]
    np.testing.assert_allclose(total, np.broadcast_to(sums["weight"].values[:, None], total.shape))


@settings(max_examples=15, deadline=None)
@given(pairs())
def test_a_perfect_forecast_is_perfect(pair):
    _, observed, weights = pair
    s = scores_from(statistics(observed, observed, weights=weights, **EVENTS))
    for name, best in (("mse", 0), ("mae", 0), ("bias", 0), ("pod", 1), ("far", 0), ("csi", 1), ("frequency_bias", 1)):
        assert bool(((s[name] == best) | s[name].isnull()).all()), name
    assert bool(((s["fss"] == 1) | s["fss"].isnull()).all())


@settings(max_examples=15, deadline=None)
@given(pairs())
def test_fss_of_one_cell_is_twice_the_hits_over_all_events(pair):
    forecast, observed, weights = pair
    sums = statistics(forecast, observed, weights=weights, **EVENTS)
    events = 2 * sums["hits"] + sums["misses"] + sums["false_alarms"]
    np.testing.assert_allclose(sums["fss_reference"].sel(window="1cells"), events)
    np.testing.assert_allclose(sums["fss_difference"].sel(window="1cells"), sums["misses"] + sums["false_alarms"])
