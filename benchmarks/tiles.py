"""Forecasts in tiles: how far they are from the whole by the width of the halo, and what a large grid takes.

A shipped model forecasts generated rain whole and in tiles of 128 pixels; the rounding of bf16 is measured beside it,
as the difference of the whole in bf16 and in fp32. Then a process of its own forecasts a large grid into a file. The
exit code is 1 when the fp32 error with the halo of forecasts, or a wider one, is above --allowed, or the process took
more memory than it was given.

Run: python benchmarks/tiles.py [--model radar-5min] [--members 2] [--size 512] [--grid 3500 7000] [--memory 2GB]
     [--no-halos] [--no-large] [--json tiles.json]
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.utils import parse_bytes
from timing import machine, resident, write

import cubecast
from cubecast.forecast import Run, run_whole
from cubecast.nn.parts import Parts, near
from cubecast.nowcaster import Nowcaster
from cubecast.sources.synthetic import generate_rain
from cubecast.tiling import Tiling, run_tiled

HALOS = [0, 32, 64, 96, 128, 160, 192, 256]
SIDE = 128


def forecast_whole(run: Run) -> np.ndarray:
    """After the last frame, on the whole grid at once."""
    return run_whole(run, [run.history - 1], attrs={})["rainfall_rate"].values


def compare(one: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """The largest and root mean square difference."""
    difference = np.abs(one - other).astype(np.float64)
    return {"largest": float(difference.max()), "rms": float(np.sqrt(np.mean(difference**2)))}


def by_halo(run: Run, halos: list[int]) -> list[dict[str, float]]:
    """The difference to the whole forecast for each halo and for that of forecasts; the receptive field comes last."""
    whole, found = forecast_whole(run), []
    field = Parts(run.network, run.size, history=run.history, horizon=run.horizon).halo
    for halo in sorted({h for h in halos if h < field} | {near(field), field}):
        tiling = Tiling(SIDE, math.prod(run.size), lazy=False, halo=halo)
        start = time.perf_counter()
        tiled = run_tiled(run, [run.history - 1], tiling, attrs={})["rainfall_rate"].values
        found.append({"halo": halo, **compare(tiled, whole), "seconds": time.perf_counter() - start})
        print(f"halo {halo}: {found[-1]['largest']:.3g} mm/h", file=sys.stderr, flush=True)
    return found


def write_large(path: Path, grid: tuple[int, int], frames: int) -> None:
    """Generated rain, mirrored until it fills the grid; lazily, so that any grid can be written."""
    small = generate_rain(frames=frames, size=(512, 512), seed=3, wet_fraction=0.3)
    block = da.from_array(small.values, chunks=(1, -1, -1))
    both = da.concatenate([block, block[:, ::-1]], axis=1)
    block = da.concatenate([both, both[:, :, ::-1]], axis=2)
    repeats = (1, -(-grid[0] // block.shape[1]), -(-grid[1] // block.shape[2]))
    values = da.tile(block, repeats)[:, : grid[0], : grid[1]]
    space = {d: (d, 1000.0 * np.arange(n), {"units": "m"}) for d, n in zip("yx", grid, strict=True)}
    cube = xr.DataArray(
        values, dims=small.dims, coords={"time": small.time, **space}, attrs=small.attrs, name=small.name
    )
    cubecast.write_cube(cube, path)


def forecast_large(folder: Path, options: argparse.Namespace) -> None:
    """Forecast in this process; prints its peak memory."""
    start = time.perf_counter()
    model = Nowcaster.load(options.model)
    cube = cubecast.open_cube(folder / "in.nc")
    forecast = model.predict(cube, memory=options.memory, members=options.members)
    lazy = forecast.chunks.get("y")
    cubecast.write_forecast(forecast, folder / "out.nc")
    found = {"peak_MB": resident("VmHWM") / 1024, "seconds": time.perf_counter() - start}
    print(json.dumps(found | {"side": max(lazy) if lazy else None, "leads": forecast.sizes["lead_time"]}))


def large(history: int, options: argparse.Namespace) -> dict[str, Any]:
    """A large grid, in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_large(folder / "in.nc", tuple(options.grid), history)
        command = [sys.executable, __file__, "--folder", str(folder), "--memory", options.memory]
        command += ["--model", options.model] + (["--members", str(options.members)] if options.members else [])
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        whole = cubecast.read_forecast(folder / "out.nc")["rainfall_rate"]
        for row in range(0, whole.sizes["y"], 500):
            assert np.isfinite(whole.isel(lead_time=-1, y=slice(row, row + 500)).values).all()
        return json.loads(done.stdout) | {"file_MB": (folder / "out.nc").stat().st_size / 1e6}


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="radar-5min", help="shipped, or the folder of a saved one")
    parser.add_argument("--members", type=int, help="of an ensemble; none: the mean")
    parser.add_argument("--size", type=int, default=512, help="of the field that is forecast whole and in tiles")
    parser.add_argument("--horizon", type=int, default=12)
    parser.add_argument("--grid", type=int, nargs=2, default=[3500, 7000], help="of the large one")
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--allowed", type=float, default=0.01, help="mm/h: what radar composites are packed to")
    parser.add_argument("--quick", action="store_true", help="small sizes: does everything run?")
    parser.add_argument("--no-halos", action="store_true", help="only that of forecasts and the receptive field")
    parser.add_argument("--no-large", action="store_true", help="leave out the large grid")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.folder:
        forecast_large(options.folder, options)
        return
    if options.quick:
        options.size, options.grid, options.memory = 256, [700, 900], "1GB"
    model = Nowcaster.load(options.model)
    size, history = (options.size, options.size), model.config.task.history
    cube = generate_rain(frames=history, size=size, seed=7, wet_fraction=0.4)
    ask = {"horizon": options.horizon, "members": options.members}
    exact, rounded = (model._run(cube, precision=p, **ask) for p in ("fp32", "bf16"))
    found = {"fp32": by_halo(exact, [] if options.no_halos else HALOS), "bf16": by_halo(rounded, [])}
    rounding = compare(forecast_whole(rounded), forecast_whole(exact))
    rows = [["precision", "halo (pixels)", "largest difference (mm/h)", "root mean square (mm/h)", "seconds"]]
    for precision, halos in found.items():
        for one in halos:
            numbers = [f"{one['halo']:.0f}", f"{one['largest']:.2g}", f"{one['rms']:.2g}", f"{one['seconds']:.1f}"]
            rows.append([precision, *numbers])
    rows.append(["bf16 to fp32", "whole", f"{rounding['largest']:.2g}", f"{rounding['rms']:.2g}", ""])
    of_large = None if options.no_large else large(history, options)
    results = {"machine": machine("cpu"), "halos": found, "rounding": rounding, "large": of_large}
    write(options.json, results, rows)
    enough = near(int(found["fp32"][-1]["halo"]))
    wrong = any(one["largest"] > options.allowed for one in found["fp32"] if one["halo"] >= enough)
    if of_large is not None:
        print(f"\ngrid {options.grid}, memory {options.memory}: {of_large}")
        wrong = wrong or of_large["peak_MB"] * 2**20 > parse_bytes(options.memory)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
