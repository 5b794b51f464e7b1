"""Our scores beside those of pysteps on the same data, and our ensemble files in its importer."""

import warnings

import numpy as np
import pyproj
import pytest
import xarray as xr

from cubecast.cube import cube_step
from cubecast.product import build_forecast
from cubecast.scores import over_cases, pool, scores_from, statistics, verify_forecasts
from cubecast.write import name_for_pysteps, write_forecast

REASON = "pysteps is not installed: pip install 'cubecast[pysteps]'"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pysteps = pytest.importorskip("pysteps", reason=REASON)
verification = pysteps.verification

DIMS = ("forecast_reference_time", "realization", "lead_time", "y", "x")
THRESHOLD = 1.0
MEMBERS = 8  # a power of two: shares of members are exact


@pytest.fixture(scope="module")
def ensemble():
    """Eight members and their observation, three cases with missing points; no two values are the same."""
    rng = np.random.default_rng(4)
    truth = rng.gamma(0.6, 4.0, (3, 1, 24, 31))
    members = truth[:, None] * rng.gamma(2.0, 0.5, (3, MEMBERS, 1, 24, 31)) + rng.gamma(
        0.3, 1.0, (3, MEMBERS, 1, 24, 31)
    )
    truth[rng.random(truth.shape) < 0.1] = np.nan
    members[:, :, :, :4, :5] = np.nan
    coords = {"lead_time": np.array([5], "timedelta64[m]").astype("timedelta64[ns]")}
    f = xr.DataArray(members, dims=DIMS, coords=coords)
    return f, xr.DataArray(truth, dims=tuple(d for d in DIMS if d != "realization"), coords=coords)


@pytest.fixture(scope="module")
def ours(ensemble):
    """The same, scored by us one case at a time."""
    members, observed = ensemble
    parts = (statistics(members[[i]], observed[[i]], thresholds=[THRESHOLD]) for i in range(len(members)))
    return scores_from(pool(parts)).squeeze()


@pytest.fixture(scope="module")
def points(ensemble):
    """Members (member, point) and observations (point) where both are there."""
    members, observed = ensemble
    f, o = members.values.swapaxes(0, 1).reshape(MEMBERS, -1), observed.values.ravel()
    both = np.isfinite(f).all(axis=0) & np.isfinite(o)
    return f[:, both], o[both]


def test_errors_and_events_agree(ours, points):
    f, o = points
    theirs = verification.det_cat_fct(f.mean(axis=0), o, THRESHOLD, ["POD", "FAR", "CSI", "BIAS"])
    for mine, name in (("pod", "POD"), ("far", "FAR"), ("csi", "CSI"), ("frequency_bias", "BIAS")):
        assert ours[mine].item() == pytest.approx(theirs[name], rel=1e-12), name
    theirs = verification.det_cont_fct(f.mean(axis=0), o, ["MSE", "RMSE", "MAE", "ME", "corr_p"])
    for mine, name in (("mse", "MSE"), ("rmse", "RMSE"), ("mae", "MAE"), ("bias", "ME"), ("corr", "corr_p")):
        assert ours[mine].item() == pytest.approx(theirs[name], rel=1e-12), name


def test_crps_agrees(ours, points):
    assert ours["crps"].item() == pytest.approx(verification.CRPS(*points), rel=1e-12)


def test_crps_of_pysteps_leaves_something_out_where_the_observation_equals_a_member():
    """Why its CRPS of rain is too low: dry members of one that rains 1, over dry ground, cost (1/3)^2, not nothing."""
    members, dry = np.array([0.0, 0.0, 1.0]), np.zeros(1)
    coords = {"lead_time": np.array([5], "timedelta64[m]").astype("timedelta64[ns]")}
    f = xr.DataArray(members[None, :, None, None, None], dims=DIMS, coords=coords)
    o = xr.DataArray(dry[None, None, None], dims=("forecast_reference_time", "lead_time", "y", "x"), coords=coords)
    assert scores_from(statistics(f, o))["crps"].item() == pytest.approx(1 / 9)
    assert verification.CRPS(members[:, None], dry) == 0


def test_the_rank_histogram_agrees(ours, points):
    for name in ("rank_histogram", "rank_histogram_untied"):
        np.testing.assert_allclose(ours[name], verification.rankhist(*points), rtol=1e-12)


def test_reliability_and_roc_agree(ours, points):
    f, o = points
    said = (f >= THRESHOLD).mean(axis=0)
    probability, frequency = verification.reldiag(said, o, THRESHOLD, n_bins=MEMBERS + 1)
    np.testing.assert_allclose(ours["probability"], probability, rtol=1e-12)
    np.testing.assert_allclose(ours["reliability"], frequency, rtol=1e-12)
    alarms, hits, area = verification.ROC_curve(said, o, THRESHOLD, n_prob_thrs=MEMBERS + 1, compute_area=True)
    np.testing.assert_allclose(ours["false_alarm_rate"], alarms, rtol=1e-12)
    np.testing.assert_allclose(ours["hit_rate"], hits, rtol=1e-12)
    assert ours["roc_area"].item() == pytest.approx(area, rel=1e-12)


