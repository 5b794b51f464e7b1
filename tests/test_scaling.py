"""Scalings: what each is fitted on, what it gives, and what it refuses."""

import json

import dask.array
import numpy as np
import pytest
import xarray as xr

from cubecast import cube as cubes
from cubecast.errors import InputError, ModelMismatchError, UsageError
from cubecast.scaling import (
    DBR,
    Identity,
    LogRain,
    MonthlyAnomaly,
    Standardise,
    choose_scaling,
    scaling_from_json,
)


def make_cube(values, *, units="mm h-1", step="5min", dims=("time", "y", "x"), **attrs):
    """A cube of ``values`` with times and metric coordinates."""
    values = np.asarray(values)
    first = np.datetime64("2000-01-01", "ns")
    months = np.datetime64("2000-01") + np.arange(len(values))
    time = months.astype("M8[ns]") if step == "month" else first + np.arange(len(values)) * np.timedelta64(5, "m")
    coords = {d: np.arange(n) * 1000.0 for d, n in zip(dims[1:], values.shape[1:], strict=True)}
    return xr.DataArray(values, dims=dims, coords={"time": time, **coords}, attrs={"units": units, **attrs}, name="v")


def rain(seed=0, frames=6):
    rng = np.random.default_rng(seed)
    values = np.exp(rng.normal(0, 1.5, (frames, 7, 9))) * (rng.random((frames, 7, 9)) < 0.4)
    return make_cube(values.astype(np.float32), standard_name="rainfall_rate")


def temperature(years=3, seed=0):
    """Monthly temperatures: a known climatology by pixel plus noise of standard deviation 0.5."""
    rng = np.random.default_rng(seed)
    season = 290 + 8 * np.cos(2 * np.pi * np.arange(12) / 12)[:, None, None] + rng.normal(0, 3, (1, 4, 5))
    values = np.tile(season, (years, 1, 1)) + rng.normal(0, 0.5, (12 * years, 4, 5))
    return make_cube(values, units="K", step="month")


def test_log_is_its_equation_and_dry_is_zero():
    scaling = LogRain(units="mm h-1", scale=2.0)
    encoded = scaling.encode(make_cube([0.0, 0.1, 10.0, np.nan, -0.5], dims=("time",)))
    np.testing.assert_allclose(encoded, [0, np.log(2) / 2, np.log(101) / 2, np.nan, 0], rtol=1e-6)
    assert encoded.dtype == np.float32
    assert encoded.attrs["units"] == "1"
    assert (scaling.decode(make_cube([-3.0, -1e-9], dims=("time",))) == 0).all()


def test_traces_of_rain_are_none_in_forecasts():
    scaling = LogRain(units="mm h-1", scale=2.0)
    rates = np.array([0, 1e-6, 0.0049, 0.005, 0.01, np.nan], np.float32)
    found = scaling.decode(scaling.encode(rain()[:2, :3, 0].copy(data=rates.reshape(2, 3))))
    np.testing.assert_allclose(found.values.ravel(), [0, 0, 0, 0.005, 0.01, np.nan], rtol=1e-5)
    assert found.dtype == np.float32


def test_dbr_is_its_equation_and_dry_is_zero():
    scaling = DBR(units="mm h-1", scale=4.0)
    encoded = scaling.encode(make_cube([0.0, 0.05, 0.1, 10.0, np.nan], dims=("time",)))
    np.testing.assert_allclose(encoded, [0, 0, 5 / 4, 25 / 4, np.nan], rtol=1e-5)
    decoded = scaling.decode(make_cube([0.0, 1.2, 1.25, 6.25, np.nan], dims=("time",)))
    np.testing.assert_allclose(decoded, [0, 0, 0.1, 10, np.nan], rtol=1e-5)
    packed = np.float32(10) * np.float32(0.01) * np.float32(1 - 1e-7)
    assert scaling.decode(scaling.encode(make_cube([packed], dims=("time",)))).item() == pytest.approx(0.1)


@pytest.mark.parametrize("scaling", [LogRain(), DBR()])
def test_wet_values_have_unit_size(scaling):
    cube = rain()
    encoded = scaling.fit([cube]).encode(cube).values
    assert np.sqrt(np.mean(encoded[cube.values >= 0.1] ** 2)) == pytest.approx(1, rel=1e-5)


