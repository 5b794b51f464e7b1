"""The command in a process of its own: signals, the lock, cron, and one clear line for what cannot be."""

import json
import shutil
import signal
import subprocess
import sys
import time

import netCDF4
import pytest

from cubecast.__main__ import main
from cubecast.write import read_forecast

COMMAND = [sys.executable, "-m", "cubecast", "watch"]


def arguments(site, watch_model, *more):
    return [str(site.frames), "--model", str(watch_model), "-o", str(site.out), "--stale", "inf", *more]


def start(site, watch_model, *more):
    command = [*COMMAND, *arguments(site, watch_model, "--poll", "0.1", *more)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition, process, seconds=180.0):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_a_watch_lives_until_sigterm_and_leaves_whole_files(site, watch_model, capsys):
    site.put(0, 1, 2)
    process = start(site, watch_model)
    try:
        wait_for((site.out / "nowcast_20200601T001000.nc").exists, process)
        site.put(3)
        wait_for((site.out / "nowcast_20200601T001500.nc").exists, process)
        assert main(["watch", *arguments(site, watch_model)]) == 4
        second = capsys.readouterr().err
        assert f"another watcher at work there (process {process.pid})" in second
        assert second.count("\n") == 1
        assert site.status()["state"] == "watching"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert [line[-26:] for line in out.splitlines()] == ["nowcast_20200601T001000.nc", "nowcast_20200601T001500.nc"]
    assert "Traceback" not in err
    assert site.status()["state"] == "stopped"
    assert site.status()["pid"] == process.pid
    assert not list(site.out.rglob(".cubecast-tmp-*"))


def test_killed_started_again_and_stopped_in_the_middle_of_a_backlog_it_completes_at_last(site, watch_model):
    site.put(*range(12))
    for n in range(12, 40):  # enough work for the signals to come in the middle of it
        shutil.copy(site.path(11), site.path(n))
        with netCDF4.Dataset(site.path(n), "a") as file:
            file["time"][:] = file["time"][:] + (n - 11) * (300 if "seconds" in file["time"].units else 5)
    before = 0
    for kind in (signal.SIGKILL, signal.SIGINT):
        process = start(site, watch_model)
        try:
            wait_for(lambda: len(list(site.out.glob("nowcast_*.nc"))) > before + 2, process)  # noqa: B023
            process.send_signal(kind)
            _, err = process.communicate(timeout=120)
        finally:
            process.kill()
        before = len(list(site.out.glob("nowcast_*.nc")))
        assert before < 38
        assert all(f.sizes["lead_time"] == 2 for f in map(read_forecast, site.out.glob("nowcast_*.nc")))
    assert process.returncode == 0, err
    assert site.status()["state"] == "stopped"
    assert main(["watch", *arguments(site, watch_model, "--poll", "0.1", "--once")]) == 0
    assert site.made() == list(range(2, 40))
    assert not list(site.out.rglob(".cubecast-tmp-*"))
    assert site.status()["state"] == "ended"


def test_once_does_what_is_there_and_says_where(site, watch_model, capsys):
    site.put(0, 1, 2, 4)
    command = ["watch", *arguments(site, watch_model, "--poll", "0.1", "--once", "--horizon", "4")]
    assert main(command) == 0
    out = capsys.readouterr().out.split()
    assert out == [str(site.out / f"nowcast_20200601T00{m}00.nc") for m in (10, 20)]  # nothing is waited for
    assert site.forecast(4).sizes["lead_time"] == 4
    assert site.forecast(4).attrs["filled_frames"] == "2020-06-01T00:15:00Z"
    assert main(command) == 0
    assert capsys.readouterr().out == ""


def test_once_fails_when_a_due_forecast_failed(site, watch_model, capsys):
    site.put(0, 1, 2)
    (site.out / "nowcast_20200601T001000.nc").mkdir(parents=True)
    assert main(["watch", *arguments(site, watch_model, "--poll", "0.1", "--once")]) == 1
    error = capsys.readouterr().err.splitlines()
    assert error[-1].startswith("cubecast: error: 1 forecasts failed")
    assert site.status()["forecasts"]["failed_reasons"] == {"output": 1}


def test_what_is_stale_makes_no_forecast_by_default(site, watch_model):
    site.put(0, 1, 2)
    command = [str(site.frames), "--model", str(watch_model), "-o", str(site.out), "--poll", "0.1", "--once"]
    assert main(["watch", *command]) == 0  # frames of 2020
    assert site.made() == []
    assert json.loads((site.out / "status.json").read_text())["forecasts"]["skipped_reasons"] == {"stale": 3}


@pytest.mark.parametrize(
    ("more", "code"),
    [(["--poll", "0"], 2), (["--fill", "-1"], 2), (["--keep", "0"], 2), (["--deadline", "-3"], 2)],
)
def test_wrong_options_are_one_line(site, watch_model, more, code, capsys):
    assert main(["watch", *arguments(site, watch_model, "--once", *more)]) == code
    error = capsys.readouterr().err
    assert error.startswith("cubecast: error: ")
    assert error.count("\n") == 1
    assert not site.out.exists()


def test_a_folder_or_a_model_that_is_not_there_is_an_input_error(site, watch_model, capsys):
    base = ["-o", str(site.out), "--once"]
    assert main(["watch", str(site.frames / "none"), "--model", str(watch_model), *base]) == 3
    assert main(["watch", str(site.frames), "--model", str(site.frames), *base]) == 3
    assert capsys.readouterr().err.count("\n") == 2
    assert not site.out.exists()


def test_an_output_folder_that_cannot_be_made_is_an_output_error(site, watch_model, capsys):
    site.out.write_text("a file")
    assert main(["watch", *arguments(site, watch_model, "--once")]) == 4
    command = ["watch", str(site.frames), "--model", str(watch_model), "-o", str(site.out / "below"), "--once"]
    assert main(command) == 4
    assert capsys.readouterr().err.count("\n") == 2
