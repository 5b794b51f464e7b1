"""What a cube is, and questions every other room asks of one.

A cube is an ``xarray.DataArray`` with dims ``(SEQUENCE, [channel,] *SPACE)``. SEQUENCE is ``time`` (datetime64)
or, for depth-indexed series, another increasing numeric coordinate. SPACE is two dims for a field (``y, x`` or
``lat, lon``), one (``station``) or none for point series. Values are floating point (or will be when computed),
missing values are NaN. The sequence coordinate lies on a regular step; frames may be missing (gaps). ``attrs``
carry ``units``; with a ``channel`` dim, the coordinate ``channel`` names the variables and the coordinate
``channel_units`` holds their units. A grid mapping is a scalar coordinate named by ``attrs['grid_mapping']``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import xarray as xr

from cubecast import units
from cubecast.errors import InputError, UsageError
from cubecast.sharing import ALL, Share
from cubecast.steps import Step, infer_step

CHANNEL = "channel"
BLOCK_BYTES = 64 * 2**20
"""Bytes of values that `iter_blocks` reads at a time."""


def sequence_dim(cube: xr.DataArray) -> str:
    """The name of the sequence dim: the first one."""
    return str(cube.dims[0])


def space_dims(cube: xr.DataArray) -> tuple[str, ...]:
    """The names of the space dims, in order: two for a field, one or none for series."""
    return tuple(str(d) for d in cube.dims[1:] if d != CHANNEL)


def channel_names(cube: xr.DataArray) -> tuple[str, ...]:
    """The variables in the cube: the ``channel`` coordinate, or the cube's own name."""
    if CHANNEL in cube.dims:
        return tuple(str(c) for c in cube[CHANNEL].values)
    return (str(cube.name) if cube.name is not None else "value",)


def channel_units(cube: xr.DataArray) -> dict[str, str]:
    """Canonical units of each variable."""
    if CHANNEL in cube.dims:
        return {
            n: units.canonical(str(u)) for n, u in zip(channel_names(cube), cube["channel_units"].values, strict=True)
        }
    return {channel_names(cube)[0]: units.canonical(str(cube.attrs["units"]))}


def select_channel(cube: xr.DataArray, name: str) -> xr.DataArray:
    """One variable of a cube as a cube without a channel dim, under its own name and units."""
    if CHANNEL not in cube.dims:
        return cube
    one = cube.sel({CHANNEL: name}, drop=True).rename(name)
    # What is said of the whole array (a standard name, say) need not hold for each variable in it.
    attrs = {k: v for k, v in cube.attrs.items() if k not in ("standard_name", "long_name")}
    attrs["units"] = channel_units(cube)[name]
    if "channel_standard_name" in cube.coords:
        attrs["standard_name"] = str(cube["channel_standard_name"].sel({CHANNEL: name}).item())
    one = one.drop_vars([c for c in ("channel_units", "channel_standard_name") if c in one.coords])
    return one.drop_attrs(deep=False).assign_attrs({k: v for k, v in attrs.items() if v})


def cube_step(cube: xr.DataArray) -> Step:
    """The regular step of the sequence coordinate."""
    dim = sequence_dim(cube)
    return infer_step(cube[dim].values, units=str(cube[dim].attrs.get("units", "")), what=dim)


def positions(cube: xr.DataArray, step: Step | None = None) -> npt.NDArray[Any]:
    """The place of every frame on the regular step, counted from the first frame (int64, strictly increasing).

    Raises:
        InputError: a frame is off the step (irregular time).
    """
    values = cube[sequence_dim(cube)].values
    if len(values) == 1:  # a single frame lies on every step
        return np.zeros(1, np.int64)
    place = (step or cube_step(cube)).offsets(values, values[0])
    if (np.diff(place) < 1).any():
        raise InputError(
            "irregular sequence coordinate", found="two frames within one step", allowed="one frame a step"
        )
    return place


def with_frames(like: xr.DataArray, times: Any, values: Any) -> xr.DataArray:
    """A cube of ``values`` (time, [channel,] *space) at ``times``, in all else as ``like``."""
    dim = sequence_dim(like)
    coords = {n: c for n, c in like.coords.items() if dim not in c.dims}
    coords[dim] = xr.Variable(dim, np.asarray(times, like[dim].dtype), like[dim].attrs)
    return xr.DataArray(values, dims=like.dims, coords=coords, name=like.name, attrs=like.attrs)


