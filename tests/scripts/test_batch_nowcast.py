"""The batch script on a real model: one file a time, what is there is skipped, a bad time does not stop the rest."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import xarray as xr

import cubecast
from cubecast.errors import InputError, UsageError

SCRIPT = Path(__file__).parents[2] / "scripts" / "batch_nowcast.py"


@pytest.fixture(scope="module")
def model(rain: Callable[..., xr.DataArray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    small = {"history": 3, "horizon": 2, "epochs": 1, "hidden_channels": [4], "patch": 4, "crop": None}
    folder = tmp_path_factory.mktemp("model")
    return cubecast.Nowcaster(**small).fit(rain(40)).save(folder)


@pytest.fixture
def archive(rain: Callable[..., xr.DataArray], tmp_path: Path) -> Path:
    """Ten frames at 00:00, 00:05, ..., of which the one at 00:20 is missing."""
    path = tmp_path / "radar.nc"
    cubecast.write_cube(rain(10, missing=[4]), path)
    return path


def times(folder: Path) -> list[str]:
    return sorted(p.name.removeprefix("nowcast_20200601T").removesuffix("00.nc") for p in folder.glob("*.nc"))


def test_one_file_for_each_time_that_has_its_history(
    script: ModuleType, model: Path, archive: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert script.batch([str(archive)], model, out) == (5, 0, [])
    assert times(out) == ["0010", "0015", "0035", "0040", "0045"]
    result = cubecast.read_forecast(out / "nowcast_20200601T003500.nc")
    assert result.sizes["lead_time"] == 2
    assert result["forecast_reference_time"].values == np.array(["2020-06-01T00:35"], "datetime64[ns]")
    whole = cubecast.Nowcaster.load(model).predict(cubecast.open_cube(archive), at="2020-06-01T00:35")
    np.testing.assert_array_equal(result["rainfall_rate"].values, whole["rainfall_rate"].values)


def test_start_end_and_every_choose_times_and_history_may_begin_before(
    script: ModuleType, model: Path, archive: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    script.batch([str(archive)], model, out, start="2020-06-01T00:15", end="2020-06-01T00:40", every=2)
    assert times(out) == ["0015", "0040"]


def test_a_second_run_writes_only_what_is_missing(
    script: ModuleType, model: Path, archive: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    script.batch([str(archive)], model, out)
    (out / "nowcast_20200601T001500.nc").unlink()
    kept = (out / "nowcast_20200601T001000.nc").stat()
    assert script.batch([str(archive)], model, out) == (1, 4, [])
    assert (out / "nowcast_20200601T001000.nc").stat().st_mtime_ns == kept.st_mtime_ns


def test_a_bad_time_is_listed_and_the_rest_is_made(
    script: ModuleType,
    rain: Callable[..., xr.DataArray],
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cube = rain(10)
    cube[:3] = np.nan
    path, out = tmp_path / "radar.nc", tmp_path / "out"
    cubecast.write_cube(cube, path)
    with pytest.raises(SystemExit) as end:
        script.main([str(path)], model, out)
    assert end.value.code == 1
    printed = capsys.readouterr()
    assert printed.out == "7 written, 0 there already, 1 failed\n"
    assert printed.err.startswith("failed:\nnowcast_20200601T001000.nc: ")
    assert printed.err.count("\n") == 2
    assert len(times(out)) == 7


def test_maps_are_drawn_of_new_forecasts_when_asked_for(
    script: ModuleType, model: Path, archive: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    script.batch([str(archive)], model, out, end="2020-06-01T00:10", maps=True)
    assert times(out) == ["0010"]
    assert len(list((out / "maps" / "nowcast_20200601T001000").glob("*.png"))) >= 2


def test_nothing_to_do_is_an_error(script: ModuleType, model: Path, archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="no time with a history of 3 frames: found 9 frames"):
        script.batch([str(archive)], model, out, start="2021-01-01")
    with pytest.raises(UsageError, match="--start"):
        script.batch([str(archive)], model, out, start="soon")
    with pytest.raises(InputError):
        script.batch([str(tmp_path / "nowhere.nc")], model, out)
    assert not out.exists()


def test_from_a_shell_a_wrong_input_is_one_line_and_the_exit_code_of_the_command(model: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), str(tmp_path / "no.nc"), "--model", str(model), "-o", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 3
    assert done.stderr.startswith("batch_nowcast: error: ")
    assert done.stderr.count("\n") == 1
