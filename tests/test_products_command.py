"""An ensemble from the command line to maps: forecast --members, products, map, verify and watch."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from cubecast import Nowcaster
from cubecast.__main__ import main
from cubecast.write import read_forecast, write_cube

REMEDY = ["renewal=true", "loss.kind=crps"]


@pytest.fixture(scope="module")
def radar(rain, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "radar.nc"
    write_cube(rain(40), path)
    return str(path)


@pytest.fixture(scope="module")
def model(radar, tmp_path_factory):
    """A small model with noise, made as the error of a model without noise says, until its members differ."""
    folder = tmp_path_factory.mktemp("models") / "model"
    settings = [*REMEDY, "coordinates=eulerian", "hidden_channels=[4]", "crop=16", "learning_rate=0.02"]
    command = ["train", radar, "-o", str(folder), "--history", "3", "--horizon", "2", "--epochs", "2"]
    assert main(command + [word for s in settings for word in ("--set", s)]) == 0
    return str(folder)


@pytest.fixture(scope="module")
def ensemble(radar, model, tmp_path_factory):
    path = tmp_path_factory.mktemp("ensemble") / "ensemble.nc"
    assert main(["forecast", radar, "--model", model, "-o", str(path), "--members", "5", "--seed", "3"]) == 0
    return str(path)


def test_forecast_writes_members_that_belong_to_their_seed(ensemble, radar, model, tmp_path):
    members = read_forecast(ensemble)["rainfall_rate"]
    assert members.sizes["realization"] == 5
    assert float(members.std("realization").mean()) > 1e-4
    for seed, same in (("3", True), ("4", False)):
        path = str(tmp_path / f"{seed}.nc")
        assert main(["forecast", radar, "--model", model, "-o", path, "--members", "5", "--seed", seed]) == 0
        assert members.equals(read_forecast(path)["rainfall_rate"]) is same


def test_products_are_a_forecast_file_that_is_drawn(ensemble, radar, tmp_path, capsys):
    path, maps = tmp_path / "products.nc", tmp_path / "maps"
    command = ["products", ensemble, "-o", str(path), "--mean", "--probability", "0.1,1", "--quantile", "0.9"]
    assert main(command) == 0
    assert capsys.readouterr().out == f"{path}\n"
    made, members = read_forecast(path), read_forecast(ensemble)["rainfall_rate"]
    above = [f"probability_of_rainfall_rate_above_{t}" for t in ("0p1", "1")]
    assert list(made.data_vars) == ["rainfall_rate", *above, "rainfall_rate_quantile_0p9"]
    np.testing.assert_allclose(made["rainfall_rate"], members.mean("realization"), rtol=1e-5)
    np.testing.assert_allclose(made[above[1]], (members >= 0.99999).mean("realization"), rtol=1e-6)
    assert main(["products", ensemble, "-o", str(path), "--probability", "1"]) == 0
    assert main(["map", str(path), "-o", str(maps), "--coastline", "none", "--animation", "html"]) == 0
    stem = f"{above[1]}_20200601T0315"
    assert {f"{stem}_+0005min.png", f"{stem}_leads.png"} <= {p.name for p in maps.iterdir()}
    assert "Probability of a rain rate of 1 mm h⁻¹ or more" in (maps / f"{stem}.html").read_text(encoding="utf-8")


def test_products_to_zarr_and_wrong_wishes(ensemble, model, radar, tmp_path, capsys):
    assert main(["products", ensemble, "-o", str(tmp_path / "p.zarr"), "--quantile", "0.5"]) == 0
    assert list(read_forecast(tmp_path / "p.zarr").data_vars) == ["rainfall_rate_quantile_0p5"]
    plain = tmp_path / "plain.nc"
    assert main(["forecast", radar, "--model", model, "-o", str(plain)]) == 0
    capsys.readouterr()
    for wrong, code, said in (
        ([ensemble], 2, "products: found none"),
        ([ensemble, "--probability", "wet"], 2, "--probability: found 'wet'"),
        ([ensemble, "--probability", ","], 2, "thresholds of probabilities: found []"),
        ([ensemble, "--quantile", "2"], 2, "from 0 to 1"),
        ([str(plain), "--mean"], 3, "a forecast with members"),
        ([str(tmp_path / "no.nc"), "--mean"], 3, "no such file"),
    ):
        assert main(["products", *wrong, "-o", str(tmp_path / "x.nc")]) == code
        line = capsys.readouterr().err
        assert said in line
        assert line.count("\n") == 1
    assert not (tmp_path / "x.nc").exists()


def test_matched_is_for_one_forecast(radar, model, tmp_path, capsys):
    path = str(tmp_path / "n.nc")
    assert main(["forecast", radar, "--model", model, "-o", path, "--matched", "--members", "3"]) == 2
    assert "the mean of the members is matched" in capsys.readouterr().err
    assert main(["forecast", radar, "--model", model, "-o", path, "--matched"]) == 0
    matched = read_forecast(path)["rainfall_rate"]
    assert "realization" not in matched.dims
    with xr.open_dataset(radar) as file:
        last = np.sort(file["rainfall_rate"].values[-1], axis=None)
    np.testing.assert_array_equal(np.sort(matched.values[0, 0], axis=None)[-50:], last[-50:])


def test_verify_scores_the_members_beside_the_baselines(radar, model, tmp_path, capsys):
    command = ["verify", radar, "--model", model, "-o", str(tmp_path), "--members", "4", "--matched", "--every", "6"]
    assert main([*command, "--baselines", "persistence", "--thresholds", "1"]) == 0
    assert "crps: model ahead of persistence at" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "scores.csv").set_index("system")
    assert (table.loc["model", "crps"] < table.loc["model", "mae"]).all()
    assert table.loc["model", "spread_error"].notna().all()
    for single in ("matched", "persistence"):  # ensembles of one: no spread, and the CRPS is the MAE
        assert table.loc[single, "spread_error"].isna().all()
        np.testing.assert_allclose(table.loc[single, "crps"], table.loc[single, "mae"])
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "What the ensemble is worth" in report
    assert "<dt>members</dt><dd>model 4</dd>" in report


def test_watch_writes_members(radar, model, tmp_path):
    (tmp_path / "in").mkdir()
    shutil.copy(radar, tmp_path / "in")
    command = ["watch", str(tmp_path / "in"), "--model", model, "-o", str(tmp_path / "out"), "--members", "3"]
    assert main([*command, "--once", "--stale", "inf", "--poll", "0.1"]) == 0
    assert read_forecast(tmp_path / "out" / "latest.nc").sizes["realization"] == 3
    assert json.loads((tmp_path / "out" / "status.json").read_text())["state"] == "ended"


def test_members_of_a_model_without_noise_are_refused_before_the_work(radar, rain, tmp_path, capsys):
    plain = str(Nowcaster(history=3, horizon=2, hidden_channels=[4], crop=16, epochs=1).fit(rain(40)).save(tmp_path))
    for command in ("forecast", "verify", "watch"):
        source = str(tmp_path) if command == "watch" else radar
        out = tmp_path / ("n.nc" if command == "forecast" else "out")
        assert main([command, source, "--model", plain, "-o", str(out), "--members", "3"]) == 2
        line = capsys.readouterr().err
        assert " ".join(f"--set {setting}" for setting in REMEDY) in line
        assert line.count("\n") == 1
        assert not out.exists()