def gaps(cube: xr.DataArray) -> list[tuple[Any, Any, int]]:
    """(last value before, first value after, number of frames missing) for each hole in the sequence."""
    values, missing = cube[sequence_dim(cube)].values, np.diff(positions(cube)) - 1
    return [(values[i], values[i + 1], int(missing[i])) for i in np.flatnonzero(missing)]


def between(cube: xr.DataArray, start: Any, end: Any) -> xr.DataArray:
    """The frames from ``start`` to ``end``, both inclusive (None: no limit; "2016": the whole year).

    Raises:
        UsageError: not a time (or a number, for other sequences).
    """
    dim, time = sequence_dim(cube), cube[sequence_dim(cube)].dtype.kind == "M"
    try:
        limits = [v.removesuffix("Z") if isinstance(v, str) else v for v in (start, end)]
        if not time:
            limits = [None if v is None else float(v) for v in limits]
        if any(v is not None and v != v for v in limits):
            raise ValueError("not a number, or not a time")
        return cube.sel({dim: slice(*limits)})
    except (ValueError, TypeError, KeyError, OverflowError, AttributeError) as error:
        allowed = "times such as '2020-10-31T06:00' or '2016'" if time else "numbers"
        raise UsageError("start or end", found=f"{start} to {end}", allowed=allowed) from error


def window_starts(cube: xr.DataArray, length: int) -> npt.NDArray[Any]:
    """Indices of the frames from which ``length`` frames follow each other without a gap (int64, may be empty)."""
    place = positions(cube)
    if length > len(place):
        return np.empty(0, np.int64)
    return np.flatnonzero(place[length - 1 :] - place[: len(place) - length + 1] == length - 1)