def test_standardise_has_mean_zero_and_deviation_one_over_all_parts():
    cube = rain()
    whole = Standardise().fit([cube])
    assert whole.mean == pytest.approx(cube.values.mean(dtype=float), rel=1e-9)
    assert whole.std == pytest.approx(cube.values.std(dtype=float), rel=1e-9)
    parts = Standardise().fit([cube[:2], cube[2:]])
    assert (parts.mean, parts.std) == pytest.approx((whole.mean, whole.std), rel=1e-12)


def test_a_constant_variable_is_standardised_by_its_mean_alone():
    fitted = Standardise().fit([make_cube(np.full((3, 4), 0.1, np.float32), dims=("time", "station"))])
    assert (fitted.mean, fitted.std) == pytest.approx((0.1, 1.0))


def test_identity_keeps_values():
    cube = make_cube(np.random.default_rng(0).random((3, 4, 5)), units="1")
    fitted = Identity().fit([cube])
    np.testing.assert_array_equal(fitted.decode(fitted.encode(cube)), cube.values.astype(np.float32))


def test_monthly_anomaly_is_its_equation():
    cube = temperature()
    fitted = MonthlyAnomaly().fit([cube])
    climatology = cube.groupby("time.month").mean()
    np.testing.assert_allclose(fitted.climatology, climatology.values, rtol=1e-12)
    anomaly = (cube.groupby("time.month") - climatology).values
    assert fitted.std == pytest.approx(anomaly.std(), rel=1e-9)
    np.testing.assert_allclose(fitted.encode(cube), anomaly / anomaly.std(), atol=1e-5)


def test_harmonics_are_the_least_squares_fit_to_the_monthly_means():
    cube = temperature()
    fitted = MonthlyAnomaly(harmonics=2).fit([cube])
    angle = 2 * np.pi * np.arange(12)[:, None] * np.array([1, 2]) / 12
    design = np.hstack([np.ones((12, 1)), np.cos(angle), np.sin(angle)])
    means = cube.groupby("time.month").mean().values.reshape(12, -1)
    smooth = (design @ np.linalg.lstsq(design, means, rcond=None)[0]).reshape(12, 4, 5)
    np.testing.assert_allclose(fitted.climatology, smooth, rtol=1e-12)
    anomaly = cube.values - np.tile(smooth, (3, 1, 1))
    assert fitted.std == pytest.approx(np.sqrt((anomaly**2).mean()), rel=1e-9)
    np.testing.assert_allclose(fitted.encode(cube), anomaly / fitted.std, atol=1e-4)
    again = scaling_from_json(json.loads(json.dumps(fitted.to_json())), fitted.arrays())
    np.testing.assert_array_equal(again.decode(again.encode(cube)), fitted.decode(fitted.encode(cube)))


def test_harmonics_come_closer_to_the_truth_than_the_means_of_few_years():
    cube = temperature()
    truth = temperature(years=200).groupby("time.month").mean().values
    error = {h: np.square(MonthlyAnomaly(harmonics=h).fit([cube]).climatology - truth).mean() for h in (1, 3, None)}
    # Noise is shared out over 3, 7 or 12 numbers; the season of this cube is one wave.
    assert error[1] < error[3] < error[None]
    assert error[3] / error[None] == pytest.approx(7 / 12, rel=0.2)


def test_harmonics_leave_a_pixel_alone_that_lacks_a_month():
    cube = temperature()
    cube[cube.time.dt.month.values == 5, 1, 1] = np.nan
    smooth, plain = MonthlyAnomaly(harmonics=1).fit([cube]).climatology, MonthlyAnomaly().fit([cube]).climatology
    np.testing.assert_array_equal(smooth[:, 1, 1], plain[:, 1, 1])
    assert np.abs(smooth - plain)[:, 0, 0].max() > 0.01


def test_monthly_anomaly_follows_the_time_of_each_value():
    fitted = MonthlyAnomaly().fit([temperature()])
    valid = np.array(["2016-02-14", "2016-03-01", "2017-02-28"], "M8[ns]")
    zero = xr.DataArray(np.zeros((3, 4, 5), np.float32), dims=("valid", "y", "x"), coords={"valid": valid})
    np.testing.assert_allclose(fitted.decode(zero), fitted.climatology[[1, 2, 1]], rtol=1e-6)
    with pytest.raises(UsageError, match="needs the time of every value"):
        fitted.decode(zero.drop_vars("valid"))


