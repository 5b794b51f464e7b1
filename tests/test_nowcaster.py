"""Fit, predict, save and load: what a forecast is made of, and what is refused."""

import json

import numpy as np
import pytest
import torch
import xarray as xr

import cubecast
from cubecast.errors import InputError, ModelMismatchError, OutputError, UsageError
from cubecast.model_folder import seal
from cubecast.nowcaster import Nowcaster

SMALL = {"history": 3, "horizon": 2, "hidden_channels": [8], "patch": 4, "crop": 16, "epochs": 1}


@pytest.fixture(scope="module")
def model(rain):
    return Nowcaster(**SMALL).fit(rain(40))


def test_a_forecast_after_the_last_frame(model, rain):
    cube = rain(20)
    forecast = model.predict(cube)
    field = forecast["rainfall_rate"]
    assert field.dims == ("forecast_reference_time", "lead_time", "y", "x")
    assert forecast.forecast_reference_time.values[0] == cube.time.values[-1]
    assert list(forecast.lead_time.values / np.timedelta64(1, "m")) == [5, 10]
    assert forecast.valid_time.values[0, 1] == cube.time.values[-1] + np.timedelta64(10, "m")
    assert field.attrs["units"] == "mm h-1"
    xr.testing.assert_identical(forecast["y"], cube["y"])
    assert float(field.min()) >= 0
    assert np.isfinite(field).all()
    assert len(forecast.attrs["model_weights_sha256"]) == 64


def test_history_alone_decides(model, rain):
    """Frames before the history and after the reference time change nothing."""
    cube = rain(20)
    at = cube.time.values[9]
    whole = model.predict(cube, at=at)
    xr.testing.assert_equal(whole, model.predict(cube.isel(time=slice(7, 10))))
    other = cube.copy(deep=True)
    other[:7] = 50.0
    other[10:] = 50.0
    xr.testing.assert_equal(whole, model.predict(other, at=at))


def test_many_references_equal_single_ones(model, rain):
    cube = rain(20)
    at = cube.time.values[[4, 11, 17]]
    together = model.predict(cube, at=at)
    assert list(together.forecast_reference_time.values) == list(at)
    for i, time in enumerate(at):
        np.testing.assert_array_equal(
            together["rainfall_rate"].values[i], model.predict(cube, at=time)["rainfall_rate"].values[0]
        )


def test_the_first_leads_do_not_depend_on_the_horizon(model, rain):
    short, long = model.predict(rain(10), horizon=1), model.predict(rain(10), horizon=7)
    assert long.sizes["lead_time"] == 7
    np.testing.assert_allclose(
        short["rainfall_rate"].values[:, 0], long["rainfall_rate"].values[:, 0], rtol=1e-5, atol=1e-6
    )


def test_masked_areas_stay_masked(model, rain):
    cube = rain(10).copy(deep=True)
    cube[:, :5] = np.nan
    cube[-1, 10, 10] = np.nan
    field = model.predict(cube)["rainfall_rate"].values[0]
    assert np.isnan(field[:, :5]).all()
    assert np.isfinite(field[:, 5:]).all()


def test_lazy_cubes_give_the_same_forecast(model, rain):
    cube = rain(12)
    xr.testing.assert_equal(model.predict(cube), model.predict(cube.chunk(time=5)))


def test_saved_and_loaded_models_forecast_the_same_bits(model, rain, tmp_path):
    model.save(tmp_path / "m")
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["config.yaml", "model.json", "weights.safetensors"]
    loaded = Nowcaster.load(tmp_path / "m")
    xr.testing.assert_identical(loaded.predict(rain(12)), model.predict(rain(12)))
    assert loaded.config == model.config
    assert loaded.log == model.log
    assert loaded.training_period == model.training_period
    assert cubecast.Config.read(tmp_path / "m" / "config.yaml") == model.config
    with pytest.raises(UsageError, match="unknown preset: found 'snow'"):
        cubecast.Config.read(tmp_path / "m" / "config.yaml", "snow")


