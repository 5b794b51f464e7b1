"""Which variable of a file is meant, and which of its dims are time and space: by CF attributes, not by names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cf_xarray  # noqa: F401  the .cf accessor
import numpy as np
import xarray as xr

from cubecast.errors import InputError
from cubecast.sources.coding import cf_coding, value_dtype
from cubecast.sources.values import AMOUNTS, RATES

PREFERRED = (*RATES, *AMOUNTS, "sea_surface_temperature")
_START = ("start_time", "time_start", "starttime", "start")


@dataclass(frozen=True, slots=True)
class Axes:
    """The dims of one variable, by what they are.

    ``sequence`` is the coordinate that the cube's first dim gets its values from, ``along`` the stored dim it runs
    along (None: one frame a file, the dim is to be made), ``space`` the stored space dims in the order of the cube.
    All other dims have size 1. ``dim`` is the name of the cube's first dim: ``time`` for all times.
    """

    sequence: str
    along: str | None
    space: tuple[str, ...]
    dim: str


def choose_variables(ds: xr.Dataset, names: tuple[str | None, ...], *, where: str) -> list[tuple[str | None, str]]:
    """(as asked for, as stored) for each of ``names`` that is there; None: the only variable that can be meant.

    ``rainfall_rate`` also means the one amount of rain that will be a rate in the cube (see `interpret`).

    Raises:
        InputError: none of them is there; with None: no variable or several can be meant.
    """
    found = candidates(ds)
    amounts = [n for n in found if ds[n].attrs.get("standard_name") in AMOUNTS]
    out: list[tuple[str | None, str]] = []
    for name in names:
        if name is None:
            out.append((name, _only(ds, found, where)))
        elif name in ds.variables and name not in ds.dims:
            out.append((name, name))
        elif name == "rainfall_rate" and len(amounts) == 1:
            out.append((name, amounts[0]))
    if not out:
        raise no_variable(names, found, where)
    return out


def _only(ds: xr.Dataset, found: list[str], where: str) -> str:
    """The one variable that has a standard name of rain or sea-surface temperature, or that there is."""
    ranked = {n: PREFERRED.index(s) for n in found if (s := str(ds[n].attrs.get("standard_name", ""))) in PREFERRED}
    best = [n for n in ranked if ranked[n] == min(ranked.values())] or found
    if not best:
        raise InputError(f"no field or series in {where}", found=f"variables {', '.join(map(str, ds.variables))}")
    if len(best) > 1:
        raise InputError(
            f"several variables in {where}", found=", ".join(best), remedy=f"name one, for example variable={best[0]!r}"
        )
    return best[0]


def no_variable(names: Iterable[str | None], found: Iterable[str], where: str) -> InputError:
    """The error for variables that are not in a file."""
    asked = " or ".join(repr(n) for n in names)
    return InputError(f"no variable {asked} in {where}", allowed=", ".join(found) or "none: there is no field in it")


def candidates(ds: xr.Dataset) -> list[str]:
    """Data variables that could be a cube: numbers along dims of which most are fields, and nothing's helper."""
    referred: set[str] = set()
    for variable in ds.variables.values():
        for key in ("bounds", "climatology", "grid_mapping", "ancillary_variables", "coordinates"):
            text = variable.attrs.get(key, variable.encoding.get(key))
            referred |= set(str(text).replace(":", " ").split()) if text else set()
    named = [
        str(n)
        for n, v in ds.data_vars.items()
        if n not in referred and v.dtype.kind in "fiu" and v.size > 1 and "flag_meanings" not in v.attrs
        and not is_time(v.variable) and v.attrs.get("standard_name") not in ("latitude", "longitude")
    ]  # fmt: skip
    width = {n: sum(size > 1 for d, size in ds[n].sizes.items() if not _is_time_dim(ds, str(d))) for n in named}
    return [n for n in named if width[n] == max(width.values())]


def find_axes(ds: xr.Dataset, name: str, *, where: str) -> Axes:
    """The axes of the variable ``name``.

    Raises:
        InputError: no time (or other sequence), or more than two space dims.
    """
    dims = [str(d) for d in ds[name].dims]
    kind = _kinds(ds)
    sequence, along = _find_time(ds, name, dims) or _find_other_sequence(ds, dims, kind) or (None, None)
    if sequence is None:
        raise InputError(
            f"variable {name!r} of {where} has no time",
            found=f"dims ({', '.join(dims)})",
            allowed="a time dim, or a scalar variable with standard_name 'time'",
            remedy="give the coordinate the attribute standard_name = 'time' and units such as 'seconds since ...'",
        )
    rest = [d for d in dims if d != along]
    space = [d for d in rest if ds.sizes[d] > 1 or kind.get(d) in ("X", "Y")]
    if len(space) > 2:
        sizes = ", ".join(f"{d}: {ds.sizes[d]}" for d in rest)
        raise InputError(
            f"variable {name!r} of {where} has more than two space dims",
            found=sizes,
            allowed="(time, y, x), (time, station) or (time,)",
            remedy="select one, for example xarray's isel(level=0), and open that",
        )
    if len(space) == 2 and (kind.get(space[0]) == "X" or kind.get(space[1]) == "Y"):
        space.reverse()
    return Axes(sequence, along, tuple(space), "time" if is_time(ds.variables[sequence]) else sequence)


