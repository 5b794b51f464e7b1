import dask.array
import numpy as np
import pytest
import xarray as xr

from cubecast.baselines import persistence
from cubecast.errors import InputError, UsageError
from cubecast.product import build_forecast
from cubecast.scores import cases, common_mask, join_cases, pool, scores_from, statistics, verify_forecasts
from cubecast.steps import Step


def _noisy(cube, *, reference, horizon, seed=0):
    forecast = persistence(cube, reference=reference, horizon=horizon)
    noise = np.random.default_rng(seed).normal(0, 1, forecast[cube.name].shape)
    return forecast.assign({cube.name: (forecast[cube.name] + noise).clip(min=0).assign_attrs(cube.attrs)})


def _in_kelvin(forecast):
    return forecast.assign(rainfall_rate=forecast["rainfall_rate"].assign_attrs(units="K"))


@pytest.fixture
def setting(rain):
    cube = rain(20)
    reference = cube["time"].values[[5, 8, 11]]
    systems = {
        "model": _noisy(cube, reference=reference, horizon=4),
        "persistence": persistence(cube, reference=reference, horizon=4),
    }
    return cube, systems


def test_truth_is_the_frame_at_the_valid_time(setting):
    cube, systems = setting
    sums = verify_forecasts(systems, cube)
    frames = cube.values
    errors = np.stack([[frames[k + lead] - frames[k] for lead in (1, 2, 3, 4)] for k in (5, 8, 11)])
    np.testing.assert_allclose(
        scores_from(sums)["mse"].sel(system="persistence"), (errors**2).mean((0, 2, 3)), rtol=1e-6
    )
    assert sums["lead_step"].values.tolist() == [1, 2, 3, 4]
    assert sums["system"].values.tolist() == ["model", "persistence"]


def test_defaults_for_rain(setting):
    cube, systems = setting
    sums = verify_forecasts(systems, cube)
    assert sums["threshold"].values.tolist() == [0.1, 1.0, 5.0]
    assert sums["window"].values.tolist() == ["10km"]
    assert sums.attrs["units"] == "mm h-1"
    assert sums.attrs["area_weights"] == "False"


def test_other_units_have_no_default_thresholds(setting):
    cube, systems = setting
    as_kelvin = {n: _in_kelvin(f) for n, f in systems.items()}
    assert "hits" not in verify_forecasts(as_kelvin, cube.assign_attrs(units="K"))


def test_times_that_the_cube_lacks_do_not_count(setting, rain):
    cube, systems = setting
    gap = cube.drop_isel(time=[9, 12])  # lead 1 of the case at 8 and of 11, lead 4 of 5 and of 8
    sums = verify_forecasts(systems, gap)
    assert sums["cases"].sel(system="model").values.tolist() == [1, 3, 3, 1]
    alone = {n: f.isel(forecast_reference_time=[0]) for n, f in systems.items()}
    np.testing.assert_array_equal(
        verify_forecasts(systems, gap)["squared_error"].isel(lead_time=0),
        verify_forecasts(alone, cube)["squared_error"].isel(lead_time=0),
    )
    later = cube.assign_coords(time=cube["time"] + np.timedelta64(1, "D"))
    assert verify_forecasts(systems, later)["pixels"].values.sum() == 0


@pytest.mark.parametrize(("holed", "other"), [("model", "persistence"), ("persistence", "model")])
def test_all_systems_count_the_same_pixels(setting, holed, other):
    cube, systems = setting
    holes = systems[holed].copy(deep=True)
    holes["rainfall_rate"][:, :, :6] = np.nan
    masked = cube.copy(deep=True)
    masked[7, :, :4] = np.nan  # lead 2 of the case at 5
    with_holes = verify_forecasts({**systems, holed: holes}, masked)
    for system in systems:
        pixels = with_holes["pixels"].sel(system=system)
        assert pixels.values.tolist() == [3 * 18 * 28, 3 * 18 * 28 - 18 * 4, 3 * 18 * 28, 3 * 18 * 28]
    south = xr.DataArray(np.broadcast_to(np.arange(24)[:, None] >= 6, (24, 28)), dims=("y", "x"))
    by_region = verify_forecasts(systems, masked, region=south)
    np.testing.assert_allclose(
        with_holes["squared_error"].sel(system=other), by_region["squared_error"].sel(system=other)
    )


def test_common_mask(rain_pair):
    forecast, observed = rain_pair()
    both = common_mask([forecast, forecast.transpose(..., "y", "lead_time")], observed)
    np.testing.assert_array_equal(both, np.isfinite(forecast.values) & np.isfinite(observed.values))