def iter_blocks(cube: xr.DataArray, share: Share = ALL) -> Iterator[tuple[slice, npt.NDArray[Any]]]:
    """Pieces of ``cube`` along its sequence, in order, read one after the other: (frames, values).

    A piece is a run of whole dask chunks (or of single frames, where there are none) of about 64 MB of values; one
    chunk that is larger is a piece of its own. With a ``share``, the chunks whose middle lies in this process's part
    of the sequence: each chunk is read by one process.
    """
    frame = max(1, cube.nbytes // max(1, len(cube)))
    chunks = np.array(cube.chunks[0] if cube.chunks is not None else (1,) * len(cube), np.int64)
    first = np.cumsum(chunks) - chunks
    own = (2 * first + chunks) * share.count // max(1, 2 * len(cube)) == share.rank
    start = stop = int(first[own][0]) if own.any() else 0
    for size in chunks[own].tolist():
        if stop > start and (stop + size - start) * frame > BLOCK_BYTES:
            yield slice(start, stop), cube[start:stop].values
            start = stop
        stop += size
    if stop > start:
        yield slice(start, stop), cube[start:stop].values


def locate(cube: xr.DataArray, values: Any, step: Step | None = None) -> npt.NDArray[Any]:
    """The index of the frame at each of ``values`` (any shape), -1 where the cube has none.

    A frame is at a value when it is within 2 % of a step of it; with calendar months, when it is in the same month;
    a single frame, whose step is not known, at its own value.
    """
    frames, wanted = cube[sequence_dim(cube)].values, np.asarray(values)
    if len(frames) > 1:
        step = step or cube_step(cube)
    if step is None:
        return np.where(frames[0] == wanted, 0, -1)
    if step.kind == "months":
        frames, wanted = (v.astype("datetime64[M]").astype(np.int64) for v in (frames, wanted))
    tolerance: Any = 0
    if step.kind == "seconds":
        tolerance = np.timedelta64(round(0.02e9 * step.size), "ns")
    elif step.kind == "number":
        tolerance = 0.02 * step.size
    after = np.clip(np.searchsorted(frames, wanted), 0, len(frames) - 1)
    before = np.maximum(after - 1, 0)
    nearest = np.where(np.abs(wanted - frames[before]) < np.abs(frames[after] - wanted), before, after)
    return np.where(np.abs(frames[nearest] - wanted) <= tolerance, nearest, -1)


def same_places(a: xr.DataArray | xr.Dataset, b: xr.DataArray | xr.Dataset, dims: tuple[str, ...]) -> bool:
    """Whether two objects have the same sizes and, where both have them, the same coordinates along ``dims``.

    Numbers may differ by a thousandth of their spacing: one of the two may have been packed.
    """
    for dim in dims:
        if a.sizes.get(dim) != b.sizes.get(dim):
            return False
        if dim not in a.coords or dim not in b.coords:
            continue
        here, there = a[dim].values, b[dim].values
        if here.dtype.kind in "fiu" and there.dtype.kind in "fiu":
            spacing = np.median(np.abs(np.diff(there.astype(float)))) if len(there) > 1 else 1.0
            if not np.allclose(here, there, rtol=0, atol=1e-3 * float(spacing)):
                return False
        elif not np.array_equal(here, there):
            return False
    return True


def is_latlon(cube: xr.DataArray) -> bool:
    """Whether the two space coordinates are latitude and longitude in degrees."""
    space = space_dims(cube)
    return len(space) == 2 and all(
        d in cube.coords and units.canonical(str(cube[d].attrs.get("units", ""))) == "degrees" for d in space
    )


def cube_crs(cube: xr.DataArray) -> pyproj.CRS | None:
    """The CRS of the grid mapping; WGS 84 for a lat/lon grid without one; None when unknown.

    Raises:
        InputError: there is a grid mapping that cannot be understood.
    """
    name = cube.attrs.get("grid_mapping")
    if name in cube.coords:
        attrs = dict(cube.coords[name].attrs)
        try:
            return pyproj.CRS.from_cf(attrs)
        except (pyproj.exceptions.CRSError, KeyError) as error:
            raise InputError(
                f"grid mapping {name!r} cannot be understood",
                found=str(error),
                allowed="a CF grid mapping with grid_mapping_name or crs_wkt",
            ) from error
    return pyproj.CRS.from_epsg(4326) if is_latlon(cube) else None


def check_cube(cube: xr.DataArray) -> xr.DataArray:
    """``cube`` itself when it keeps the contract of this module; reads coordinates only, never the values.

    Raises:
        InputError: the first broken rule, as found / allowed / remedy.
    """
    if not isinstance(cube, xr.DataArray):
        raise InputError(
            "not a cube",
            found=type(cube).__name__,
            allowed="an xarray.DataArray",
            remedy="take one variable, for example ds['rainfall_rate'], or call cubecast.open_cube",
        )
    space = [d for d in cube.dims[1:] if d != CHANNEL]
    if not cube.dims or len(space) > 2 or (CHANNEL in cube.dims and cube.dims[1:2] != (CHANNEL,)):
        raise InputError(
            f"dims of {cube.name!r}",
            found=tuple(cube.dims),
            allowed="(time, y, x), (time, channel, y, x), (time, station) or (time,)",
            remedy="transpose it, or call cubecast.open_cube, which finds the axes",
        )
    dim = sequence_dim(cube)
    if dim not in cube.coords:
        raise InputError(f"{cube.name!r} has no {dim!r} coordinate", remedy="assign one with cube.assign_coords")
    kind = cube[dim].dtype.kind
    if kind not in "Mif" or (dim == "time" and kind != "M"):
        times = "convert the calendar with cube.convert_calendar('standard') or decode the times"
        raise InputError(
            f"coordinate {dim!r}",
            found=f"values of type {cube[dim].dtype}",
            allowed="datetime64 for time, signed numbers for another sequence such as depth",
            remedy=f"convert them with cube[{dim!r}].astype(float)" if kind == "u" else times,
        )
    if cube.dtype.kind not in "fiu":
        raise InputError(f"values of {cube.name!r}", found=f"type {cube.dtype}", allowed="numbers")
    if CHANNEL in cube.coords and not cube.indexes[CHANNEL].is_unique:
        raise InputError("channels", found=", ".join(map(str, cube[CHANNEL].values)), allowed="each variable once")
    if CHANNEL in cube.dims and (CHANNEL not in cube.coords or "channel_units" not in cube.coords):
        raise InputError(
            "a channel dim without names or units",
            allowed="coordinates 'channel' and 'channel_units'",
            remedy="build it with cubecast.open_cube(..., variable=[...])",
        )
    if CHANNEL not in cube.dims and not str(cube.attrs.get("units", "")).strip():
        raise InputError(
            f"variable {cube.name!r} has no units",
            found="no 'units' attribute",
            remedy="set it, for example cube.attrs['units'] = 'mm h-1'",
        )
    positions(cube)
    return cube
