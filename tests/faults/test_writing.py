"""kill -9 while forecasts are written: what has its final name is whole, and the next start goes on."""

import shutil
import time
from pathlib import Path

import numpy as np

from cubecast.baselines import persistence
from cubecast.write import read_forecast

# Writes one forecast after the other, each with a value of its own, as a run over an archive does: what is there is
# not made again.
WRITER = """
from cubecast.watch import Outbox
from cubecast.write import write_forecast
box = Outbox(folder)
with box.held():
    box.clean()
    for i in range(count):
        path = folder / f"{i:03d}{'.zarr' if i % 2 else '.nc'}"
        if not path.exists():
            write_forecast(forecast.assign(rainfall_rate=forecast.rainfall_rate * 0 + i), path)
"""
FILES = 6


def test_kill_while_writing(tally, launch, rain, memory_disk):
    fault = tally("kill -9 while forecasts are written", short=10, full=200)
    forecast = persistence(rain(6), reference=rain(6).time.values[[3, 5]], horizon=3)
    folder, rng, partial = memory_disk / "out", np.random.default_rng(0), 0
    folder.mkdir()

    def write(kill_after: float | None = None) -> float:
        begun, process = time.perf_counter(), launch(WRITER, forecast=forecast, folder=folder, count=FILES)
        process.join(kill_after)
        process.kill()
        process.join()
        assert process.exitcode == (0 if kill_after is None else process.exitcode)
        return time.perf_counter() - begun

    def restart(seed: object) -> None:
        """Everything is there after it, and nothing else."""
        write()
        found = sorted(p.name for p in folder.iterdir() if p.name != ".cubecast-watch.lock")
        if found != [f"{i:03d}{'.zarr' if i % 2 else '.nc'}" for i in range(FILES)]:
            fault.lost(seed, f"after a restart: {found}")
        check(fault, seed, folder)

    launch("").join()  # the process that all others are forked from takes its time to start
    seconds = write()
    for seed in fault:
        if seed % 4 == 0:
            restart(seed)
            shutil.rmtree(folder), folder.mkdir()
        write(kill_after=float(rng.uniform(0, seconds)))
        partial += any(folder.glob(".cubecast-tmp-*"))
        check(fault, seed, folder)
    restart("last")
    fault.note(f"{partial} kills left a temporary file or folder")
    assert partial, "no kill fell into a writing: nothing was tried"


def check(fault, seed: object, folder: Path) -> None:
    """Whatever has its final name is a whole forecast with one value throughout."""
    for path in folder.glob("[0-9]*"):
        try:
            values = read_forecast(path).rainfall_rate.values
        except Exception as error:
            fault.lost(seed, f"{path.name}: {error}")
            continue
        if values.size != 2 * 3 * 24 * 28 or not (values == int(path.stem)).all():
            fault.lost(seed, f"{path.name}: {values.shape}, values {np.unique(values)[:5]}")
