"""Runs over an archive: one worker and two, side by side, and the memory of a worker by the length of the archive.

An archive of frames in files of their own is generated, and a small model trained on a part of it. Each round forecasts
after every frame of its beginning with one worker and with two; what the files take to open, before any worker has
something to do, is told apart. Beside it the same forecasts from memory, in one worker and in two at once: what the
cores of the machine give, without files and scheduler. Then a worker forecasts over a twentieth, a half and all of the
archive; its peak memory is measured in its own process. The exit code is 1 when it grew by more than --allowed MB from
a half to all.

Run: python benchmarks/archive.py [--frames 400] [--size 256] [--forecasts 60] [--rounds 3] [--json archive.json]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from timing import machine, ratio, resident, write

import cubecast
from cubecast.archive import run_archive
from cubecast.archive.running import local_cluster
from cubecast.config import Config
from cubecast.nowcaster import Nowcaster
from cubecast.sources.synthetic import generate_rain

EACH = 20
"""Forecasts from memory of each worker."""


def make(folder: Path, frames: int, size: int) -> None:
    """An archive of one file a frame, and a model."""
    cube = generate_rain(frames=120, size=(size, size), seed=1)
    settings = {"epochs": 1, "max_minutes": None, "crops_per_window": 1}
    Nowcaster(Config.preset("rain", **settings)).fit(cube[:60]).save(folder / "model")
    (folder / "in").mkdir()
    start = np.datetime64("2024-01-01", "ns")
    for i in range(frames):
        time_ = start + i * np.timedelta64(5, "m")
        cubecast.write_cube(cube[[i % len(cube)]].assign_coords(time=[time_]), folder / "in" / f"{i:06d}.nc")


class Opened:
    """A progress bar that notes when the first forecast is waited for."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self, items: Iterable[Any], description: str, total: int | None) -> Iterable[Any]:
        if description == "forecasting":
            self.at = time.perf_counter()
        return items


def from_memory(files: list[str], model: Path, count: int) -> float:
    """Seconds of so many forecasts of a history in memory, on one thread of a worker."""
    torch.set_num_threads(1)
    loaded = Nowcaster.load(model)
    cube = cubecast.open_cube(files[: loaded.config.task.history]).load()
    loaded.predict(cube)
    start = time.perf_counter()
    for _ in range(count):
        loaded.predict(cube)
    return time.perf_counter() - start


def archive_files(folder: Path) -> list[str]:
    """The files of the archive in their order."""
    return [str(path) for path in sorted((folder / "in").iterdir())]


class Found(NamedTuple):
    """Of a run: seconds to open the files and to forecast, forecasts, and peak memory of a worker in MB."""

    opening: float
    forecasting: float
    forecasts: int
    memory: float


def run(folder: Path, workers: int, *, frames: int) -> Found:
    """Forecast after each of the first frames."""
    files = archive_files(folder)[:frames]
    with local_cluster(workers) as client, tempfile.TemporaryDirectory(dir=folder) as out:
        address = client.scheduler_info()["address"]
        run_archive(files[:20], folder / "model", Path(out) / "first", scheduler=address)  # all is imported
        start, opened = time.perf_counter(), Opened()
        report = run_archive(files, folder / "model", Path(out) / "out", scheduler=address, progress=opened)
        end, count = time.perf_counter(), report["forecasts"]
        assert count["written"] == count["wanted"]
        memory = max(client.run(resident, "VmHWM").values()) / 1024
        return Found(opened.at - start, end - opened.at, count["wanted"], memory)


def run_from_memory(folder: Path, workers: int) -> float:
    """Seconds until all workers, at once, have forecast from memory, `EACH` of them."""
    with local_cluster(workers) as client:
        return max(client.run(from_memory, archive_files(folder), folder / "model", EACH).values())


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=400, help="in the archive")
    parser.add_argument("--size", type=int, default=256, help="side of a frame, in pixels")
    parser.add_argument("--forecasts", type=int, default=60, help="about so many are timed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--allowed", type=float, default=20.0, help="MB that a worker may grow from half of the frames to all"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    load = os.getloadavg()
    seconds: dict[str, list[float]] = {"1 worker": [], "2 workers": []}
    in_memory: dict[str, list[float]] = {f"{EACH} from memory": [], f"{EACH} from memory in each of two at once": []}
    opening: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, options.frames, options.size)
        for number in range(options.rounds):
            for workers, each, beside in zip((1, 2), seconds.values(), in_memory.values(), strict=True):
                found = run(folder, workers, frames=options.forecasts)
                each.append(found.forecasting)
                beside.append(run_from_memory(folder, workers))
                opening.append(found.opening)
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
        peaks = {
            n: run(folder, 1, frames=n).memory for n in (options.frames // 20, options.frames // 2, options.frames)
        }
    faster, cores = ratio(seconds, "1 worker", "2 workers"), ratio(in_memory, *in_memory)
    rows = [["", "forecasts", "seconds: median (min to max)", "peak memory of a worker"]]
    for label, each in (seconds | in_memory).items():
        count = EACH if label in in_memory else found.forecasts
        rows.append([label, f"{count}", f"{statistics.median(each):.1f} ({min(each):.1f} to {max(each):.1f})", ""])
    rows.append([f"before: {options.forecasts} files are opened", "", f"{statistics.median(opening):.1f}", ""])
    rows += [[f"1 worker, archive of {n} frames", "all", "", f"{mb:.0f} MB"] for n, mb in peaks.items()]
    results = {"machine": machine("cpu"), "load_before": load, "seconds": seconds, "opening": opening}
    results |= {"from_memory": in_memory, "faster": faster, "cores": cores, "peak_MB": peaks}
    write(options.json, results, rows)
    print(f"\n2 workers against 1: {faster['median']:.2f} times ({faster['min']:.2f} to {faster['max']:.2f}), ", end="")
    print(f"from memory {2 * cores['median']:.2f} ({2 * cores['min']:.2f} to {2 * cores['max']:.2f}); ", end="")
    print(f"load of the machine before: {load[0]:.1f}")
    _, half, whole = peaks.values()
    sys.exit(1 if whole - half > options.allowed else 0)


if __name__ == "__main__":
    main()
