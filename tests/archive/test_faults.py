"""What happens to machines: a worker, the scheduler or the whole run is killed, and the archive still completes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import xarray as xr
from distributed import Client, LocalCluster

from cubecast.archive import run_archive
from cubecast.atomic import TEMPORARY
from cubecast.errors import FailedError
from cubecast.write import read_forecast, write_cube

FRAMES = 62
FORECASTS = FRAMES - 2


@pytest.fixture
def long(rain: Callable[..., xr.DataArray], tmp_path: Path) -> str:
    write_cube(rain(FRAMES), tmp_path / "long.nc")
    return str(tmp_path / "long.nc")


def at_first(act: Callable[[], None]) -> Callable[..., Iterator[Any]]:
    """A progress bar that acts when the first forecast is done."""

    def progress(items: Iterable[Any], description: str, total: int | None) -> Iterator[Any]:
        for number, item in enumerate(items):
            if description == "forecasting" and not number:
                act()
            yield item

    return progress


def whole(folder: Path) -> int:
    """How many forecasts are under their names, each of which is read."""
    paths = list(folder.glob("nowcast_*.nc"))
    for path in paths:
        assert read_forecast(path)["rainfall_rate"].notnull().all()
    return len(paths)


def test_a_killed_worker_is_replaced_and_the_run_completes(
    cluster: LocalCluster, long: str, model: Path, tmp_path: Path
) -> None:
    killed = []

    def kill() -> None:
        with Client(cluster, set_as_default=False) as client:
            address, pid = sorted(client.run(os.getpid).items())[0]
        os.kill(pid, signal.SIGKILL)
        killed.append(address)

    out = tmp_path / "out"
    found = run_archive([long], model, out, scheduler=cluster.scheduler_address, progress=at_first(kill))["forecasts"]
    assert killed
    # what was lost after it was written is found to be there
    assert (found["written"] + found["there"], found["failed"]) == (FORECASTS, 0)
    assert whole(out) == FORECASTS


def test_a_lost_scheduler_is_said_and_another_one_completes_the_run(
    cluster: LocalCluster, long: str, model: Path, tmp_path: Path
) -> None:
    out, place = tmp_path / "out", str(tmp_path / "scheduler.json")
    dask = [sys.executable, "-m", "dask"]
    common = ["--no-dashboard", "--scheduler-file", place]
    scheduler = subprocess.Popen([*dask, "scheduler", "--port", "0", *common], stderr=subprocess.DEVNULL)
    worker = subprocess.Popen([*dask, "worker", "--no-nanny", *common], stderr=subprocess.DEVNULL)
    try:
        wait(
            lambda: Path(place).is_file() and Path(place).read_text().rstrip().endswith("}")
        )  # it is written in pieces
        address = json.loads(Path(place).read_text())["address"]
        with pytest.raises(FailedError, match="the dask scheduler is lost: start it, and run the same command"):
            run_archive([long], model, out, scheduler=address, progress=at_first(scheduler.kill))
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.wait()
    report = json.loads((out / "report.json").read_text())
    assert report["state"] == "stopped"
    assert report["problem"].startswith("the dask scheduler is lost")
    made = whole(out)
    assert 0 < made < FORECASTS
    found = run_archive([long], model, out, scheduler=cluster.scheduler_address)["forecasts"]
    assert (found["written"], found["there"], found["failed"]) == (FORECASTS - made, made, 0)


def test_a_run_that_was_killed_is_completed_by_the_next(long: str, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["batch", long, "--model", str(model), "-o", str(out), "--workers", "1"]
    with subprocess.Popen([sys.executable, "-m", "cubecast", *words], stderr=subprocess.PIPE, text=True) as run:
        wait(lambda: len(list(out.glob("nowcast_*.nc"))) > 2)
        children = psutil.Process(run.pid).children(recursive=True)
        run.kill()
        assert not psutil.wait_procs(children, timeout=60)[1], "workers do not outlive the run"
        assert "dashboard: http://127.0.0.1:" in run.stderr.read()
    assert json.loads((out / "report.json").read_text())["state"] == "running"
    made = whole(out)
    assert made < FORECASTS
    (out / f"{TEMPORARY}{run.pid}-0.nc").write_bytes(b"half a forecast")  # whether the kill left one is chance
    done = subprocess.run([sys.executable, "-m", "cubecast", *words], capture_output=True, text=True, check=True)
    assert done.stdout == f"{FORECASTS - made} written, {made} there already, 0 failed\n"
    assert whole(out) == FORECASTS
    assert not list(out.glob(f"{TEMPORARY}*"))


def wait(until: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end
        time.sleep(0.02)
