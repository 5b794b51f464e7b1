"""The command: what it prints where, what it writes, and one clear line with the right exit code for bad input."""

import json
import os
import subprocess
import sys

import netCDF4
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml

from cubecast.__main__ import main
from cubecast.sources import open_cube
from cubecast.units import convert_units
from cubecast.write import read_forecast, write_cube

SMALL = ["--history", "3", "--horizon", "2", "--epochs", "1", "--set", "hidden_channels=[4]", "--set", "crop=16"]
SMALL += ["--set", "coordinates=eulerian"]  # where an epoch is enough to get ahead of the start


@pytest.fixture(scope="module")
def radar(rain, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "radar.nc"
    write_cube(rain(40), path)
    return path


@pytest.fixture(scope="module")
def model(radar, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "model"
    assert main(["train", str(radar), "-o", str(folder), *SMALL]) == 0
    return folder


def test_help_names_every_command_and_exit_code(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for word in ("info", "train", "forecast", "products", "watch", "verify", "map", "demo", "Exit codes"):
        assert word in shown
    for command in ("info", "train", "forecast", "products", "watch", "verify", "map", "demo"):
        assert main([command, "--help"]) == 0
        assert "--help" in capsys.readouterr().out


def test_info_prints_what_is_there(radar, tmp_path, capsys):
    assert main(["info", str(radar), "--history", "3", "--horizon", "2"]) == 0
    shown = capsys.readouterr().out
    for text in ("rainfall_rate", "mm h-1", "5 min", "time 40", "36"):
        assert text in shown
    assert main(["info", str(radar), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["step"] == "5 min"
    write_cube(convert_units(open_cube(radar), "dBZ"), tmp_path / "dbz.nc")  # -inf where it is dry
    assert main(["info", str(tmp_path / "dbz.nc"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)[0]
    assert found["lowest value"] == "-inf"


def test_train_saves_the_resolved_configuration(model):
    saved = yaml.safe_load((model / "config.yaml").read_text())
    assert saved["task"]["history"] == 3
    assert saved["model"]["hidden_channels"] == [4]
    assert (model / "training.csv").exists()


def test_a_yaml_file_holds_any_setting_and_flags_win(radar, tmp_path):
    config = {"task": {"history": 4, "horizon": 2}, "model": {"hidden_channels": [4]}, "training": {"epochs": 1}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    command = ["train", str(radar), "-o", str(tmp_path / "m"), "--config", str(tmp_path / "run.yaml")]
    assert main([*command, "--history", "5"]) == 0
    saved = yaml.safe_load((tmp_path / "m" / "config.yaml").read_text())
    assert (saved["task"]["history"], saved["model"]["hidden_channels"]) == (5, [4])


def test_training_does_not_mix_with_what_is_there(radar, model, capsys):
    assert main(["train", str(radar), "-o", str(model), *SMALL]) == 4
    assert "is not empty" in capsys.readouterr().err
    assert main(["train", str(radar), "-o", str(model), "--resume", *SMALL]) == 0


def test_a_training_that_is_refused_leaves_no_folder(radar, tmp_path, capsys):
    assert main(["train", str(radar), "-o", str(tmp_path / "m"), "--history", "400", *SMALL[2:]]) == 3
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "m").exists()


def test_forecast_writes_one_file_with_all_reference_times(radar, model, tmp_path, capsys):
    out = tmp_path / "nowcast.nc"
    command = ["forecast", str(radar), "--model", str(model), "-o", str(out)]
    assert main(command) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert read_forecast(out).forecast_reference_time.values[0] == np.datetime64("2020-06-01T03:15")
    assert main([*command, "--at", "2020-06-01T01:00", "--at", "2020-06-01T02:00Z"]) == 0
    assert read_forecast(out).sizes["forecast_reference_time"] == 2
    assert main([*command, "--every", "10", "--horizon", "4"]) == 0
    assert dict(read_forecast(out).sizes) == {"forecast_reference_time": 4, "lead_time": 4, "y": 24, "x": 28}


def test_a_forecast_in_bf16_is_near_the_one_in_fp32(radar, model, tmp_path, capsys):
    """Near: within 2 % of the rate and 0.1 mm/h; bfloat16 has 8 bits, and the scaling of rain is logarithmic."""
    fields = {}
    for precision in ("", "auto", "fp32", "bf16"):
        out = tmp_path / f"nowcast{precision}.nc"
        command = ["forecast", str(radar), "--model", str(model), "-o", str(out), "--horizon", "6"]
        assert main(command + (["--precision", precision] if precision else [])) == 0
        fields[precision] = read_forecast(out)["rainfall_rate"].values
    np.testing.assert_array_equal(fields[""], fields["auto"])
    assert np.abs(fields["bf16"] - fields["fp32"]).max() > 1e-4
    np.testing.assert_allclose(fields["bf16"], fields["fp32"], rtol=0.02, atol=0.1)


def test_training_takes_a_precision(radar, tmp_path, capsys):
    assert main(["train", str(radar), "-o", str(tmp_path / "m"), *SMALL, "--precision", "bf16"]) == 0
    assert yaml.safe_load((tmp_path / "m" / "config.yaml").read_text())["training"]["precision"] == "bf16"


def test_verify_prints_a_table_and_writes_csv_and_plot(radar, model, tmp_path, capsys):
    out = tmp_path / "verify"
    assert main(["verify", str(radar), "--model", str(model), "-o", str(out), "--region", "y=0:9000"]) == 0
    shown = capsys.readouterr().out
    assert "mse: model ahead of persistence at" in shown
    assert set(pd.read_csv(out / "scores.csv")["system"]) == {"model", "persistence", "extrapolation"}
    assert (out / "scores.png").read_bytes()[:4] == b"\x89PNG"
    assert "</html>" in (out / "report.html").read_text(encoding="utf-8")
    assert "mse_low" not in pd.read_csv(out / "scores.csv")
    command = ["verify", str(radar), "--model", str(model), "-o", str(out), "--baselines", "extrapolation"]
    assert main([*command, "--every", "20"]) == 0
    assert set(pd.read_csv(out / "scores.csv")["system"]) == {"model", "extrapolation"}


def test_verify_after_named_times(radar, model, tmp_path, capsys):
    command = ["verify", str(radar), "--model", str(model), "-o", str(tmp_path / "v"), "--at"]
    assert main([*command, "2020-06-01T01:00", "--at", "2020-06-01T01:30", "--baselines", "persistence"]) == 0
    assert set(pd.read_csv(tmp_path / "v" / "scores.csv")["cases"]) == {2}
    assert main([*command, "2020-06-01T00:01"]) == 3
    assert "2020-06-01T00:01:00 is not in the cube" in capsys.readouterr().err


def test_verify_without_pysteps_says_what_to_install(radar, model, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    command = ["verify", str(radar), "--model", str(model), "-o", str(tmp_path), "--cache", str(tmp_path / "cache")]
    assert main([*command, "--baselines", "sprog"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "scikit-image; pip install 'cubecast[pysteps]'" in line


def test_a_forecast_for_pysteps_has_its_names(radar, model, tmp_path):
    path = tmp_path / "n.nc"
    assert main(["forecast", str(radar), "--model", str(model), "-o", str(path), "--for-pysteps"]) == 0
    assert list(read_forecast(path).data_vars) == ["precip_intensity"]


def test_verify_with_intervals(radar, model, tmp_path):
    command = ["verify", str(radar), "--model", str(model), "-o", str(tmp_path), "--every", "4", "--bootstrap", "20"]
    assert main([*command, "--windows", "5km,9"]) == 0
    table = pd.read_csv(tmp_path / "scores.csv")
    assert (table["mse_low"] < table["mse_high"]).all()
    assert {"fss_1_5km", "fss_1_9cells"} <= set(table)
    assert "20 resamples" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_map_draws_pictures_and_an_animation(radar, model, tmp_path, capsys):
    assert main(["forecast", str(radar), "--model", str(model), "-o", str(tmp_path / "n.nc")]) == 0
    capsys.readouterr()
    out = tmp_path / "maps"
    assert main(["map", str(tmp_path / "n.nc"), "-o", str(out), "--animation", "gif"]) == 0
    paths = capsys.readouterr().out.split()
    assert sorted(os.path.realpath(p) for p in paths) == sorted(os.path.realpath(p) for p in out.iterdir())
    assert sum(p.endswith(".png") for p in paths) >= 2
    assert sum(p.endswith(".gif") for p in paths) == 1
    assert main(["map", str(tmp_path / "n.nc"), "-o", str(tmp_path / "no"), "--variable", "snow"]) == 2
    assert "snow" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_a_single_observed_frame_is_drawn_beside_its_forecast(radar, model, tmp_path):
    made, one, out = (tmp_path / name for name in ("n.nc", "one.nc", "maps"))
    assert main(["forecast", str(radar), "--model", str(model), "-o", str(made), "--at", "2020-06-01T01:00"]) == 0
    write_cube(open_cube(radar)[13:14], one)
    assert main(["map", str(made), "-o", str(out), "--observed", str(one), "--coastline", "none"]) == 0
    assert [p for p in out.iterdir() if "comparison" in p.name]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "R", "-o", "m", "--history", "3", "--set", "history=5"], "setting given twice: found history"),
        (["verify", "R", "--model", "M", "-o", "v", "--region", "y=0:5", "--region", "y=6:9"], "one for each dim"),
        (["verify", "R", "--model", "M", "-o", "v", "--thresholds", "0.1234567,0.1234568"], "differ in six digits"),
        (["forecast", "R", "--model", "M", "-o", "f.zarr", "--for-pysteps"], "a name in .nc: pysteps reads netCDF"),
        (["watch", ".", "--model", "M", "-o", "w", "--precision", "fp16"], "precision: found 'fp16'"),
        (["watch", ".", "--model", "M", "-o", "w", "--memory", "much"], "memory: found 'much'"),
        (["batch", "R", "--model", "M", "-o", "b", "--precision", "fp16", "--workers", "1"], "precision: found 'fp16'"),
    ],
)
def test_wishes_that_contradict_each_other_are_said_at_once(words, said, radar, model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([{"R": str(radar), "M": str(model)}.get(word, word) for word in words]) == 2
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1
    assert not [p for p in tmp_path.iterdir() if p.name != "w"]


def test_a_training_without_time_says_which_weights_it_keeps(radar, tmp_path, capsys):
    assert main(["train", str(radar), "-o", str(tmp_path / "m"), *SMALL, "--max-minutes", "1e-6"]) == 0
    assert "weights before training: no epoch was better" in capsys.readouterr().out


def test_verbose_and_debug_may_stand_anywhere(radar, model, tmp_path, capsys):
    assert main(["train", str(radar), "-o", str(tmp_path / "m"), "-v", *SMALL]) == 0
    captured = capsys.readouterr()
    assert "validation loss" in captured.err
    assert "training loss" not in captured.out
    with pytest.raises(ValueError, match="no such"):
        main(["info", str(tmp_path / "nothing.nc"), "--debug"])


def test_python_m_cubecast_in_a_process_of_its_own(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "cubecast", "info", "nothing.nc"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("cubecast: error: ")
    assert len(done.stderr.splitlines()) == 1


def changed(rain, path, change):
    """A file of rain with something wrong, written by xarray alone."""
    dataset = rain(40).to_dataset()
    change(dataset).to_netcdf(path)
    return path


def no_time(ds):
    return ds.isel(time=0, drop=True)


def irregular(ds):
    times = ds.time.values.copy()
    times[5:] += np.timedelta64(2, "m")
    return ds.assign_coords(time=times)


def ten_minutes(ds):
    return ds.assign_coords(time=ds.time.values[0] + np.arange(ds.sizes["time"]) * np.timedelta64(10, "m"))


def units(value):
    def change(ds):
        ds = ds.copy()
        ds["rainfall_rate"] = ds["rainfall_rate"].drop_attrs()
        return ds if value is None else ds.assign(rainfall_rate=ds["rainfall_rate"].assign_attrs(units=value))

    return change


BAD_CUBES = {
    "no time": no_time,
    "irregular time": irregular,
    "too short": lambda ds: ds.isel(time=slice(0, 2)),
    "wrong units": units("K"),
    "no units": units(None),
    "all missing": lambda ds: ds.where(ds["rainfall_rate"] < -1),
    "a model for another step": ten_minutes,
}


def run(command, capsys):
    """Exit code and the one line on stderr; nothing may stand on stdout."""
    code = main([str(part) for part in command])
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("cubecast: error: ")
    assert "Traceback" not in captured.err
    return code, lines[0]


@pytest.mark.parametrize("kind", BAD_CUBES)
def test_bad_cubes_give_one_line_code_3_and_no_file(kind, rain, model, tmp_path, capsys):
    path = changed(rain, tmp_path / "bad.nc", BAD_CUBES[kind])
    code, line = run(["forecast", path, "--model", model, "-o", tmp_path / "out.nc"], capsys)
    assert code == 3, line
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.nc"]


def truncated(path, **kind):
    with netCDF4.Dataset(path, "w", **kind) as ds:
        ds.createDimension("time", None if kind["format"] == "NETCDF4" else 40)
        ds.createDimension("y", 20)
        ds.createDimension("x", 20)
        time = ds.createVariable("time", "f8", ("time",))
        time.setncatts({"units": "minutes since 2020-06-01", "standard_name": "time"})
        time[:] = 5.0 * np.arange(40)
        rate = ds.createVariable("rainfall_rate", "f4", ("time", "y", "x"))
        rate.setncatts({"units": "mm h-1", "standard_name": "rainfall_rate"})
        rate[:] = np.random.default_rng(0).random((40, 20, 20))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 5])


@pytest.mark.parametrize("name", ["no such file", "no such variable", "truncated 4", "truncated 3", "text", "empty"])
def test_bad_files_give_one_line_code_3_and_no_file(name, radar, model, tmp_path, capsys):
    path, extra = tmp_path / "bad.nc", []
    if name == "no such variable":
        path, extra = radar, ["--variable", "snow"]
    elif name == "truncated 4":
        truncated(path, format="NETCDF4")
    elif name == "truncated 3":
        truncated(path, format="NETCDF3_CLASSIC")
    elif name == "text":
        path.write_text("Dear colleague, the data are on the other disk.\n")
    elif name == "empty":
        path.write_bytes(b"")
    code, line = run(["forecast", path, "--model", model, "-o", tmp_path / "out.nc", *extra], capsys)
    assert code == 3, line
    assert not (tmp_path / "out.nc").exists()
    assert [p.name for p in tmp_path.iterdir()] in ([], ["bad.nc"])


def test_bad_files_do_not_start_a_training(tmp_path, capsys):
    (tmp_path / "bad.nc").write_text("text")
    code, _ = run(["train", tmp_path / "bad.nc", "-o", tmp_path / "m"], capsys)
    assert code == 3
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "{radar}", "-o", "{tmp}/m", "--set", "hidden=3"],
        ["train", "{radar}", "-o", "{tmp}/m", "--set", "kernel_size=4"],
        ["train", "{radar}", "-o", "{tmp}/m", "--set", "kernel_size"],
        ["train", "{radar}", "-o", "{tmp}/m", "--preset", "snow"],
        ["train", "{radar}", "-o", "{tmp}/m", "--config", "{tmp}/none.yaml"],
        ["train", "{radar}", "-o", "{tmp}/m", "--precision", "fp16"],
        ["verify", "{radar}", "--model", "{model}", "-o", "{tmp}/v", "--baselines", "magic"],
        ["verify", "{radar}", "--model", "{model}", "-o", "{tmp}/v", "--region", "lat"],
        ["verify", "{radar}", "--model", "{model}", "-o", "{tmp}/v", "--thresholds", "wet"],
        ["verify", "{radar}", "--model", "{model}", "-o", "{tmp}/v", "--windows", "wide"],
        ["forecast", "{radar}", "--model", "{model}", "-o", "{tmp}/n.nc", "--at", "noon"],
        ["forecast", "{radar}", "--model", "{model}", "-o", "{tmp}/n.nc", "--at", "2020-06-01T01:00", "--every", "2"],
        ["forecast", "{radar}", "--model", "{model}", "-o", "{tmp}/n.docx"],
        ["forecast", "{radar}", "--model", "{model}", "-o", "{tmp}/n.nc", "--precision", "half"],
    ],
    ids=lambda a: " ".join(a[-2:]),
)
def test_wrong_usage_gives_code_2_and_no_file(arguments, radar, model, tmp_path, capsys):
    code, line = run([a.format(radar=radar, model=model, tmp=tmp_path) for a in arguments], capsys)
    assert code == 2, line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["forecast", "--wrong"], "--wrong"),
        (["train", "x.nc"], "--output"),
        (["map", "n.nc", "-o", "maps", "--observed", *(f"radar/{i:04d}.nc" for i in range(200))], "quote"),
    ],
)
def test_a_wrong_command_line_is_one_short_line(arguments, said, capsys):
    assert main(arguments) == 2
    line = capsys.readouterr().err
    assert said in line
    assert line.startswith("cubecast: error: ")
    assert line.count("\n") == 1
    assert len(line) < 350


