"""The loader beside xbatcher + DataLoader, plain ``.isel().load()`` per sample, and mlcast's data set.

Samples a second of random rainy crops of 24 x 128 x 128 from a radar archive, batches of 4, one process; then peak
memory on it and on one ten times longer, and the share of training spent waiting for data. A round of ours is a whole
epoch, with all that it takes to start it; one of the others is ``--samples`` samples.
Run: python benchmarks/loader.py FOLDER [--quick] [--json loader.json]    (5 GB in FOLDER; radar_archive.py makes them)
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import importlib.util
import itertools
import json
import os
import statistics
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import radar_archive
import timing
import torch
import xarray as xr

import cubecast
from cubecast.ahead import read_ahead
from cubecast.batches import Batches
from cubecast.channels import Channels
from cubecast.config import DataConfig, ScalingConfig, TaskConfig
from cubecast.epoch import Epoch
from cubecast.windows import find_windows

HISTORY, HORIZON, CROP, BATCH = 6, 18, 128, 4
SETTINGS = {"everywhere": {"stride": 1, "crops_per_window": 6}, "few": {"stride": 24, "crops_per_window": 6}}
"""Six crops are the preset of rain. few: windows do not overlap, and it rains on the area of nine crops."""
GRID = {"time": 7, "y": 32, "x": 32}
"""Steps of xbatcher's patches: fine enough that these, too, lie anywhere on the chunks."""


def batches(path: Path, rain: str) -> Batches:
    """Our loader."""
    cube = cubecast.open_cube(path)
    channels = Channels.fit([cube[:24]], outputs=None, scaling=ScalingConfig(), mask_channel=True)
    data = DataConfig(crop=CROP, batch_size=BATCH, wet_bias=1.0, **SETTINGS[rain])
    windows = find_windows(cube, length=HISTORY + HORIZON, stride=data.stride)
    task = TaskConfig(history=HISTORY, horizon=HORIZON)
    return Batches([cube], windows, channels, task=task, data=data, static=[None], wet_bias=1.0, seed=0, train=True)


def boxes(loader: Batches, count: int) -> list[tuple[int, int, int]]:
    """Corners (time, y, x) of random samples of the same kind."""
    source, rng = loader._samples, np.random.default_rng(1)
    drawn = (source.draw(int(i), 999)[0].window for i in rng.integers(len(source.windows), size=count))
    return [(w.start, w.y or 0, w.x or 0) for w in drawn]


def lazy(path: Path, *, dask: bool) -> xr.DataArray:
    """The archive as xarray opens it: decoded to float32."""
    chunks: dict[str, Any] = {"chunks": {} if dask else None, "mask_and_scale": False}
    ds = xr.open_zarr(path, consolidated=False, **chunks) if path.suffix == ".zarr" else xr.open_dataset(path, **chunks)
    ds["rain"].attrs["scale_factor"] = np.float32(ds["rain"].attrs["scale_factor"])  # a Zarr attribute has no type
    return xr.decode_cf(ds)["rain"]


def candidates(path: Path, rain: str, count: int) -> dict[str, Callable[[], int]]:
    """What is timed: each gives the number of samples that it made."""
    loader = batches(path, rain)
    epochs = itertools.count()
    corners = itertools.cycle(boxes(loader, 5000))

    def ours() -> int:
        return sum(len(b.inputs) for b in loader.epoch(next(epochs)))

    def packed() -> int:
        return sum(len(b.values) for b in read_ahead(Epoch(loader._samples, next(epochs)).packed(), 2))

    def plain() -> int:
        for _ in range(count):
            t, y, x = next(corners)
            values = opened.isel(time=slice(t, t + 24), y=slice(y, y + CROP), x=slice(x, x + CROP)).load()
            torch.from_numpy(values.values)
        return count

    opened = lazy(path, dask=False)
    found = {"ours": ours, "ours, packed": packed, "isel().load()": plain}
    for name, make in (("xbatcher", _xbatcher), ("mlcast", _mlcast)):
        try:
            found[name] = make(path, corners, count)
        except (ImportError, ValueError, OSError) as error:
            print(f"{name} left out: {error}", file=sys.stderr)
    return found


