"""Runs over an archive: one worker and two, side by side, and the memory of a worker by the length of the archive.

An archive of frames in files of their own is generated, and a small model trained on a part of it. Each round forecasts
after the same reference times with one worker and with two. Then a worker forecasts over the whole archive and over a
tenth of it; its peak memory is measured in its own process. The exit code is 1 when it grew by more than --allowed MB.

Run: python benchmarks/archive.py [--frames 400] [--size 256] [--forecasts 40] [--rounds 3] [--json archive.json]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from distributed import Client, LocalCluster
from timing import machine, ratio, resident, write

import cubecast
from cubecast.archive import run_archive
from cubecast.archive.running import THREADS
from cubecast.config import Config
from cubecast.nowcaster import Nowcaster
from cubecast.sources.synthetic import generate_rain


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


def run(folder: Path, workers: int, *, frames: int, every: int = 1) -> tuple[float, int, float]:
    """Seconds of a run over the first frames once the workers are there, its forecasts, and the memory of a worker.

    Memory is the peak of the worker that took most, in MB.
    """
    files = [str(path) for path in sorted((folder / "in").iterdir())[:frames]]
    with (
        LocalCluster(n_workers=workers, threads_per_worker=THREADS, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
        tempfile.TemporaryDirectory(dir=folder) as out,
    ):
        address = cluster.scheduler_address
        run_archive(files[:20], folder / "model", Path(out) / "first", scheduler=address)  # all is imported
        start = time.perf_counter()
        report = run_archive(files, folder / "model", Path(out) / "out", every=every, scheduler=address)
        seconds, count = time.perf_counter() - start, report["forecasts"]
        assert count["written"] == count["wanted"]
        return seconds, count["wanted"], max(client.run(resident, "VmHWM").values()) / 1024


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=400, help="in the archive")
    parser.add_argument("--size", type=int, default=256, help="side of a frame, in pixels")
    parser.add_argument("--forecasts", type=int, default=40, help="about so many are timed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--allowed", type=float, default=50.0, help="MB that a worker may grow for ten times the frames"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    load = os.getloadavg()
    seconds: dict[str, list[float]] = {"1 worker": [], "2 workers": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, options.frames, options.size)
        every = max(1, options.frames // options.forecasts)
        for number in range(options.rounds):
            for workers, each in zip((1, 2), seconds.values(), strict=True):
                took, count, _ = run(folder, workers, frames=options.frames, every=every)
                each.append(took)
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
        peaks = {frames: run(folder, 1, frames=frames)[2] for frames in (options.frames // 10, options.frames)}
    faster = ratio(seconds, "1 worker", "2 workers")
    rows = [["", "forecasts", "seconds: median (min to max)", "peak memory of a worker"]]
    for label, each in seconds.items():
        rows.append([label, f"{count}", f"{statistics.median(each):.1f} ({min(each):.1f} to {max(each):.1f})", ""])
    rows += [[f"1 worker, archive of {n} frames", "all", "", f"{mb:.0f} MB"] for n, mb in peaks.items()]
    results = {"machine": machine("cpu"), "load_before": load, "seconds": seconds, "faster": faster, "peak_MB": peaks}
    write(options.json, results, rows)
    print(f"\n2 workers against 1: {faster['median']:.2f} times ({faster['min']:.2f} to {faster['max']:.2f}), ", end="")
    print(f"load of the machine before: {load[0]:.1f}")
    short, whole = peaks.values()
    sys.exit(1 if whole - short > options.allowed else 0)


if __name__ == "__main__":
    main()
