"""Frames that are not as they should be: for each case what docs/operations.md says of it, on real files."""

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from cubecast.errors import InputError
from cubecast.sources import open_cube

BASE = np.datetime64("2020-06-01T00:00", "ns")
MINUTE = np.timedelta64(1, "m")


def dataset(frames: list[float], value: Any = 1.0, **attrs: Any) -> xr.Dataset:
    """A field (frame, 3, 4) of its frame's number, at ``frames`` times 5 minutes; ``value`` is put at one pixel."""
    values = np.zeros((len(frames), 3, 4), np.float32) + np.asarray(frames, np.float32).reshape(-1, 1, 1)
    values[0, 1, 1] = value
    minutes = np.asarray(frames) * 5
    time = ("time", minutes, {"units": "minutes since 2020-06-01 00:00", "standard_name": "time"} | attrs)
    rain = (("time", "y", "x"), values, {"units": "mm h-1", "standard_name": "rainfall_rate"})
    return xr.Dataset({"rain": rain}, {"time": time, "y": [0.0, 1, 2], "x": [0.0, 1, 2, 3]})


def at(minutes: list[float]) -> Callable[[xr.DataArray], bool]:
    """Frames at these minutes, sorted."""
    return lambda cube: bool((cube.time.values == BASE + np.array(minutes) * MINUTE).all())


def pixel(value: float) -> Callable[[xr.DataArray], bool]:
    return lambda cube: bool(np.array_equal(cube.values[0, 1, 1], np.float32(value), equal_nan=True))


def units(unit: str | None) -> xr.Dataset:
    ds = dataset([0, 1, 2])
    ds.rain.attrs = {"standard_name": "rainfall_rate"} | ({} if unit is None else {"units": unit})
    return ds


def encoded(ds: xr.Dataset, **encoding: Any) -> xr.Dataset:
    ds.rain.encoding |= encoding
    return ds


REAL, NAN = list(range(6)), float("nan")
SINCE = "minutes since "
CASES: dict[str, tuple[list[xr.Dataset], Callable[[xr.DataArray], bool] | str]] = {
    "missing frame": ([dataset([0, 1, 3, 4])], at([0, 5, 15, 20])),
    "missing file": ([dataset([0]), dataset([1]), dataset([3])], at([0, 5, 15])),
    "duplicate frame": ([dataset([0, 1, 1, 2])], at([0, 5, 10])),
    "duplicate file": ([dataset([0, 1]), dataset([1, 2]), dataset([3])], at([0, 5, 10, 15])),
    "frames out of order": ([dataset([3, 0, 2, 1])], at([0, 5, 10, 15])),
    "files out of order": ([dataset([2, 3]), dataset([0, 1])], at([0, 5, 10, 15])),
    "irregular times": ([dataset([0, 1, 2.4, 3])], "irregular"),
    "a frame without time": ([dataset([0, 1, 2], missing_value=5.0)], "missing time"),
    "NaN": ([dataset(REAL, NAN)], pixel(NAN)),
    "plus infinity": ([dataset(REAL, np.inf)], pixel(NAN)),
    "minus infinity": ([dataset(REAL, -np.inf)], pixel(NAN)),
    "declared sentinel": ([encoded(dataset(REAL, -9999.0), _FillValue=-9999.0)], pixel(NAN)),
    "undeclared sentinel -9999": ([encoded(dataset(REAL, -9999.0), _FillValue=None)], pixel(NAN)),
    "undeclared fill value": ([encoded(dataset(REAL, 9.96921e36), _FillValue=None)], pixel(NAN)),
    "negative rain": ([dataset(REAL, -0.5)], pixel(NAN)),
    "negative zero and rounding": ([dataset(REAL, -1e-9)], pixel(0.0)),
    "more rain than can be": ([dataset(REAL, 1e5)], pixel(NAN)),
    "wrong units": ([units("K")], "wrong units"),
    "no units": ([units(None)], "no units"),
    "unknown units": ([units("furlong")], "wrong units"),
    "other units of rain": ([units("m s-1")], lambda cube: cube.attrs["units"] == "m s-1"),
    "grid changed between files": (
        [dataset([0, 1]), dataset([2, 3]).assign_coords(x=[0.0, 2, 4, 6])],
        "more than one grid",
    ),
    "fewer columns": ([dataset([0, 1]), dataset([2, 3]).isel(x=slice(3))], "more than one grid"),
    "time zone +02:00": ([dataset(REAL, units=SINCE + "2020-06-01T02:00:00+02:00")], at([0, 5, 10, 15, 20, 25])),
    "time zone Z": ([dataset(REAL, units=SINCE + "2020-06-01T00:00:00Z")], at([0, 5, 10, 15, 20, 25])),
    "leap second as epoch": ([dataset(REAL, units=SINCE + "2016-12-31T23:59:60")], "times of"),
    "across a leap second": (
        [dataset(REAL, units=SINCE + "2016-12-31T23:50:00")],
        lambda cube: bool((np.diff(cube.time.values) == 5 * MINUTE).all()),
    ),
    "calendar noleap": ([dataset(REAL, calendar="noleap")], "calendar 'noleap'"),
    "calendar 360_day": ([dataset(REAL, calendar="360_day")], "calendar '360_day'"),
    "calendar gregorian": ([dataset(REAL, calendar="gregorian")], at([0, 5, 10, 15, 20, 25])),
    "calendar proleptic_gregorian": ([dataset(REAL, calendar="proleptic_gregorian")], at([0, 5, 10, 15, 20, 25])),
    "times that are no times": ([dataset(REAL, units="minutes since yesterday")], "times of"),
}  # fmt: skip


def test_frames_that_are_not_as_they_should_be(tally, tmp_path):
    fault = tally("frames that are not as they should be", short=len(CASES), full=len(CASES))
    for seed, (name, (parts, wanted)) in enumerate(CASES.items()):
        files = [tmp_path / f"{seed:02d}_{i}.nc" for i in range(len(parts))]
        for ds, path in zip(parts, files, strict=True):
            ds.to_netcdf(path, engine="netcdf4")
        try:
            cube = open_cube(files).load()
            if isinstance(wanted, str):
                fault.lost(seed, f"{name}: opened, and should be refused")
            elif not wanted(cube):
                fault.lost(seed, f"{name}: {cube.time.values}, {cube.values[0, 1, 1]}, {cube.attrs}")
        except InputError as error:
            if not isinstance(wanted, str) or wanted not in str(error):
                fault.lost(seed, f"{name}: {error}")
