"""A radar archive for the loader's benchmark: rain rates packed in int16, chunks of 12 x 256 x 256, in two formats.

A few generated frames are moved, turned and scaled, so that gigabytes are made in a minute. ``everywhere``: it rains in
about half of all pixels; ``few``: in one square of 384 pixels that wanders over the field.
Run: python benchmarks/radar_archive.py FOLDER --frames 2000
"""

from __future__ import annotations

import argparse
from pathlib import Path

import netCDF4
import numpy as np
import xarray as xr
import zarr

import cubecast

CHUNKS = (12, 256, 256)
GAIN, MISSING = 1 / 128, -1
RAINS = ("everywhere", "few")
FORMATS = {"zarr": "zarr", "netcdf": "nc"}
PATCH = 384


def archive(folder: Path, rain: str, kind: str, *, frames: int, size: int) -> Path:
    """The archive of a kind of rain and a format in ``folder``; written when it is not there."""
    path = folder / f"{rain}-{frames}x{size}.{FORMATS[kind]}"
    if not path.exists():
        temporary = path.with_name("unfinished-" + path.name)
        (_write_zarr if kind == "zarr" else _write_netcdf)(temporary, rain, frames, size)
        temporary.rename(path)
    return path


def _frames(rain: str, frames: int, size: int):
    """Stored numbers, twelve frames at a time: (first frame, values)."""
    base = cubecast.generate_rain(frames=24, size=(size // 2, size // 2), wet_fraction=0.55, seed=3).values
    base = np.clip(base / GAIN, 0, 32000)
    rng = np.random.default_rng(0)
    tiles = [np.concatenate([np.concatenate([b, b[:, ::-1]], 1), np.concatenate([b[::-1], b.T], 1)], 0) for b in base]
    for first in range(0, frames, CHUNKS[0]):
        block = np.empty((min(CHUNKS[0], frames - first), size, size), np.int16)
        for i in range(len(block)):
            t = first + i
            tile = tiles[23 - t % 24 if t // 24 % 2 else t % 24]
            block[i] = np.roll(tile, (3 * t, 5 * t), (0, 1)) * (0.6 + 0.4 * np.sin(t / 40))
        block[:, :4, :4] = MISSING
        if rain == "few":
            y, x = (int((size - PATCH) * (0.5 + 0.5 * np.sin(first / p))) for p in (97, 61))
            kept = block[:, y : y + PATCH, x : x + PATCH].copy()
            block[:] = 0
            block[:, y : y + PATCH, x : x + PATCH] = kept
        yield first, block + rng.integers(0, 2, block.shape, dtype=np.int16) * (block > 0)  # not too easy to compress


ATTRS = {"units": "mm h-1", "standard_name": "rainfall_rate", "scale_factor": np.float32(GAIN)}
TIME = {"units": "minutes since 2024-01-01", "standard_name": "time", "calendar": "standard"}


def _axis(name: str) -> dict[str, str]:
    return {"units": "m", "standard_name": f"projection_{name}_coordinate"}


def _write_netcdf(path: Path, rain: str, frames: int, size: int) -> None:
    with netCDF4.Dataset(path, "w") as file:
        for name, length in (("time", frames), ("y", size), ("x", size)):
            file.createDimension(name, length)
            axis = file.createVariable(name, "f8", (name,))
            axis.setncatts(TIME if name == "time" else _axis(name))
            axis[:] = np.arange(length) * (5.0 if name == "time" else 1000.0)
        values = file.createVariable(
            "rain", "i2", ("time", "y", "x"), zlib=True, complevel=4, chunksizes=CHUNKS, fill_value=MISSING
        )
        values.setncatts(ATTRS)
        values.set_auto_maskandscale(False)
        for first, block in _frames(rain, frames, size):
            values[first : first + len(block)] = block


def _write_zarr(path: Path, rain: str, frames: int, size: int) -> None:
    coords = {"time": ("time", np.arange(frames) * 5.0, TIME)}
    coords |= {n: (n, np.arange(size) * 1000.0, _axis(n)) for n in "yx"}
    xr.Dataset(coords=coords).drop_encoding().to_zarr(path, zarr_format=3, consolidated=False)
    values = zarr.open_group(path).create_array(
        "rain",
        shape=(frames, size, size),
        chunks=CHUNKS,
        dtype="int16",
        fill_value=MISSING,
        dimension_names=("time", "y", "x"),
        attributes={**ATTRS, "scale_factor": GAIN, "_FillValue": MISSING},
    )
    for first, block in _frames(rain, frames, size):
        values[first : first + len(block)] = block


def main() -> None:
    """Write all four archives."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--size", type=int, default=896)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for rain in RAINS:
        for kind in FORMATS:
            print(archive(options.folder, rain, kind, frames=options.frames, size=options.size), flush=True)


if __name__ == "__main__":
    main()
