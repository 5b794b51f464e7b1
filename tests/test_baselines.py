import numpy as np
import pytest
import xarray as xr

from cubecast.baselines import anomaly_persistence, climatology, damped_persistence, persistence
from cubecast.climate import fit_climate
from cubecast.errors import InputError, UsageError
from cubecast.scores import to_table, verify_forecasts

FITTED = (climatology, anomaly_persistence, damped_persistence)


def _monthly(years=8, places=(3, 4), *, memory=0.6, seed=0):
    """Seasonal cycle plus an AR(1) anomaly, on a lat/lon grid."""
    rng = np.random.default_rng(seed)
    time = np.datetime64("2000-01", "M") + np.arange(12 * years)
    anomaly = np.zeros((len(time), *places))
    for t in range(1, len(time)):
        anomaly[t] = memory * anomaly[t - 1] + rng.normal(0, 0.3, places)
    cycle = 5 * np.cos(2 * np.pi * (np.arange(len(time)) % 12) / 12)
    lat, lon = 10.0 * np.arange(places[0]), 10.0 * np.arange(places[1])
    return xr.DataArray(
        15 + cycle[:, None, None] + anomaly,
        dims=("time", "lat", "lon"),
        coords={
            "time": time.astype("datetime64[ns]"),
            "lat": ("lat", lat, {"units": "degrees_north"}),
            "lon": ("lon", lon, {"units": "degrees_east"}),
        },
        name="sst",
        attrs={"units": "degC", "standard_name": "sea_surface_temperature"},
    )


def test_persistence_is_the_last_frame_and_masked_pixels_stay_masked(rain):
    cube = rain(12).copy(deep=True)
    cube[5, :3] = np.nan
    reference = cube["time"].values[[5, 8]]
    forecast = persistence(cube, reference=reference, horizon=3)
    for lead in range(3):
        np.testing.assert_array_equal(forecast["rainfall_rate"].isel(lead_time=lead), cube.values[[5, 8]])
    assert np.isnan(forecast["rainfall_rate"].values[0, :, :3]).all()
    assert forecast["rainfall_rate"].dims == ("forecast_reference_time", "lead_time", "y", "x")
    assert forecast["rainfall_rate"].dtype == np.float32
    assert forecast["rainfall_rate"].attrs["units"] == "mm h-1"
    np.testing.assert_array_equal(forecast["valid_time"].isel(lead_time=1), reference + np.timedelta64(10, "m"))
    assert forecast.attrs["source"] == "cubecast baseline persistence: the last observed frame"


def test_one_reference_time_may_be_text(rain):
    forecast = persistence(rain(12), reference="2020-06-01T00:25", horizon=1)
    assert forecast["forecast_reference_time"].values.tolist() == rain(12)["time"].values[[5]].tolist()


def test_climatology_is_the_mean_of_the_calendar_month():
    cube = _monthly()
    training = cube.isel(time=slice(0, 72))
    forecast = climatology(cube, reference=cube["time"].values[[75, 80]], horizon=3, training=training)
    months = training.groupby("time.month").mean()
    for case, month in ((0, [5, 6, 7]), (1, [10, 11, 12])):
        np.testing.assert_allclose(forecast["sst"][case], months.sel(month=month), rtol=1e-6)
    assert "mean of each calendar month of the training part" in forecast.attrs["source"]


def test_climatology_of_other_steps_is_the_time_mean(rain):
    cube = rain(20).copy(deep=True)
    cube[:, 0, 0] = np.nan
    cube[2, 5, 5] = np.nan
    forecast = climatology(cube, reference=cube["time"].values[15], horizon=2, training=cube[:10])
    expected = np.broadcast_to(cube[:10].mean("time").values, (1, 2, 24, 28))
    np.testing.assert_allclose(forecast["rainfall_rate"], expected, rtol=1e-6)
    assert "mean of all frames" in forecast.attrs["source"]


def test_anomaly_persistence_adds_the_last_anomaly_to_the_climatology():
    cube = _monthly().copy(deep=True)
    cube[80, 0, 0] = np.nan
    training = cube.isel(time=slice(0, 72))
    args = {"reference": cube["time"].values[[80]], "horizon": 4}
    forecast = anomaly_persistence(cube, **args, training=training)["sst"][0]
    means = training.groupby("time.month").mean()
    anomaly = cube[80].drop_vars("time") - means.sel(month=9)
    for lead, month in enumerate([10, 11, 12, 1]):
        np.testing.assert_allclose(forecast[lead], means.sel(month=month) + anomaly, rtol=1e-6)
    assert np.isnan(forecast[:, 0, 0]).all()
    assert np.isfinite(forecast[:, 0, 1:]).all()


def test_damped_persistence_lies_between_climatology_and_anomaly_persistence():
    cube = _monthly()
    training = cube.isel(time=slice(0, 72))
    args = {"reference": cube["time"].values[[80]], "horizon": 4, "training": training}
    low, high = climatology(cube, **args)["sst"], anomaly_persistence(cube, **args)["sst"]
    damped = damped_persistence(cube, **args)["sst"]
    share = fit_climate(training, leads=4).damping["sst"]
    np.testing.assert_allclose(damped, low + share * (high - low), rtol=1e-6)
    assert share[0].mean() == pytest.approx(0.6, abs=0.12)
    assert share[3].mean() < share[0].mean()


def test_damped_persistence_beats_both_where_anomalies_fade():
    cube = _monthly(years=30, places=(6, 6), memory=0.8)
    training = cube.isel(time=slice(0, 240))
    climate = fit_climate(training, leads=6)
    args = {"reference": cube["time"].values[240:-6], "horizon": 6, "training": climate}
    table = to_table(verify_forecasts({f.__name__: f(cube, **args) for f in FITTED}, cube))
    mse = table.pivot_table(index="lead_step", columns="system", values="mse")
    assert (mse["damped_persistence"] < mse["climatology"]).all()
    assert (mse["damped_persistence"] < mse["anomaly_persistence"]).all()


