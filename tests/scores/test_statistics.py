import numpy as np
import pytest
import xarray as xr

from cubecast.errors import InputError, UsageError
from cubecast.scores import pool, scores_from, statistics

EVENTS = {"thresholds": (0.1, 1.0, 5.0), "fss_windows": {"3cells": 3, "7cells": 7}}


def test_sums_have_leads_thresholds_and_windows(rain_pair):
    sums = statistics(*rain_pair(), **EVENTS)
    assert dict(sums.sizes) == {"lead_time": 3, "threshold": 3, "window": 2}
    assert sums["hits"].dims == ("lead_time", "threshold")
    assert sums["fss_reference"].dims == ("lead_time", "threshold", "window")
    assert set(sums.coords) == {"lead_time", "threshold", "window"}


def test_chunks_pool_to_the_whole(rain_pair):
    forecast, observed = rain_pair(cases=7)
    ref = "forecast_reference_time"
    parts = [
        statistics(forecast.isel({ref: s}), observed.isel({ref: s}), **EVENTS)
        for s in (slice(0, 1), slice(1, 5), slice(5, 7))
    ]
    whole = statistics(forecast, observed, **EVENTS)
    xr.testing.assert_allclose(pool(parts), whole, rtol=1e-12)
    xr.testing.assert_equal(pool(parts)[["cases", "pixels", "hits"]], whole[["cases", "pixels", "hits"]])
    xr.testing.assert_allclose(scores_from(pool(reversed(parts))), scores_from(whole), rtol=1e-12)


def test_only_points_that_both_have_count(rain_pair):
    forecast, observed = rain_pair()
    forecast[1] = np.nan
    observed[2, 0] = np.inf
    sums = statistics(forecast, observed)
    both = np.isfinite(forecast.values) & np.isfinite(observed.values)
    assert sums["pixels"].values.tolist() == both.sum((0, 2, 3)).tolist()
    assert sums["cases"].values.tolist() == [3, 4, 4]


def test_weights_of_zero_take_points_out_and_a_common_factor_changes_nothing(rain_pair):
    forecast, observed = rain_pair()
    west = xr.DataArray(np.arange(24) < 10, dims="x").astype(float)
    cut = statistics(forecast[..., :10], observed[..., :10], **EVENTS)
    xr.testing.assert_allclose(statistics(forecast, observed, weights=west, **EVENTS), cut, rtol=1e-12)
    once, thrice = (scores_from(statistics(forecast, observed, weights=w, **EVENTS)) for w in (west, 3 * west))
    xr.testing.assert_allclose(once, thrice, rtol=1e-12)


def test_nothing_that_counts_gives_nan_not_a_number(rain_pair):
    forecast, observed = rain_pair()
    scores = scores_from(statistics(forecast, observed * np.nan, **EVENTS))
    assert (scores["pixels"] == 0).all()
    assert (scores["cases"] == 0).all()
    for name in set(scores.data_vars) - {"pixels", "cases"}:
        assert scores[name].isnull().all(), name


@pytest.mark.parametrize("space", [(), ("station",)])
def test_point_series(space):
    shape = (6, 2, 3)[: 2 + len(space)]
    rng = np.random.default_rng(0)
    dims = ("forecast_reference_time", "lead_time", *space)
    coords = {"lead_time": np.array([1, 2], "timedelta64[h]").astype("timedelta64[ns]")}
    forecast = xr.DataArray(rng.normal(size=shape), dims=dims, coords=coords)
    observed = xr.DataArray(rng.normal(size=shape), dims=dims)
    sums = statistics(forecast, observed, thresholds=(0.0,))
    axes = tuple(i for i in range(len(shape)) if i != 1)
    np.testing.assert_allclose(scores_from(sums)["mse"], ((forecast - observed) ** 2).values.mean(axes), rtol=1e-12)
    assert sums["cases"].values.tolist() == [6, 6]
    with pytest.raises(UsageError, match="FSS windows"):
        statistics(forecast, observed, thresholds=(0.0,), fss_windows={"3cells": 3})


def test_errors_of_an_ensemble_are_those_of_its_mean(rain_pair):
    forecast, observed = rain_pair()
    members = xr.concat([forecast, 3 * forecast, 0 * forecast + 1], "realization")
    mean = statistics(members.mean("realization", skipna=False), observed, **EVENTS)
    found = statistics(members, observed, **EVENTS)
    xr.testing.assert_allclose(found[list(mean.data_vars)], mean, rtol=1e-12)
    reordered = statistics(members.transpose("lead_time", "y", "x", "realization", ...), observed, **EVENTS)
    xr.testing.assert_allclose(reordered, found, rtol=1e-12)


def test_refusals(rain_pair):
    forecast, observed = rain_pair()
    with pytest.raises(InputError, match=r"observations: found .*allowed: the forecast's"):
        statistics(forecast, observed[..., 1:])
    with pytest.raises(InputError, match="no statistics to pool"):
        pool([])


def test_pool_refuses_other_thresholds_leads_and_units(rain_pair):
    forecast, observed = rain_pair()
    one = statistics(forecast, observed, thresholds=(1.0,))
    for other in (
        statistics(forecast, observed, thresholds=(2.0,)),
        statistics(forecast, observed),
        statistics(forecast[:, :2], observed[:, :2], thresholds=(1.0,)),
        one.assign_attrs(units="K"),
    ):
        with pytest.raises(InputError, match="cannot be pooled"):
            pool([one, other])
