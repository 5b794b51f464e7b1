import numpy as np
import pytest
import xarray as xr

from cubecast.scores import scores_from, statistics


def _pair(forecast, observed):
    dims = ("forecast_reference_time", "lead_time", "station")
    lead = np.array([5], "timedelta64[m]").astype("timedelta64[ns]")
    made = (np.asarray(v, float).reshape(1, 1, -1) for v in (forecast, observed))
    return tuple(xr.DataArray(v, dims=dims, coords={"lead_time": lead}) for v in made)


def test_worked_example():
    # errors 1, -2, 1, 3; means 3.75 and 3; deviations (-1.75 -1.75 .25 3.25) and (-2 1 0 1)
    scores = scores_from(statistics(*_pair([2, 2, 4, 7], [1, 4, 3, 4])))
    assert scores["mse"].item() == pytest.approx(15 / 4)
    assert scores["rmse"].item() == pytest.approx(np.sqrt(15 / 4))
    assert scores["mae"].item() == pytest.approx(7 / 4)
    assert scores["bias"].item() == pytest.approx(3 / 4)
    assert scores["corr"].item() == pytest.approx(5 / np.sqrt(16.75 * 6))


def test_weights_work_like_repeated_points():
    forecast, observed = [2, 2, 4, 7], [1, 4, 3, 4]
    weights = xr.DataArray([1.0, 3.0, 2.0, 1.0], dims="station")
    weighted = scores_from(statistics(*_pair(forecast, observed), weights=weights))
    again = np.repeat([0, 1, 2, 3], [1, 3, 2, 1])
    repeated = scores_from(statistics(*_pair(np.array(forecast)[again], np.array(observed)[again])))
    for name in ("mse", "rmse", "mae", "bias", "corr"):
        assert weighted[name].item() == pytest.approx(repeated[name].item(), rel=1e-12), name


def test_flat_fields_have_no_correlation():
    assert np.isnan(scores_from(statistics(*_pair([0.1] * 50, np.arange(50))))["corr"].item())
    assert np.isnan(scores_from(statistics(*_pair([0.0] * 3, [0.0] * 3)))["corr"].item())


def test_correlation_survives_a_large_mean():
    x = np.random.default_rng(0).normal(size=2000)
    y = x + np.random.default_rng(1).normal(size=2000)
    corr = scores_from(statistics(*_pair(100 * x + 101325.0, 100 * y + 101325.0)))["corr"].item()
    assert corr == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-6)