def test_monthly_anomaly_finds_crops_by_label_and_refuses_other_grids():
    cube = temperature()
    fitted = MonthlyAnomaly().fit([cube])
    whole, box = fitted.encode(cube), {"y": slice(1, 3), "x": slice(4, 0, -2)}
    np.testing.assert_array_equal(fitted.encode(cube.isel(box)), whole.isel(box))
    rounded = cube.assign_coords(y=cube.y.astype(np.float32) + 0.5)
    np.testing.assert_array_equal(fitted.encode(rounded), whole)
    np.testing.assert_array_equal(fitted.encode(cube.drop_vars(["y", "x"])), whole)
    with pytest.raises(ModelMismatchError, match=r"coordinate 'y': found 500\.0"):
        fitted.encode(cube.assign_coords(y=cube.y + 500))
    with pytest.raises(ModelMismatchError, match=r"grid: found shape \(2, 3\)"):
        fitted.encode(cube.isel(y=slice(2), x=slice(3)).drop_vars(["y", "x"]))
    with pytest.raises(ModelMismatchError, match="dims"):
        fitted.encode(cube[:, 0, 0])


def test_monthly_anomaly_of_series():
    stations = temperature()[:, 0].rename(x="station").assign_coords(station=["a", "b", "c", "d", "e"])
    fitted = MonthlyAnomaly().fit([stations])
    again = scaling_from_json(json.loads(json.dumps(fitted.to_json())), fitted.arrays())
    chosen = stations.sel(station=["d", "b"])
    np.testing.assert_allclose(again.decode(again.encode(chosen)), chosen, rtol=1e-6)
    single = temperature()[:, 0, 0]
    fitted = MonthlyAnomaly().fit([single])
    np.testing.assert_allclose(fitted.decode(fitted.encode(single)), single, rtol=1e-6)


def test_a_pixel_that_is_never_observed_stays_missing():
    cube = temperature()
    cube[:, 2, 3] = np.nan
    cube[cube.time.dt.month.values == 5, 1, 1] = np.nan
    fitted = MonthlyAnomaly().fit([cube])
    encoded = fitted.encode(temperature(seed=1))
    assert np.isnan(encoded[:, 2, 3]).all()
    np.testing.assert_array_equal(np.isnan(encoded[:, 1, 1]), cube.time.dt.month == 5)
    assert np.isfinite(encoded[:, 0, 0]).all()


def test_monthly_anomaly_refuses_what_has_no_climatology():
    cube = temperature()
    with pytest.raises(InputError, match=r"calendar month 3, 4 of the training part.*choose scaling standardise"):
        MonthlyAnomaly().fit([cube[~cube.time.dt.month.isin([3, 4])]])
    with pytest.raises(InputError, match="two or more years"):
        MonthlyAnomaly().fit([cube[:12]])
    with pytest.raises(InputError, match="different grids"):
        MonthlyAnomaly().fit([cube, cube.isel(x=slice(2))])


@pytest.mark.parametrize(
    ("kind", "message"),
    [("log", "no rain to fit"), ("dbr", "no rain to fit"), ("standardise", "no observed value")],
)
def test_a_fit_without_values_is_refused(kind, message):
    empty = make_cube(np.full((3, 4, 5), np.nan))
    with pytest.raises(InputError, match=message):
        choose_scaling(kind, empty).fit([empty])


def test_infinite_values_are_refused():
    cube = rain()
    cube[0, 0, 0] = np.inf
    for kind in ("log", "standardise"):
        with pytest.raises(InputError, match=r"found infinity.*cube\.where"):
            choose_scaling(kind, cube).fit([cube])


def test_rain_scalings_want_mm_h():
    for scaling in (LogRain(), DBR()):
        with pytest.raises(InputError, match=r"found 'mm d-1'; allowed: 'mm h-1'; convert with cubecast\.convert"):
            scaling.fit([rain().assign_attrs(units="mm/day")])
    with pytest.raises(InputError, match=r"found none.*set cube\.attrs"):
        LogRain().fit([rain().drop_attrs()])
    with pytest.raises(InputError, match="units of 'v'"):
        Standardise().fit([rain(), rain().assign_attrs(units="dBZ")])
    with pytest.raises(UsageError, match="no cubes"):
        Standardise().fit([])


def test_encoding_checks_the_units_and_the_fit():
    cube = rain()
    fitted = LogRain().fit([cube])
    assert fitted.encode(cube.assign_attrs(units="mm/hr")).shape == cube.shape
    assert fitted.encode(cube.drop_attrs()).shape == cube.shape
    with pytest.raises(ModelMismatchError, match=r"found 'dBZ'; allowed: 'mm h-1'"):
        fitted.encode(cube.assign_attrs(units="dBZ"))
    for scaling in (LogRain(), MonthlyAnomaly()):
        with pytest.raises(UsageError, match="not fitted"):
            scaling.encode(cube)
        with pytest.raises(UsageError, match="not fitted"):
            scaling.decode(cube)


