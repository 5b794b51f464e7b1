"""The model that is used where none is given, and training that starts from one."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

from cubecast import Config, Nowcaster, convert_units, generate_rain, open_cube
from cubecast.__main__ import main
from cubecast.config import TrainingConfig
from cubecast.errors import InputError, UsageError
from cubecast.presets import PRESETS
from cubecast.shipped import DEFAULT, SHIPPED, model_path
from cubecast.write import read_forecast, write_cube

SHIPPED_FOLDER = Path(str(files("cubecast"))) / "models" / DEFAULT
LARGEST = 10e6
"""Bytes of shipped weights."""


@pytest.fixture(scope="module")
def small(rain, tmp_path_factory):
    """The folder of a tiny model with noise."""
    settings = {"loss": {"kind": "crps", "thresholds": [1.0], "weights": [1.0, 2.0]}, "model": {"noise_channels": 1}}
    config = Config.build(settings, history=3, horizon=2, hidden_channels=[4], crop=16, epochs=1)
    return Nowcaster(config).fit(rain(40)).save(tmp_path_factory.mktemp("small") / "model")


@pytest.fixture
def place(small, rain, tmp_path, monkeypatch):
    """A folder to work in, where the tiny model has the name of the shipped one, and radar.nc."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / DEFAULT).symlink_to(small)
    write_cube(rain(40), "radar.nc")
    return tmp_path


def test_a_name_is_the_shipped_model_unless_a_folder_has_it(tmp_path, monkeypatch):
    assert model_path("somewhere/else") == Path("somewhere/else")
    monkeypatch.chdir(tmp_path)
    Path(DEFAULT).mkdir()
    assert model_path(DEFAULT) == Path(DEFAULT)


def test_a_shipped_model_that_is_not_there_is_one_clear_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(SHIPPED, "radar-1min", "rain every minute")
    with pytest.raises(InputError, match="model radar-1min is not in this installation"):
        Nowcaster.load("radar-1min")
    assert main(["forecast", "radar.nc", "-o", "n.nc", "--model", "radar-1min"]) == 3
    line = capsys.readouterr().err
    assert "give its folder (--model FOLDER)" in line
    assert line.count("\n") == 1


def test_without_a_model_the_shipped_one_forecasts_and_watches(place, small):
    assert main(["forecast", "radar.nc", "-o", "n.nc", "--members", "2"]) == 0
    assert main(["forecast", "radar.nc", "-o", "m.nc", "--members", "2", "--model", str(small)]) == 0
    xr.testing.assert_equal(read_forecast("n.nc"), read_forecast("m.nc"))
    assert main(["watch", ".", "-o", "out", "--pattern", "radar.nc", "--once", "--stale", "inf", "--poll", "0.1"]) == 0
    xr.testing.assert_equal(read_forecast("out/latest.nc"), Nowcaster.load(small).predict(open_cube("radar.nc")))


def test_rain_in_other_units_is_brought_into_those_of_the_model(place, rain):
    write_cube(convert_units(rain(40), "m s-1"), "si.nc")
    assert main(["forecast", "si.nc", "-o", "si_n.nc"]) == 0
    assert main(["forecast", "radar.nc", "-o", "n.nc"]) == 0
    found = read_forecast("si_n.nc")["rainfall_rate"]
    assert found.attrs["units"] == "mm h-1"
    write_cube(convert_units(rain(40) + 1, "dBZ"), "dbz.nc")
    echo = open_cube("dbz.nc")
    assert (echo.attrs["standard_name"], echo.attrs["units"]) == ("equivalent_reflectivity_factor", "dBZ")
    assert main(["forecast", "dbz.nc", "-o", "dbz_n.nc"]) == 0
    assert read_forecast("dbz_n.nc")["rainfall_rate"].attrs["standard_name"] == "rainfall_rate"
    np.testing.assert_allclose(found, read_forecast("n.nc")["rainfall_rate"], rtol=1e-3, atol=1e-3)


def ten_minutes(cube):
    return cube.assign_coords(time=cube.time.values[0] + np.arange(len(cube)) * np.timedelta64(10, "m"))


MISFITS = {
    "step 10 min": ten_minutes,
    "air_temperature in K": lambda c: c.rename("air_temperature").assign_attrs(units="K", standard_name="x"),
    "dims ('time', 'station')": lambda c: c.stack(station=("y", "x"))[:, :5].reset_index("station", drop=True),
}


