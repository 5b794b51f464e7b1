"""Seconds to draw and write maps: one field, a panel of six leads, and observed / forecast / difference, as PNG.

Run: python benchmarks/maps.py [--quick] [--json maps.json]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from timing import machine, rounds, write

import cubecast
from cubecast.baselines import persistence
from cubecast.maps import plot_comparison, plot_field, plot_leads, save_figure

SIDES = [128, 256, 512, 1024]


def runs(cube: xr.DataArray, folder: Path) -> dict[str, Callable[[], None]]:
    """Each draws and writes one picture."""
    forecast = persistence(cube, reference=cube.time.values[5], horizon=12)
    path = folder / "map.png"
    return {
        "field": lambda: save_figure(plot_field(cube[0]), path),
        "6 leads": lambda: save_figure(plot_leads(forecast), path),
        "comparison": lambda: save_figure(plot_comparison(forecast, cube), path),
    }


def on_degrees(cube: xr.DataArray) -> xr.DataArray:
    """The same values on a latitude/longitude grid of 0.01 degrees."""
    made = cube.drop_vars([n for n in cube.coords if n != "time"])
    lat = ("y", 50 + 0.01 * np.arange(cube.sizes["y"]), {"units": "degrees_north", "standard_name": "latitude"})
    lon = ("x", 5 + 0.01 * np.arange(cube.sizes["x"]), {"units": "degrees_east", "standard_name": "longitude"})
    made = made.assign_coords(y=lat, x=lon).rename(y="lat", x="lon")
    made.attrs.pop("grid_mapping", None)
    return made


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--quick", action="store_true", help="the two smallest grids")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    candidates = {}
    with tempfile.TemporaryDirectory() as folder:
        for side in SIDES[: 2 if options.quick else None]:
            cube = cubecast.generate_rain(frames=18, size=(side, side), seed=0)
            for grid, made in (("projected", cube), ("latitude/longitude", on_degrees(cube))):
                candidates |= {(grid, side, name): run for name, run in runs(made, Path(folder)).items()}
        seconds = rounds(candidates, count=options.rounds, clock=options.clock, device="cpu")
    rows = [["grid", "side", "picture", "seconds: median (min to max)"]]
    for (grid, side, name), each in seconds.items():
        rows.append([grid, str(side), name, f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})"])
    results: dict[str, Any] = {
        "machine": machine("cpu"),
        "seconds": {", ".join(map(str, k)): v for k, v in seconds.items()},
    }
    write(options.json, results, rows)


if __name__ == "__main__":
    main()