def test_area_weights_are_the_default_on_lat_lon_grids(setting):
    cube, systems = setting
    lat, lon = np.linspace(80, 20, 24), np.arange(28.0)

    def on_globe(data):
        data = data.rename(y="lat", x="lon").assign_coords(lat=lat, lon=lon)
        data["lat"].attrs["units"], data["lon"].attrs["units"] = "degrees_north", "degrees_east"
        return data

    globe, forecasts = on_globe(cube), {n: on_globe(f) for n, f in systems.items()}
    weighted = scores_from(verify_forecasts(forecasts, globe))["mse"]
    plain = scores_from(verify_forecasts(forecasts, globe, area_weights=False))["mse"]
    sums = verify_forecasts({"p": forecasts["persistence"]}, globe)
    assert sums["weight"].isel(lead_time=0).item() == pytest.approx(3 * 28 * np.cos(np.deg2rad(lat)).sum())
    assert (weighted != plain).any()
    with pytest.raises(UsageError, match="area weights"):
        verify_forecasts(systems, cube, area_weights=True)


def test_chunks_of_cases_pool_to_the_whole(setting):
    cube, systems = setting
    parts = [
        verify_forecasts({n: f.isel(forecast_reference_time=[i]) for n, f in systems.items()}, cube) for i in range(3)
    ]
    xr.testing.assert_allclose(pool(parts), verify_forecasts(systems, cube), rtol=1e-12)


def test_lazy_forecasts_are_read_a_few_cases_at_a_time(monkeypatch, rain):
    cube = rain(30, size=(8, 10))
    reference = cube["time"].values[:20]
    whole = persistence(cube, reference=reference, horizon=2)
    read = []

    def load(block, block_info=None):
        read.append(block_info[0]["chunk-location"][0])
        return block

    values = dask.array.from_array(whole["rainfall_rate"].values, chunks=(1, -1, -1, -1))
    lazy = build_forecast(
        {"rainfall_rate": values.map_blocks(load, dtype=values.dtype, meta=np.empty(()))},
        cube,
        reference=reference,
        step=Step("seconds", 300.0),
    )
    monkeypatch.setattr(cases, "BLOCK_BYTES", 4 * 64 * 2 * 8 * 10)  # four cases
    before = []

    def progress(items, description, total):
        for item in items:
            before.append(len(read))
            yield item
        assert total == len(before)

    sums = verify_forecasts({"model": lazy}, cube.chunk(time=1), progress=progress)
    assert before == [0, 4, 8, 12, 16]
    assert sorted(read) == list(range(20))
    monkeypatch.undo()
    xr.testing.assert_allclose(sums, verify_forecasts({"model": whole}, cube), rtol=1e-12)


def test_calendar_months_and_channels():
    time = np.arange("2000-01", "2003-01", dtype="datetime64[M]").astype("datetime64[ns]")
    rng = np.random.default_rng(0)
    cube = xr.DataArray(
        rng.normal(size=(36, 2, 4)),
        dims=("time", "channel", "station"),
        coords={"time": time, "channel": ["sst", "wind"], "channel_units": ("channel", ["degC", "m s-1"])},
    )
    forecast = persistence(cube, reference=time[[10, 20]], horizon=3)
    shifted = cube.assign_coords(time=time + np.timedelta64(14, "D"))
    with pytest.raises(UsageError, match=r"variable to verify.*allowed: sst, wind; name it"):
        verify_forecasts({"p": forecast}, shifted)
    sums = verify_forecasts({"p": forecast}, shifted, variable="wind")
    frames = cube.sel(channel="wind").values
    errors = [np.mean([(frames[k + lead] - frames[k]) ** 2 for k in (10, 20)]) for lead in (1, 2, 3)]
    np.testing.assert_allclose(scores_from(sums)["mse"].sel(system="p"), errors, rtol=1e-5)
    assert sums["lead_step"].values.tolist() == [1, 2, 3]
    assert sums.attrs["units"] == "m s-1"
    with pytest.raises(UsageError, match="variable to verify: found rain"):
        verify_forecasts({"p": forecast}, cube, variable="rain")


def test_forecasts_that_do_not_fit_are_refused(setting):
    cube, systems = setting
    one = systems["persistence"]
    with pytest.raises(UsageError, match="nothing to verify"):
        verify_forecasts({}, cube)
    with pytest.raises(InputError, match="not of the same cases"):
        verify_forecasts({"a": one, "b": one.isel(forecast_reference_time=[0, 1])}, cube)
    with pytest.raises(InputError, match="not of the same cases: found another lead_time"):
        verify_forecasts({"a": one, "b": one.isel(lead_time=[0, 1])}, cube)
    with pytest.raises(InputError, match="units of the forecast of 'a': found 'K'"):
        verify_forecasts({"a": _in_kelvin(one)}, cube)
    with pytest.raises(InputError, match="the grid of the forecast of 'a'"):
        verify_forecasts({"a": one.isel(y=slice(1, None))}, cube)
    with pytest.raises(InputError, match="the grid of the forecast of 'a'"):
        verify_forecasts({"a": one.assign_coords(y=one["y"].values[::-1])}, cube)
    with pytest.raises(InputError, match="region: found float64"):
        verify_forecasts({"a": one}, cube, region=cube[0].astype(float))
    with pytest.raises(UsageError, match="FSS windows without thresholds"):
        verify_forecasts({"a": one}, cube, thresholds=(), windows=(5,))


