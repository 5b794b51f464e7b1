import numpy as np
import pytest
import xarray as xr

from cubecast import cube as cube_module
from cubecast.climate import PRIOR, fit_climate
from cubecast.errors import InputError


def _series(values, *, missing=()):
    time = np.datetime64("2020-01-01", "ns") + np.arange(len(values)) * np.timedelta64(1, "h")
    keep = np.setdiff1d(np.arange(len(values)), missing)
    return xr.DataArray(
        np.asarray(values)[keep], dims=("time", "station"), coords={"time": time[keep]}, attrs={"units": "K"}, name="t"
    )


def _regression(values, lead):
    """Sums over pairs of finite anomalies, place by place, and the shrunk coefficient."""
    anomaly = values - np.nanmean(values, axis=0)
    cross, square = np.zeros(values.shape[1]), np.zeros(values.shape[1])
    for t in range(len(values) - lead):
        for s in range(values.shape[1]):
            if np.isfinite(anomaly[t, s]) and np.isfinite(anomaly[t + lead, s]):
                cross[s] += anomaly[t, s] * anomaly[t + lead, s]
                square[s] += anomaly[t, s] ** 2
    prior = PRIOR * square.mean()
    return (cross + cross.sum() / square.sum() * prior) / (square + prior)


def test_damping_is_the_regression_over_pairs_that_are_there():
    values = np.random.default_rng(0).normal(size=(40, 3)).cumsum(axis=0)
    values[5, 1] = values[20:23, 2] = np.nan
    full = values.copy()
    full[[7, 8, 30]] = np.nan  # a frame that is missing is a frame of missing values
    climate = fit_climate(_series(values, missing=[7, 8, 30]), leads=4)
    np.testing.assert_allclose(climate.mean["t"][0], np.nanmean(full, axis=0), rtol=1e-12)
    for lead in range(1, 5):
        np.testing.assert_allclose(climate.damping["t"][lead - 1], _regression(full, lead), rtol=1e-10)


@pytest.mark.parametrize("size", [1, 7, 40])
def test_reading_in_blocks_changes_nothing(monkeypatch, size):
    cube = _series(np.random.default_rng(1).normal(size=(40, 3)).cumsum(axis=0), missing=[11])
    whole = fit_climate(cube, leads=5)
    monkeypatch.setattr(cube_module, "BLOCK_BYTES", size * 3 * 8)
    pieces = fit_climate(cube.chunk(time=2) if size == 7 else cube, leads=5)
    np.testing.assert_allclose(pieces.mean["t"], whole.mean["t"], rtol=1e-12)
    np.testing.assert_allclose(pieces.damping["t"], whole.damping["t"], rtol=1e-10)


def test_a_place_that_never_varies_borrows_and_a_constant_cube_has_no_memory():
    values = np.random.default_rng(2).normal(size=(50, 3)).cumsum(axis=0)
    values[:, 1] = 4.0
    damping = fit_climate(_series(values), leads=1).damping["t"][0]
    anomaly = values - values.mean(axis=0)
    pooled = (anomaly[1:] * anomaly[:-1]).sum() / (anomaly[:-1] ** 2).sum()
    assert damping[1] == pytest.approx(pooled)
    assert (fit_climate(_series(np.full((10, 2), 3.0)), leads=2).damping["t"] == 0).all()


def test_climatology_of_a_month_that_was_never_seen():
    time = np.arange("2000-01", "2000-09", dtype="datetime64[M]").astype("datetime64[ns]")
    cube = xr.DataArray(np.arange(8.0), dims="time", coords={"time": time}, name="t", attrs={"units": "K"})
    climate = fit_climate(cube)
    assert climate.at("t", time[2]).item() == 2.0
    with pytest.raises(InputError, match=r"no value in calendar month 12; .*use a longer training part"):
        climate.at("t", np.array(["2001-12-01"], "datetime64[ns]"))