def test_a_changed_model_folder_is_refused(model, tmp_path):
    folder = model.save(tmp_path / "m")
    weights = bytearray((folder / "weights.safetensors").read_bytes())
    weights[len(weights) // 2] ^= 1
    (folder / "weights.safetensors").write_bytes(weights)
    with pytest.raises(InputError, match="were changed or cut"):
        Nowcaster.load(folder)
    model.save(folder)
    about = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(about))
    Nowcaster.load(folder)  # the layout does not matter
    about["step"]["size"] *= 2
    (folder / "model.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match="was changed: found another SHA-256; restore the folder"):
        Nowcaster.load(folder)
    del about["sha256"], about["channels"]
    (folder / "model.json").write_text(seal(about))
    with pytest.raises(InputError, match="damaged"):
        Nowcaster.load(folder)
    (folder / "model.json").write_text("[]")
    with pytest.raises(InputError, match="allowed: format 2; train it again"):
        Nowcaster.load(folder)
    with pytest.raises(InputError, match="no readable model"):
        Nowcaster.load(tmp_path / "nothing")


def test_a_folder_that_cannot_be_made_is_an_output_error(model, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write"):
        model.save(tmp_path / "file" / "m")


def test_cubes_that_do_not_fit_are_refused(model, rain):
    cube = rain(20)
    ten_minutes = cube.assign_coords(time=cube.time.values[0] + np.arange(20) * np.timedelta64(10, "m"))
    with pytest.raises(ModelMismatchError, match="found 10 min; allowed: 5 min"):
        model.predict(ten_minutes)
    with pytest.raises(ModelMismatchError, match="units of 'rainfall_rate': found 'K'; allowed: 'mm h-1'"):
        model.predict(cube.assign_attrs(units="K"))
    with pytest.raises(InputError, match="has no units"):
        model.predict(cube.drop_attrs())
    with pytest.raises(ModelMismatchError, match="found 2 frames; allowed: 3 or more"):
        model.predict(cube[:2])
    with pytest.raises(InputError, match="all missing"):
        model.predict(cube.where(False))
    with pytest.raises(UsageError, match="point series"):
        model.predict(cube[:, 0, 0])
    with pytest.raises(InputError, match="not a cube"):
        model.predict(cube.to_dataset())
    for horizon in (0, 100_000_000):
        with pytest.raises(UsageError, match=f"horizon: found {horizon}; allowed: 1 to 10000 steps"):
            model.predict(cube, horizon=horizon)


def test_reference_times_that_cannot_be_used_are_refused(model, rain):
    cube = rain(20, missing=[9])
    with pytest.raises(InputError, match=r"2021-01-01.* is not in the cube: found 19 frames from 2020-06-01T00:00:00"):
        model.predict(cube, at=np.datetime64("2021-01-01"))
    with pytest.raises(InputError, match="too few frames"):
        model.predict(cube, at=cube.time.values[1])
    with pytest.raises(InputError, match="1 missing of the last 3 steps"):
        model.predict(cube, at=cube.time.values[10])


def test_training_refuses_what_it_cannot_use(rain):
    with pytest.raises(InputError, match="no window to validate on: found at most 6 frames"):
        Nowcaster(**SMALL).fit(rain(6))
    with pytest.raises(InputError, match="all missing"):
        Nowcaster(**SMALL).fit(rain(40).where(False))
    with pytest.raises(UsageError, match=r"outputs: found wind; allowed: each once, of rainfall_rate"):
        Nowcaster(**SMALL, outputs=["wind"]).fit(rain(40))
    with pytest.raises(UsageError, match="unknown setting: found histry"):
        Nowcaster(histry=3)
    with pytest.raises(UsageError, match="not trained"):
        Nowcaster().predict(rain(10))
    with pytest.raises(UsageError, match="not trained"):
        Nowcaster().initial_network()
    slow = rain(40).assign_coords(time=rain(40).time.values[0] + np.arange(40) * np.timedelta64(10, "m"))
    with pytest.raises(ModelMismatchError, match="step"):
        Nowcaster(**SMALL).fit([rain(40), slow])


def test_cubes_of_several_grids_and_a_validation_cube(rain):
    model = Nowcaster(**SMALL).fit([rain(30), rain(20, size=(33, 21))], validation=rain(12, size=(20, 20)))
    assert model.predict(rain(6, size=(37, 19)))["rainfall_rate"].shape == (1, 2, 37, 19)


def two_channels(cube):
    """Rain and a temperature that moves with it."""
    both = xr.concat([cube, 280 + cube / 2], "channel").transpose("time", "channel", "y", "x")
    both = both.assign_coords(channel=["rainfall_rate", "air_temperature"], channel_units=("channel", ["mm h-1", "K"]))
    both.attrs.pop("units")
    return both


def test_several_channels_in_one_out_with_static_fields(rain, tmp_path):
    cube = two_channels(rain(40))
    static = xr.Dataset({"height": (("y", "x"), np.linspace(0, 900, 24 * 28).reshape(24, 28))})
    model = Nowcaster(**SMALL, outputs=["air_temperature"]).fit(cube, static=static)
    forecast = model.predict(cube, static=static)
    assert list(forecast.data_vars) == ["air_temperature"]
    assert forecast["air_temperature"].attrs["units"] == "K"
    assert 270 < float(forecast["air_temperature"].mean()) < 290
    loaded = Nowcaster.load(model.save(tmp_path / "m"))
    xr.testing.assert_identical(loaded.predict(cube, static=static), forecast)
    with pytest.raises(ModelMismatchError, match="static fields: found no height"):
        model.predict(cube)
    with pytest.raises(ModelMismatchError, match="static field 'height'"):
        model.predict(cube, static=static.isel(x=slice(0, 5)))
    with pytest.raises(ModelMismatchError, match="variables: found rainfall_rate"):
        model.predict(rain(40), static=static)
    both = Nowcaster(**SMALL).fit(cube)
    assert list(both.predict(cube).data_vars) == ["rainfall_rate", "air_temperature"]


def test_point_series_with_stations_and_depth():
    rng = np.random.default_rng(0)
    time = np.datetime64("2020-01-01", "ns") + np.arange(120) * np.timedelta64(1, "h")
    values = np.sin(np.arange(120)[:, None] / 5 + np.arange(3)) + 0.01 * rng.standard_normal((120, 3))
    cube = xr.DataArray(
        values, dims=("time", "station"), coords={"time": time}, attrs={"units": "degC"}, name="temperature"
    )
    config = cubecast.Config.preset("series", history=10, horizon=2, epochs=2, hidden_channels=[8])
    forecast = Nowcaster(config).fit(cube).predict(cube)
    assert forecast["temperature"].dims == ("forecast_reference_time", "lead_time", "station")
    assert np.isfinite(forecast["temperature"]).all()

    depth = xr.DataArray(
        values[:, 0], dims="depth", coords={"depth": ("depth", 2793 + 0.5 * np.arange(120), {"units": "ft"})},
        attrs={"units": "API"}, name="gamma_ray",
    )  # fmt: skip
    deep = Nowcaster(config).fit(depth).predict(depth, at=[2800.0, 2810.5])
    assert deep["gamma_ray"].dims == ("forecast_reference_depth", "lead_depth")
    assert list(deep["valid_depth"].values[0]) == [2800.5, 2801.0]


@pytest.fixture(scope="module")
def ensemble(rain):
    settings = {"loss": {"kind": "crps", "thresholds": [1.0], "weights": [1.0, 2.0]}, "model": {"noise_channels": 2}}
    config = cubecast.Config.build(settings, **SMALL | {"epochs": 6, "learning_rate": 0.02})
    return Nowcaster(config).fit(rain(40))


def test_members_differ_and_belong_to_seed_and_reference_time(ensemble, rain):
    cube = rain(20)
    at = cube.time.values[[9, 17]]
    forecast = ensemble.predict(cube, at=at, members=10, seed=3)
    field = forecast["rainfall_rate"]
    assert field.dims == ("forecast_reference_time", "realization", "lead_time", "y", "x")
    assert (field.std("realization").mean(("lead_time", "y", "x")) > 1e-3).all()
    xr.testing.assert_equal(
        forecast.isel(forecast_reference_time=[1]), ensemble.predict(cube, at=at[1:], members=10, seed=3)
    )
    other = ensemble.predict(cube, at=at, members=10, seed=4)["rainfall_rate"]
    assert not (field == other).all()
    noise = field - field.mean("realization")
    assert abs(float(xr.corr(noise[0], noise[1]))) < 0.9


def test_one_forecast_of_an_ensemble_is_the_mean_of_its_members(ensemble, rain):
    cube = rain(20)
    mean = ensemble.predict(cube)["rainfall_rate"]
    members = ensemble.predict(cube, members=8)["rainfall_rate"]
    xr.testing.assert_allclose(mean, members.mean("realization"), rtol=1e-4, atol=1e-5)


def test_an_ensemble_is_saved_and_loaded(ensemble, rain, tmp_path):
    loaded = Nowcaster.load(ensemble.save(tmp_path / "model"))
    xr.testing.assert_identical(loaded.predict(rain(20), members=2), ensemble.predict(rain(20), members=2))


def test_members_of_a_model_without_noise_are_refused(model, ensemble, rain):
    with pytest.raises(UsageError, match="of a model without members"):
        model.predict(rain(20), members=3)
    with pytest.raises(UsageError, match="members"):
        ensemble.predict(rain(20), members=0)
    for wrong in ({"noise_channels": 2}, {"kind": "crps"}):
        with pytest.raises(UsageError, match="go together"):
            Nowcaster(cubecast.Config.build({"loss": {"kind": wrong.pop("kind", "mse")}}, **wrong))


def test_training_starts_from_a_model(model, rain):
    """One step with a learning rate of almost nothing leaves the weights and scalings where they were."""
    settings = SMALL | {"learning_rate": 1e-12, "crops_per_window": 1}
    other = rain(40) * 3
    other.attrs = rain(2).attrs
    tuned = Nowcaster(**settings).fit(other, start=model)
    for name, value in model.network.state_dict().items():
        torch.testing.assert_close(tuned.network.state_dict()[name], value, atol=1e-6, rtol=0)
    xr.testing.assert_allclose(tuned.predict(rain(20)), model.predict(rain(20)), atol=1e-3)
    assert tuned._about["trained_on"] == model._about["trained_on"], (
        "the same cube twice, as far as names and times say"
    )
    moved = Nowcaster(**SMALL | {"learning_rate": 0.01}).fit(other, start=model)
    assert not torch.equal(moved.network.head.weight, model.network.head.weight)


def test_a_start_that_does_not_fit_is_refused(model, rain):
    with pytest.raises(UsageError, match=r"hidden_channels=\[4\]; allowed: hidden_channels=\[8\]"):
        Nowcaster(**SMALL | {"hidden_channels": [4]}).fit(rain(40), start=model)
    degrees = rain(40).assign_attrs(units="degC", standard_name="air_temperature")
    with pytest.raises(ModelMismatchError, match="degC"):
        Nowcaster(**SMALL).fit(degrees, start=model)
    slow = rain(80)[::2]
    with pytest.raises(ModelMismatchError, match="step"):
        Nowcaster(**SMALL).fit(slow, start=model)


def test_the_accessor_is_the_same_api(model, rain):
    cube = rain(12)
    xr.testing.assert_identical(cube.nowcast.predict(model, horizon=1), model.predict(cube, horizon=1))
    assert cube.nowcast.info(history=3, horizon=2)
    assert cube.nowcast.plot().axes
    with pytest.raises(InputError, match="frame to plot: found 1999-01-01; allowed: one of those from 2020-06-01"):
        cube.nowcast.plot(at="1999-01-01")


def test_the_network_is_at_hand_for_your_own_loop(model):
    frames = torch.zeros(1, 3, 2, 16, 16)
    assert model.network(frames, 4).shape == (1, 4, 1, 16, 16)