def test_statistics_of_one_system_do_not_depend_on_its_company(setting):
    cube, systems = setting
    both = verify_forecasts(systems, cube).sel(system="model")
    alone = verify_forecasts({"model": systems["model"]}, cube).sel(system="model")
    xr.testing.assert_identical(both, alone)


def test_verification_is_statistics_of_aligned_arrays(setting):
    cube, systems = setting
    field = systems["model"]["rainfall_rate"]
    frames = np.stack([cube.values[k + 1 : k + 5] for k in (5, 8, 11)])
    plain = statistics(field, xr.DataArray(frames, dims=field.dims), thresholds=(1.0,), fss_windows={"5cells": 5})
    verified = verify_forecasts(systems, cube, thresholds=(1.0,), windows=(5,)).sel(system="model")
    for name in plain.data_vars:
        np.testing.assert_allclose(verified[name], plain[name], rtol=1e-12)


def _ensemble(forecast, factors):
    members = [forecast.assign(rainfall_rate=forecast["rainfall_rate"] * f) for f in factors]
    found = xr.concat(members, xr.IndexVariable("realization", np.arange(len(factors))))
    return found.assign(rainfall_rate=found["rainfall_rate"].assign_attrs(units="mm h-1"))


def test_beside_an_ensemble_a_single_forecast_is_an_ensemble_of_one(setting):
    cube, systems = setting
    four, two = _ensemble(systems["model"], [0.5, 0.8, 1.2, 1.5]), _ensemble(systems["model"], [0.5, 1.5])
    scores = scores_from(verify_forecasts({"four": four, "two": two, "one": systems["persistence"]}, cube))
    alone = scores_from(verify_forecasts({"two": two}, cube)).sel(system="two")
    together = scores.sel(system="two")
    for name in ("mse", "csi", "blur", "crps", "crps_fair", "spread_error", "brier", "roc_area"):
        np.testing.assert_allclose(together[name], alone[name], rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(together["rank_histogram"][..., :3].sum("rank"), 1)
    assert together["rank_histogram"].sel(rank=[4, 5]).isnull().all()
    assert together["reliability"].sel(yes_members=[3, 4]).isnull().all()
    one = scores.sel(system="one")
    np.testing.assert_allclose(one["crps"], one["mae"], rtol=1e-12)
    assert one["crps_fair"].isnull().all()
    assert "crps" not in scores_from(verify_forecasts(systems, cube))


def test_a_pixel_counts_where_all_members_are_there(setting):
    cube, systems = setting
    holed = _ensemble(systems["model"], [1.0, 1.1, 0.9])
    holed["rainfall_rate"][{"realization": 1, "y": slice(0, 6)}] = np.nan
    sums = verify_forecasts({"e": holed, "p": systems["persistence"]}, cube)
    assert (sums["pixels"] == 3 * 18 * 28).all()


def test_sums_are_kept_for_each_case_when_asked(setting):
    cube, systems = setting
    each = verify_forecasts(systems, cube, per_case=True)
    assert each.sizes["forecast_reference_time"] == 3
    xr.testing.assert_allclose(pool([each]), verify_forecasts(systems, cube), rtol=1e-12)
    first, rest = (
        verify_forecasts({n: f.isel(forecast_reference_time=i) for n, f in systems.items()}, cube, per_case=True)
        for i in ([0], [1, 2])
    )
    xr.testing.assert_allclose(join_cases([first, rest]), each, rtol=1e-12)
    xr.testing.assert_allclose(scores_from(each), scores_from(verify_forecasts(systems, cube)), rtol=1e-12)


def test_wavelengths_are_in_km_where_cells_have_a_size(setting):
    cube, systems = setting
    sums = verify_forecasts(systems, cube)
    assert sums.attrs["wavelength_units"] == "km"
    assert sums["wavelength"].values[-1] == pytest.approx(2.2, abs=0.2)
    bare = {n: f.drop_vars(["y", "x"]) for n, f in systems.items()}
    assert verify_forecasts(bare, cube.drop_vars(["y", "x"])).attrs["wavelength_units"] == "cells"
    small = {n: f.isel(y=slice(0, 7)) for n, f in systems.items()}
    assert "power_forecast" not in verify_forecasts(small, cube.isel(y=slice(0, 7)))
