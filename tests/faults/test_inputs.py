"""Mutated and truncated files, read as `cubecast watch` reads them: by the probe first, then in this process."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from cubecast.errors import InputError
from cubecast.sources import open_cube
from cubecast.sources.probe import Probe
from cubecast.write import write_cube

LONGEST = 10.0
Others = dict[str, Callable[[xr.DataArray, Path], None]]


def others_zarr(cube: xr.DataArray, path: Path) -> None:
    cube.chunk(time=1).drop_encoding().to_zarr(path, zarr_format=2, consolidated=True)


def others_netcdf(cube: xr.DataArray, path: Path) -> None:
    storage = {"zlib": True, "chunksizes": (1, *cube.shape[1:])}
    cube.to_dataset().to_netcdf(path, engine="netcdf4", encoding={str(cube.name): storage})


def classic(cube: xr.DataArray, path: Path) -> None:
    cube.to_dataset().to_netcdf(path, engine="netcdf4", format="NETCDF3_64BIT", unlimited_dims=["time"])


FORMATS: Others = {
    "netCDF-4": others_netcdf,
    "classic netCDF": classic,
    "Zarr": others_zarr,
    "netCDF-4 of ours": write_cube,
    "Zarr of ours": write_cube,
}


@pytest.fixture(scope="module")
def probe() -> Iterator[Probe]:
    made = Probe(seconds=int(LONGEST) - 1, memory=2**30)
    yield made
    made.close()


@pytest.mark.parametrize("kind", FORMATS)
def test_mutated_inputs(kind, tally, probe, rain, memory_disk):
    fault = tally(f"mutated or truncated {kind}", short=100, full=2000)
    whole, path = memory_disk / "whole", memory_disk / f"mutated{'.zarr' if 'Zarr' in kind else '.nc'}"
    cube = rain(6)
    FORMATS[kind](cube, whole.with_suffix(path.suffix))
    original = contents(whole.with_suffix(path.suffix))
    truth, seen = open_cube(whole.with_suffix(path.suffix)).load(), Counter()
    for seed in fault:
        how = lay_down(path, original, np.random.default_rng(seed))
        what, complaint, seconds = read(path, probe, truth if "ours" in kind else None)
        if seconds > LONGEST:  # a busy machine, or the file? the file is slow twice
            what, complaint, seconds = read(path, probe, truth if "ours" in kind else None)
        if seconds > LONGEST:
            complaint = f"{seconds:.0f} s"
        if kind == "classic netCDF" and how.startswith("cut") and what == "opened":
            complaint = "opened"
        if complaint:
            fault.lost(seed, f"{how}: {complaint}")
        seen[what] += 1
    fault.note(", ".join(f"{n} {what}" for what, n in sorted(seen.items())))
    assert seen["refused"] > fault.tries / 20, "the mutations do nothing"


def read(path: Path, probe: Probe, truth: xr.DataArray | None) -> tuple[str, str, float]:
    """What became of a file, what is to be said against that, and how many seconds it took."""
    begun, what, complaint = time.perf_counter(), "opened", ""
    try:
        probe.check(path, frames=6)
        found = open_cube(path).load()
        if truth is not None and not same(found, truth):
            complaint = "silently different"
    except InputError as error:
        what = "crashed, contained" if "a crash of" in str(error) else "refused"
    except Exception as error:
        complaint = f"{type(error).__name__}: {error}"
    return what, complaint, time.perf_counter() - begun


def contents(path: Path) -> dict[str, bytes]:
    """The files of a store by name, or the one file."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return {str(p.relative_to(path)): p.read_bytes() for p in files}


def lay_down(path: Path, original: dict[str, bytes], rng: np.random.Generator) -> str:
    """Write the files, one of them mutated; what was done to it."""
    victim = str(rng.choice(list(original)))
    for name, data in original.items():
        where = path / name if len(original) > 1 else path
        where.parent.mkdir(parents=True, exist_ok=True)
        if name == victim:
            how, data = mutate(data, rng)
        where.write_bytes(data)
    return f"{how} of {victim}"


def mutate(data: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """One thing that happens to bytes: a bit flips, a byte changes, some are zeroed, set, overwritten or cut off."""
    kind = str(rng.choice(["bit", "byte", "zeros", "ones", "copy", "cut"]))
    at, other, length = (int(rng.integers(n)) for n in (len(data), len(data), 64))
    if kind == "cut":
        return f"cut at {at}", data[:at]
    new = {
        "bit": bytes([data[at] ^ 1 << int(rng.integers(8))]),
        "byte": bytes([int(rng.integers(256))]),
        "zeros": bytes(length),
        "ones": b"\xff" * length,
        "copy": data[other : other + length],
    }[kind][: len(data) - at]
    return f"{kind} at {at}, {len(new)}", data[:at] + new + data[at + len(new) :]


def same(found: xr.DataArray, truth: xr.DataArray) -> bool:
    """Whether two cubes have the same values, places, times and units."""
    kept = (found.attrs.get("units"), found.name) == (truth.attrs.get("units"), truth.name)
    return kept and found.drop_attrs().equals(truth.drop_attrs())