def _xbatcher(path: Path, corners: Iterator[tuple[int, int, int]], count: int) -> Callable[[], int]:
    from torch.utils.data import DataLoader
    from xbatcher import BatchGenerator
    from xbatcher.loaders.torch import MapDataset

    cube = lazy(path, dask=True)
    size = {"time": HISTORY + HORIZON, "y": CROP, "x": CROP}
    made = BatchGenerator(cube, input_dims=size, input_overlap={d: size[d] - GRID[d] for d in size})
    number = {d: (cube.sizes[d] - size[d]) // GRID[d] + 1 for d in size}

    def index(corner: tuple[int, int, int]) -> int:
        place = [min(c // GRID[d], number[d] - 1) for d, c in zip(size, corner, strict=True)]
        return int(np.ravel_multi_index(place, list(number.values())))

    def run() -> int:
        chosen = [index(next(corners)) for _ in range(count)]
        return sum(len(batch) for batch in DataLoader(MapDataset(made), batch_size=BATCH, sampler=chosen))

    return run


def _mlcast(path: Path, corners: Iterator[tuple[int, int, int]], count: int) -> Callable[[], int]:
    from torch.utils.data import DataLoader

    if path.suffix != ".zarr":
        raise ValueError("it reads Zarr only")
    spec = importlib.util.find_spec("mlcast")
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError("not installed (pip install --no-deps mlcast)")
    package = types.ModuleType("mlcast.data")  # its own __init__ needs Lightning, the data set does not
    package.__path__ = [str(Path(p) / "data") for p in spec.submodule_search_locations]
    sys.modules.setdefault("mlcast.data", package)
    from mlcast.data.source_data_datasets import SourceDataPrecomputedSamplingDataset

    table = path.with_suffix(".csv")
    table.write_text("t,x,y\n" + "".join(f"{t},{x},{y}\n" for t, y, x in itertools.islice(corners, 5000)))
    data = SourceDataPrecomputedSamplingDataset(
        str(path), str(table), ["rainfall_rate"], HISTORY, HORIZON, return_mask=True, width=CROP, height=CROP
    )
    order = itertools.cycle(np.random.default_rng(2).permutation(len(data)).tolist())

    def run() -> int:
        chosen = list(itertools.islice(order, count))
        return sum(len(batch["input"]) for batch in DataLoader(data, batch_size=BATCH, sampler=chosen))

    return run


def longer(path: Path, times: int) -> Path:
    """A Zarr archive ``times`` as long, whose chunks are links to those of ``path``."""
    new = path.with_name(f"{times}-times-{path.name}")
    rows = len(list((path / "rain" / "c").iterdir())) - 1  # without the last one, which may be short
    if not new.exists():
        (new / "rain" / "c").mkdir(parents=True)
        for row in range(rows * times):
            os.symlink((path / "rain" / "c" / str(row % rows)).resolve(), new / "rain" / "c" / str(row))
        described = json.loads((path / "rain" / "zarr.json").read_text())
        described["shape"][0] = frames = rows * times * radar_archive.CHUNKS[0]
        (new / "rain" / "zarr.json").write_text(json.dumps(described))
        (new / "zarr.json").write_text((path / "zarr.json").read_text())
        time = xr.Dataset(coords={"time": ("time", np.arange(frames) * 5.0, radar_archive.TIME)})
        space = xr.open_zarr(path, consolidated=False, decode_times=False)[["y", "x"]]
        time.merge(space.drop_vars("time", errors="ignore")).drop_encoding().to_zarr(
            new, mode="a", zarr_format=3, consolidated=False
        )
    return new


def memory(path: Path, samples: int) -> None:
    """Print the peak resident memory in MB of making ``samples`` samples."""
    loader = batches(path, "everywhere")
    done = 0
    for batch in loader.epoch(0):
        done += len(batch.inputs)
        if done >= samples:
            break
    print(timing.resident("VmHWM") / 1024)


def waiting(path: Path) -> None:
    """Print the share of training time that a small network waits for data, in each of a few epochs."""
    model = cubecast.Nowcaster(
        history=HISTORY, horizon=HORIZON, crop=CROP, stride=4, crops_per_window=2, hidden_channels=[8, 8], epochs=3,
        flips=True,
    )  # fmt: skip
    model.fit(cubecast.open_cube(path))
    print(json.dumps([{k: r[k] for k in ("waiting_share", "samples_per_second")} for r in model.log]))


def child(*arguments: object) -> Any:
    """What this script prints for other arguments, in a process of its own."""
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def _count(made: dict[str, int], name: str, function: Callable[[], int]) -> None:
    made[name] = function()


def measure(options: argparse.Namespace) -> tuple[dict[str, Any], list[list[str]]]:
    """Results, and the rows of the table."""
    results: dict[str, Any] = {"machine": timing.machine("cpu"), "samples_per_second": {}}
    versions = {n: importlib.metadata.version(n) for n in ("xarray", "zarr", "netCDF4", "dask", "numpy")}
    results["machine"]["versions"] = versions
    rows = [["rain", "format", "loader", "samples/s: median (min to max)", "ours against it", "packed against it"]]
    for rain, kind in itertools.product(options.rain, options.format):
        path = radar_archive.archive(options.folder, rain, kind, frames=options.frames, size=896)
        found = candidates(path, rain, options.samples)
        made = dict.fromkeys(found, 0)
        counted = {name: functools.partial(_count, made, name, function) for name, function in found.items()}
        seconds = timing.rounds(counted, count=options.rounds, clock="wall", device="cpu")
        each = {n: [s / made[n] for s in taken] for n, taken in seconds.items()}
        results["samples_per_second"][f"{rain}, {kind}"] = {n: [1 / s for s in v] for n, v in each.items()}
        for name, values in each.items():
            text = f"{1 / statistics.median(values):.0f} ({1 / max(values):.0f} to {1 / min(values):.0f})"
            against = [timing.ratio(each, name, ours) for ours in ("ours", "ours, packed")]
            rows.append(
                [rain, kind, name, text, *(f"{a['median']:.1f} ({a['min']:.1f} to {a['max']:.1f})" for a in against)]
            )
        print(rows[-len(each) :], file=sys.stderr, flush=True)
    return results, rows


def main() -> None:
    """Measure everything, or one part of it in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=48)
    parser.add_argument("--rain", nargs="*", default=list(radar_archive.RAINS))
    parser.add_argument("--format", nargs="*", default=list(radar_archive.FORMATS))
    parser.add_argument("--quick", action="store_true", help="300 frames, few samples: does everything run?")
    parser.add_argument("--no-extra", action="store_true", help="samples per second alone")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=["memory", "waiting"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only == "memory":
        memory(options.folder, options.samples)
        return
    if options.only == "waiting":
        waiting(options.folder)
        return
    if options.quick:
        options.frames, options.samples = 300, 8
    options.folder.mkdir(parents=True, exist_ok=True)
    results, rows = measure(options)
    if options.no_extra:
        timing.write(options.json, results, rows)
        return
    path = radar_archive.archive(options.folder, "everywhere", "zarr", frames=options.frames, size=896)
    peaks = [child(p, "--only", "memory", "--samples", 40 if options.quick else 6000) for p in (path, longer(path, 10))]
    results["peak_memory_mb"] = peaks
    results["waiting"] = child(path, "--only", "waiting")
    timing.write(options.json, results, rows)
    print(f"\nPeak resident memory: {peaks[0]:.0f} MB; with an archive ten times longer {peaks[1]:.0f} MB.")
    print("Share of training spent waiting for data:", [round(r["waiting_share"], 4) for r in results["waiting"]])


if __name__ == "__main__":
    main()