@pytest.mark.parametrize("said", MISFITS)
@pytest.mark.parametrize("command", ["forecast", "verify", "train"])
def test_what_it_does_not_fit_is_told_what_it_is_for(said, command, place, rain, capsys):
    write_cube(MISFITS[said](rain(40)), "other.nc")
    more = ["--from", DEFAULT, "--preset", "rain"] if command == "train" else []
    assert main([command, "other.nc", "-o", "out.nc" if command == "forecast" else "out", *more]) == 3
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    for words in (said, SHIPPED[DEFAULT], "train a model on such data"):
        assert words in line
    assert not list(place.glob("out*"))


def test_a_coarse_grid_is_warned_of(place, rain, capsys):
    cube = rain(40)
    write_cube(cube.assign_coords({d: cube[d] * 5 for d in "yx"}), "coarse.nc")
    assert main(["forecast", "coarse.nc", "-o", "n.nc"]) == 0
    assert "cells of 5 km" in capsys.readouterr().err
    assert main(["forecast", "radar.nc", "-o", "n.nc"]) == 0
    assert capsys.readouterr().err == ""


def test_training_from_a_model_takes_its_settings_and_a_quarter_of_the_learning_rate(place, small):
    few = ["--epochs", "1", "--set", "crop=16", "--set", "crops_per_window=1"]
    assert main(["train", "radar.nc", "-o", "tuned", "--from", DEFAULT, "--horizon", "3", *few]) == 0
    tuned, first = Nowcaster.load("tuned"), Nowcaster.load(small)
    assert tuned.config.model == first.config.model
    assert tuned.config.loss == first.config.loss
    assert (tuned.config.task.history, tuned.config.task.horizon) == (3, 3)
    assert tuned.config.training.learning_rate == PRESETS["rain"]["training"]["learning_rate"] / 4
    assert len(tuned._about["trained_on"]) == 2
    assert main(["train", "radar.nc", "-o", "set", "--from", "tuned", "--set", "learning_rate=1e-9", *few]) == 0
    again = Nowcaster.load("set")
    assert yaml.safe_load(Path("set/config.yaml").read_text())["training"]["learning_rate"] == 1e-9
    assert again._about["trained_on"] == tuned._about["trained_on"], "the same cube twice"
    for name, value in tuned.network.state_dict().items():
        np.testing.assert_allclose(again.network.state_dict()[name].numpy(), value.numpy(), atol=1e-6)


def test_a_preset_without_a_learning_rate_gives_a_quarter_of_the_default():
    assert Config().continued("moving_mnist").training.learning_rate == TrainingConfig().learning_rate / 4
    with pytest.raises(UsageError, match="unknown preset"):
        Config().continued("snow")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--config", "run.yaml"], "both --from and --config"),
        (["--set", "hidden_channels=[8]"], "hidden_channels=[8]; allowed: hidden_channels=[4]"),
        (["--set", "kind=mse"], "allowed: scaling.kind, loss.kind"),
    ],
)
def test_what_cannot_differ_is_refused(more, said, place, capsys):
    Path("run.yaml").write_text("task: {history: 4}\n")
    assert main(["train", "radar.nc", "-o", "tuned", "--from", DEFAULT, *more]) == 2
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1


@pytest.mark.skipif(not SHIPPED_FOLDER.is_dir(), reason=f"the weights of {DEFAULT} are not in src/cubecast/models")
def test_the_shipped_model_forecasts_without_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (SHIPPED_FOLDER / "weights.safetensors").stat().st_size <= LARGEST
    assert (SHIPPED_FOLDER / "MODEL_CARD.md").is_file()
    assert "/" not in str([s["source"] for s in Nowcaster.load(DEFAULT)._about["trained_on"]]), "a path"
    cube = generate_rain(frames=19, size=(96, 96), seed=123)
    write_cube(cube[:-1], "my_radar.nc")
    assert main(["forecast", "my_radar.nc", "-o", "nowcast.nc"]) == 0
    forecast = read_forecast("nowcast.nc")["rainfall_rate"]
    assert forecast.sizes["lead_time"] == Nowcaster.load(DEFAULT).config.task.horizon
    first, last, truth = forecast.values[0, 0], cube.values[-2], cube.values[-1]
    assert ((first - truth) ** 2).mean() < 0.8 * ((last - truth) ** 2).mean()