def test_channels_and_series():
    cube = _monthly()
    both = xr.concat([cube, cube * 2 + 1], "channel").transpose("time", "channel", "lat", "lon")
    both = both.assign_coords(channel=["sst", "other"], channel_units=("channel", ["degC", "K"]))
    args = {"reference": cube["time"].values[[80, 85]], "horizon": 2}
    for make in FITTED:
        forecast = make(both, **args, training=both[:72])
        alone = make(cube, **args, training=cube[:72])["sst"]
        np.testing.assert_allclose(forecast["sst"], alone, rtol=1e-6)
        np.testing.assert_allclose(forecast["other"], alone * 2 + 1, rtol=1e-5)
        assert forecast["other"].attrs["units"] == "K"
    stations = cube.stack(station=("lat", "lon")).reset_index("station").drop_vars(["lat", "lon"])
    stations = stations.assign_attrs(cube.attrs)
    single = cube[:, 1, 2].drop_vars(["lat", "lon"])
    for make in FITTED:
        field = make(cube, **args, training=cube[:72])["sst"]
        series = make(stations, **args, training=stations[:72])["sst"]
        np.testing.assert_allclose(series.values.reshape(field.shape), field, rtol=1e-6)
        one = make(single, **args, training=single[:72])["sst"]
        assert one.dims == ("forecast_reference_time", "lead_time")
        if make is not damped_persistence:  # whose coefficient is shared between pixels
            np.testing.assert_allclose(one, field[..., 1, 2], rtol=1e-6)


def test_depth_is_a_sequence_too():
    depth = 2800 + 0.5 * np.arange(60)
    cube = xr.DataArray(np.sin(depth), dims="depth", coords={"depth": depth}, name="gr", attrs={"units": "API"})
    forecast = anomaly_persistence(cube, reference=2820.0, horizon=3, training=cube[:30])
    assert forecast["gr"].dims == ("forecast_reference_depth", "lead_depth")
    np.testing.assert_allclose(forecast["gr"], np.sin(2820.0), rtol=1e-6)


@pytest.mark.parametrize("make", [persistence, *FITTED])
def test_a_reference_time_outside_the_cube_is_refused_with_the_range(rain, make):
    cube = rain(12, missing=(4,))
    extra = {} if make is persistence else {"training": cube[:8]}
    for time in ("2020-06-01T00:20", "2020-06-02", "2020-06-01T00:07"):
        with pytest.raises(
            InputError, match=r"is not in the cube: found 11 frames from 2020-06-01T00:00.* to .*T00:55"
        ):
            make(cube, reference=np.datetime64(time), horizon=2, **extra)
    with pytest.raises(UsageError, match="reference time: found 'noon'"):
        make(cube, reference="noon", horizon=2, **extra)
    with pytest.raises(UsageError, match="horizon: found 0"):
        make(cube, reference=cube["time"].values[3], horizon=0, **extra)


def test_a_training_part_that_does_not_fit_is_refused():
    cube = _monthly()
    args = {"reference": cube["time"].values[80], "horizon": 2}
    with pytest.raises(InputError, match="another grid"):
        climatology(cube, **args, training=cube[:72, 1:])
    with pytest.raises(InputError, match="another grid"):
        climatology(cube, **args, training=cube[:72].assign_coords(lat=cube["lat"] + 1))
    with pytest.raises(InputError, match="'K'"):
        climatology(cube, **args, training=cube[:72].assign_attrs(units="K"))
    with pytest.raises(InputError, match="no value in calendar month 10"):
        climatology(cube, **args, training=cube[:9])
    with pytest.raises(InputError, match="another step"):
        climatology(cube, **args, training=cube[:12].assign_coords(time=cube["time"].values[0] + np.arange(12)))
    with pytest.raises(InputError, match="no two frames 2 steps apart"):
        damped_persistence(cube, **args, training=cube[:2])
    with pytest.raises(UsageError, match=r"fewer than 2 leads; fit_climate\(..., leads=2\)"):
        damped_persistence(cube, **args, training=fit_climate(cube[:72], leads=1))


def test_sst_baselines_have_the_published_errors(real_data):
    """RMSE over ice-free ocean 60S-60N, 2017-01 to 2020-08, trained to 2016 (the project's own acceptance figures)."""
    with xr.open_dataset(real_data / "sst" / "ersstv5_201001_202008.nc") as dataset:
        cube = dataset["sst"].load()
    for dim, unit in (("lat", "degrees_north"), ("lon", "degrees_east")):
        cube[dim].attrs["units"] = unit
    climate = fit_climate(cube.sel(time=slice(None, "2016-12")), leads=3)
    region = (cube.min("time") > -1.79) & (np.abs(cube["lat"]) <= 60)
    reference = cube.sel(time=slice("2016-10", "2020-07"))["time"].values
    args = {"reference": reference, "horizon": 3, "training": climate}
    sums = verify_forecasts(
        {f.__name__: f(cube, **args) for f in FITTED}, cube.sel(time=slice("2017-01", None)), region=region
    )
    table = to_table(sums)
    assert set(table["cases"]) == {44}
    rmse = table.groupby("system")["rmse"].apply(list)
    assert rmse["climatology"] == pytest.approx([0.530] * 3, abs=0.003)
    assert rmse["anomaly_persistence"] == pytest.approx([0.346, 0.475, 0.544], abs=0.003)
    assert rmse["damped_persistence"] == pytest.approx([0.326, 0.424, 0.468], abs=0.003)