def test_no_command_at_all_says_which_there_are(capsys):
    assert main([]) == 2
    assert "forecast" in capsys.readouterr().err


def test_help_and_ok_give_code_0(capsys):
    assert main(["train", "--help"]) == 0
    assert "--history" in capsys.readouterr().out


def test_output_that_cannot_be_written_gives_code_4(radar, model, tmp_path, capsys):
    code, line = run(["forecast", radar, "--model", model, "-o", tmp_path / "no" / "n.nc"], capsys)
    assert code == 4, line
    (tmp_path / "file").write_text("")
    code, line = run(["verify", radar, "--model", model, "-o", tmp_path / "file"], capsys)
    assert code == 4, line


def test_static_fields_from_a_file(rain, radar, tmp_path):
    height = xr.Dataset({"height": (("y", "x"), np.linspace(0, 900, 24 * 28).reshape(24, 28))})
    height.to_netcdf(tmp_path / "height.nc")
    static = ["--static", str(tmp_path / "height.nc")]
    assert main(["train", str(radar), "-o", str(tmp_path / "m"), *SMALL, *static]) == 0
    assert main(["forecast", str(radar), "--model", str(tmp_path / "m"), "-o", str(tmp_path / "n.nc"), *static]) == 0
    assert main(["forecast", str(radar), "--model", str(tmp_path / "m"), "-o", str(tmp_path / "o.nc")]) == 3