@pytest.mark.parametrize(
    ("cube", "kind"),
    [
        (rain(), "log"),
        (rain().drop_attrs().assign_attrs(units="mm/h"), "log"),
        (rain().assign_attrs(units="m s-1", standard_name="lwe_precipitation_rate"), "log"),
        (rain()[:, 0, 0], "log"),
        (rain()[:, 0, 0].assign_attrs(units="mm d-1"), "standardise"),
        (rain().assign_attrs(units="m s-1", standard_name="wind_speed"), "standardise"),
        (rain().assign_attrs(units="dBZ"), "standardise"),
        (temperature(), "monthly_anomaly"),
        (rain().assign_attrs(units="K", standard_name="air_temperature"), "standardise"),
    ],
)
def test_auto_looks_at_the_metadata(cube, kind):
    assert choose_scaling("auto", cube).kind == kind


def test_every_kind_of_the_configuration_has_a_scaling():
    for kind in ("log", "dbr", "standardise", "monthly_anomaly", "identity"):
        assert choose_scaling(kind, rain()).kind == kind
    with pytest.raises(UsageError, match="scaling: found log10"):
        choose_scaling("log10", rain())


@pytest.mark.parametrize("bad", [{"kind": "sqrt"}, {"kind": "log", "colour": 1}, {}])
def test_a_broken_saved_scaling_is_refused(bad):
    with pytest.raises(InputError, match="a saved scaling"):
        scaling_from_json(bad, {})


@pytest.mark.parametrize("kind", ["log", "dbr", "standardise", "monthly_anomaly"])
def test_lazy_cubes_give_the_same_and_stay_lazy(kind, monkeypatch):
    cube = temperature() if kind == "monthly_anomaly" else rain(frames=36)
    lazy = cube.chunk({"time": 5, "x": 2})
    eager = choose_scaling(kind, cube).fit([cube])
    monkeypatch.setattr(cubes, "BLOCK_BYTES", 5 * cube[0].nbytes)
    fitted = choose_scaling(kind, lazy).fit([lazy])
    for name, value in eager.to_json().items():
        assert fitted.to_json()[name] == (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value)
    for name, value in eager.arrays().items():
        np.testing.assert_allclose(fitted.arrays()[name], value, rtol=1e-9)
    encoded = fitted.encode(lazy)
    decoded = fitted.decode(encoded)
    assert isinstance(encoded.data, dask.array.Array)
    assert isinstance(decoded.data, dask.array.Array)
    assert decoded.dtype == decoded.compute().dtype == np.float32
    xr.testing.assert_allclose(encoded.compute(), fitted.encode(cube), rtol=1e-6)
    xr.testing.assert_allclose(decoded.compute(), cube.where(cube >= 0.1, 0) if kind == "dbr" else cube, rtol=1e-5)


def test_a_fit_reads_runs_of_whole_chunks_once_each(monkeypatch):
    sizes = []
    lazy = dask.array.zeros((40, 8, 8), chunks=(1, 8, 8), dtype="f4").map_blocks(
        lambda block: sizes.append(block.shape[0]) or block + 1, dtype="f4", meta=np.empty((0, 0, 0), "f4")
    )
    monkeypatch.setattr(cubes, "BLOCK_BYTES", 4 * 8 * 8 * 4)
    pieces = [
        frames.stop - frames.start for frames, _ in cubes.iter_blocks(make_cube(np.zeros((40, 8, 8))).copy(data=lazy))
    ]
    assert pieces == [4] * 10
    assert sizes == [1] * 40


def test_a_fit_reports_its_progress():
    seen = []

    def progress(items, description, total):
        for item in items:
            seen.append(description)
            yield item

    Standardise().fit([rain(), rain(1)], progress=progress)
    assert seen == ["fitting the scaling"] * 2


def test_real_sst_anomalies(real_data):
    sst = xr.open_dataset(real_data / "sst/ersstv5_201001_202008.nc", chunks={}).sst
    fitted = choose_scaling("auto", sst).fit([sst[:84]])
    later = sst[84:].load()
    decoded = fitted.decode(fitted.encode(later))
    assert fitted.kind == "monthly_anomaly"
    xr.testing.assert_allclose(decoded, later.astype(np.float32), atol=1e-5)
    np.testing.assert_array_equal(np.isnan(decoded), np.isnan(later))
