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
STARTED = 60.0
"""Seconds that a writer may take to begin: the machine may be busy."""


def test_kill_while_writing(tally, launch, rain, memory_disk):
    """A kill comes a random while after a random one of the files is there: by what the writer does, not by a clock."""
    fault = tally("kill -9 while forecasts are written", short=10, full=200)
    forecast = persistence(rain(6), reference=rain(6).time.values[[3, 5]], horizon=3)
    folder, rng, inside, partial = memory_disk / "out", np.random.default_rng(0), 0, 0
    folder.mkdir()

    def start():
        return launch(WRITER, forecast=forecast, folder=folder, count=FILES)

    def restart(seed: object) -> None:
        """Everything is there after it, and nothing else."""
        process = start()
        process.join()
        assert process.exitcode == 0
        found = sorted(p.name for p in folder.iterdir() if p.name != ".cubecast-watch.lock")
        if found != [f"{i:03d}{'.zarr' if i % 2 else '.nc'}" for i in range(FILES)]:
            fault.lost(seed, f"after a restart: {found}")
        check(fault, seed, folder)

    def kill(process, before: set[str], wanted: int, wait: float) -> None:
        wait_for(process, lambda: names(folder) - before and finished(folder) >= wanted)
        time.sleep(wait)
        process.kill()
        process.join()

    each = seconds_a_file(start, folder)
    for seed in fault:
        if seed % 4 == 0 or finished(folder) == FILES:
            restart(seed)
            shutil.rmtree(folder), folder.mkdir()
        before, wanted = names(folder), int(rng.integers(finished(folder), FILES))
        kill(start(), before, wanted, float(rng.uniform(0, each)))
        inside += finished(folder) < FILES
        partial += any(folder.glob(".cubecast-tmp-*"))
        check(fault, seed, folder)
    restart("last")
    fault.note(f"{inside} kills came before all was written, {partial} left a temporary file or folder")
    assert inside > fault.tries / 2, "the kills came too late: too little was tried"
    assert partial, "no kill fell into a writing: nothing was tried"


def seconds_a_file(start, folder: Path) -> float:
    """How long one takes, from the first sign of writing on."""
    process = start()
    wait_for(process, lambda: names(folder))
    begun = time.perf_counter()
    process.join()
    assert process.exitcode == 0
    return (time.perf_counter() - begun) / FILES


def wait_for(process, until) -> None:
    """Until something is so, or the process has ended."""
    end = time.monotonic() + STARTED
    while not until() and process.exitcode is None:
        assert time.monotonic() < end, "it does not begin"
        time.sleep(0.0005)


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()} - {".cubecast-watch.lock"}


def finished(folder: Path) -> int:
    """How many have their final names."""
    return len(list(folder.glob("[0-9]*")))


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