@pytest.mark.parametrize("cells", [1, 5, 9])
def test_fss_agrees_away_from_edges_and_missing_data(cells):
    """pysteps fills windows that reach over the edge with dry ground, so events keep a window's distance from it."""
    rng = np.random.default_rng(5)
    f, o = (np.pad(rng.gamma(0.4, 3.0, (4, 1, 12, 15)), [(0, 0), (0, 0), (8, 8), (8, 8)]) for _ in range(2))
    coords = {"lead_time": np.array([5], "timedelta64[m]").astype("timedelta64[ns]")}
    pair = [xr.DataArray(a, dims=("forecast_reference_time", "lead_time", "y", "x"), coords=coords) for a in (f, o)]
    ours = scores_from(statistics(*pair, thresholds=[THRESHOLD], fss_windows={"w": cells}))["fss"].item()
    theirs = verification.spatialscores.fss_init(THRESHOLD, cells)
    for i in range(len(f)):
        verification.spatialscores.fss_accum(theirs, f[i, 0], o[i, 0])
    assert ours == pytest.approx(verification.spatialscores.fss_compute(theirs), rel=1e-12)


def test_the_power_spectrum_agrees_for_waves_inside_a_band():
    """pysteps averages over rings one wave wide, we over third octaves: waves that the window keeps in one of each."""
    n = 128
    y, x = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
    waves = {(0, 9): 3.0, (18, 0): 2.0, (20, 20): 1.0, (-33, 34): 0.5}
    field = sum(a * np.cos(2 * np.pi * (ky * y + kx * x) / n + a) for (ky, kx), a in waves.items())
    dims = ("forecast_reference_time", "lead_time", "y", "x")
    cube = xr.DataArray(field[None, None], dims=dims, coords={"lead_time": [np.timedelta64(300, "s").astype("m8[ns]")]})
    ours = over_cases(statistics(cube, cube, cell=1.0)).squeeze()
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n)
    window = np.outer(hann, hann)
    rings, k = pysteps.utils.spectral.rapsd(field * window, fft_method=np.fft, return_freq=True)
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(n) * n, np.fft.fftfreq(n) * n)).round().astype(int)
    theirs = rings * np.bincount(radius.ravel())[: len(rings)] / (window**2).sum()
    for ky, kx in waves:
        length = n / np.hypot(ky, kx)
        band = np.abs(np.log(ours["wavelength"].values / length)).argmin()
        near = np.abs(k * n - n / length) < 2
        power = (ours["power_observed"] * ours["waves"])[band].item()
        assert power == pytest.approx(theirs[near].sum(), rel=1e-10)
        assert power == pytest.approx(0.5 * waves[ky, kx] ** 2, rel=1e-10)


def test_a_written_ensemble_is_read_and_scored_by_pysteps(rain, tmp_path):
    cube = rain(8)
    rng = np.random.default_rng(1)
    values = rng.gamma(2.0, 0.5, (1, 5, 3, 24, 28)) * (cube.values[4] + 0.1)
    values[..., :2, :2] = np.nan
    forecast = build_forecast(
        {"rainfall_rate": values.astype(np.float32)}, cube, reference=cube.time.values[[4]], step=cube_step(cube)
    )
    stereographic = pyproj.CRS("+proj=stere +lat_0=90 +lat_ts=60 +lon_0=25 +R=6371288").to_cf()
    forecast = forecast.assign_coords(crs=((), 0, stereographic))
    forecast["rainfall_rate"].attrs["grid_mapping"] = "crs"
    path = tmp_path / "ensemble.nc"
    write_forecast(name_for_pysteps(forecast), path)
    found, about = pysteps.io.import_netcdf_pysteps(str(path), onerror="raise")
    np.testing.assert_array_equal(found, forecast["rainfall_rate"][0])
    assert (about["unit"], about["accutime"], about["xpixelsize"]) == ("mm/h", 5, 1000)
    assert about["projection"].startswith("+proj=stere +lon_0=25.0 +lat_0=90.0 +lat_ts=60.0")
    np.testing.assert_array_equal(about["leadtimes"], [5, 10, 15])
    assert [str(t) for t in about["timestamps"]] == [str(t)[:19].replace("T", " ") for t in cube.time.values[5:8]]
    truth = cube + 0.05  # no ties with members
    ours = scores_from(verify_forecasts({"ours": forecast}, truth)).squeeze()
    for lead in range(3):
        members, observed = found[:, lead].astype(float), truth.values[5 + lead].astype(float)
        assert verification.CRPS(members, observed) == pytest.approx(ours["crps"][lead].item(), rel=1e-12)
        np.testing.assert_allclose(verification.rankhist(members, observed), ours["rank_histogram"][lead], rtol=1e-12)