def find_period(ds: xr.Dataset, axes: Axes) -> tuple[str, ...]:
    """Names of the variables that say over which time each frame was accumulated: (bounds,), (start,) or ()."""
    time = ds[axes.sequence]
    bounds = time.attrs.get("bounds", time.encoding.get("bounds"))
    if bounds in ds.variables:
        return (str(bounds),)
    for name, variable in ds.variables.items():
        text = str(variable.attrs.get("long_name", "")).lower()
        says_start = str(name).lower() in _START or text.startswith("start")
        if says_start and variable.dims == time.dims and name != axes.sequence and is_time(variable):
            return (str(name),)
    return ()


def space_coords(ds: xr.Dataset, name: str, axes: Axes) -> dict[str, xr.Variable]:
    """Coordinates along the space dims, and the grid mapping as a scalar, all loaded and without encoding."""
    coords = {}
    for key, variable in ds.coords.variables.items():
        if variable.dims and set(variable.dims) <= set(axes.space) and key != name:
            values, attrs = variable.values, variable.attrs
            if values.dtype.kind == "f" or "scale_factor" in attrs:
                values = cf_coding(attrs, values.dtype).decode(values, value_dtype(values.dtype, attrs))
            coords[str(key)] = xr.Variable(variable.dims, values, _coordinate_attrs(attrs))
    mapping = grid_mapping(ds, name)
    if mapping:
        coords[mapping] = xr.Variable((), np.int32(0), dict(ds[mapping].attrs))
    return coords


def grid_mapping(ds: xr.Dataset, name: str) -> str | None:
    """The name of the variable that holds the CRS; None where there is none."""
    text = ds[name].attrs.get("grid_mapping", ds[name].encoding.get("grid_mapping"))
    names = str(text or "").replace(":", " ").split()
    return names[0] if names and names[0] in ds.variables else None


def _coordinate_attrs(attrs: dict[Any, Any]) -> dict[str, Any]:
    """Without references to bounds, which a DataArray cannot hold, and without what encodes the numbers."""
    dropped = ("bounds", "climatology", "_FillValue", "missing_value", "scale_factor", "add_offset")
    return {str(k): v for k, v in attrs.items() if k not in dropped}


def is_time(variable: xr.Variable) -> bool:
    """Whether a variable holds times of validity, by its attributes and type."""
    attrs = variable.attrs
    if attrs.get("standard_name", "time") != "time":
        return False
    if variable.dtype.kind == "M" or "standard_name" in attrs or attrs.get("axis") == "T":
        return True
    if variable.dtype == object and variable.size:
        return hasattr(np.ravel(variable.values)[0], "calendar")  # cftime, for calendars that NumPy does not know
    return " since " in str(attrs.get("units", ""))


def _is_time_dim(ds: xr.Dataset, dim: str) -> bool:
    return dim in ds.variables and is_time(ds.variables[dim])


def _find_time(ds: xr.Dataset, name: str, dims: list[str]) -> tuple[str, str | None] | None:
    """The time coordinate along a dim of the variable, else the one time of the whole file."""
    times = {str(n): v for n, v in ds.variables.items() if n != name and v.ndim <= 1 and is_time(v)}
    along = [(n, str(v.dims[0])) for n, v in times.items() if v.ndim == 1 and v.dims[0] in dims]
    # its own dim first, then what says "time" outright
    along.sort(key=lambda pair: (pair[0] != pair[1], "standard_name" not in times[pair[0]].attrs))
    if along:
        return along[0]
    scalar = [n for n, v in times.items() if v.size == 1]
    outright = [n for n in scalar if "standard_name" in times[n].attrs] or scalar
    return (outright[0], None) if len(outright) == 1 else None


def _find_other_sequence(ds: xr.Dataset, dims: list[str], kind: dict[str, str]) -> tuple[str, str] | None:
    """A numeric dim such as depth, for series without time: the vertical one, else the first that is not in space."""
    long = [d for d in dims if ds.sizes[d] > 1]
    if len(long) > 2 or any(kind.get(d) in ("X", "Y") for d in long):
        return None
    numeric = [d for d in long if d in ds.variables and ds[d].dtype.kind in "fiu"]
    numeric.sort(key=lambda d: kind.get(d) not in ("Z", "T"))
    return (numeric[0], numeric[0]) if numeric else None


def _kinds(ds: xr.Dataset) -> dict[str, str]:
    """X, Y, Z or T for each coordinate that CF attributes (or, without any, common names) identify."""
    kinds: dict[str, str] = {}
    for one in (ds.cf.guess_coord_axis(), ds):  # the attributes of the file win over guesses
        kinds |= {str(n): axis for axis, names in one.cf.axes.items() for n in names}
        for axis, name in (("Y", "latitude"), ("X", "longitude")):
            kinds |= {str(n): axis for n in one.cf.coordinates.get(name, []) if n in ds.dims}
    return kinds
