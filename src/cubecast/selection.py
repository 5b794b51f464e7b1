"""What of a cube is verified: the period, the reference times and the pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from cubecast.cube import between, channel_names, cube_step, locate, positions, select_channel, sequence_dim, space_dims
from cubecast.errors import InputError, UsageError
from cubecast.forecast import possible_references, reference_index


def select_period(cube: xr.DataArray, start: Any, end: Any) -> xr.DataArray:
    """The frames from ``start`` to ``end``, both included.

    Raises:
        UsageError: values that are none of the sequence. InputError: fewer than two frames.
    """
    dim = sequence_dim(cube)
    part = between(cube, start, end)
    if part.shape[0] < 2:
        first, last = cube[dim].values[[0, -1]]
        raise InputError("no frames to verify", found=f"none from {start} to {end}", allowed=f"{first} to {last}")
    return part


def select_references(cube: xr.DataArray, truth: xr.DataArray, *, history: int, horizon: int, at: Any = None) -> Any:
    """Reference times with a complete history and at least one valid time among the frames of the period.

    ``at`` names them; None: all that there are.

    Raises:
        InputError: there is none, or one of ``at`` is none.
    """
    dim, step = sequence_dim(cube), cube_step(cube)
    if at is None:
        times = possible_references(cube, history=history)
    else:
        times = cube[dim].values[sorted(set(reference_index(cube, at, history=history, step=step)))]
    first, last = truth[dim].values[[0, -1]]
    inside = (step.add(times, horizon) >= first) & (step.add(times, 1) <= last)
    if not inside.any() or (at is not None and not inside.all()):
        raise InputError(
            "no case to verify" if at is None or not times.size else f"nothing to verify after {times[~inside][0]}",
            found=f"{truth.shape[0]} frames from {first} to {last}",
            allowed=f"{history} frames in a row and a frame after them in the period",
        )
    return times[inside]


def overlapping(cube: xr.DataArray, reference: Any, horizon: int) -> int:
    """The most neighbours among the reference times whose forecasts have a valid time in common, itself included."""
    places = positions(cube)[locate(cube, reference)]
    return int((np.searchsorted(places, places + horizon) - np.arange(len(places))).max())


def select_region(
    cube: xr.DataArray, ranges: Mapping[str, tuple[float, float]], never_below: float | None
) -> xr.DataArray | None:
    """True where a pixel counts, by ranges of its coordinates and by all its observed values; None: all pixels.

    Raises:
        UsageError: a range of what is no space dim with coordinates, or the wrong way round.
        InputError: no pixel is left.
    """
    if not ranges and never_below is None:
        return None
    space = space_dims(cube)
    region = xr.DataArray(np.ones([cube.sizes[d] for d in space], bool), dims=space)
    for dim, (low, high) in ranges.items():
        if dim not in space or dim not in cube.coords:
            raise UsageError("region", found=dim, allowed=", ".join(d for d in space if d in cube.coords))
        if not low <= high:
            raise UsageError(
                f"region {dim}", found=f"{low:g} to {high:g}", allowed="from the lower to the higher value"
            )
        coordinate = cube[dim].values
        region = region & xr.DataArray((coordinate >= low) & (coordinate <= high), dims=dim)
    if never_below is not None:
        first = select_channel(cube, channel_names(cube)[0])
        region = region & xr.DataArray(first.min(sequence_dim(cube)).values >= never_below, dims=space)
    if not region.any():
        extent = {d: f"{float(cube[d].min()):g} to {float(cube[d].max()):g}" for d in space if d in cube.coords}
        raise InputError(
            "no pixel to verify", found=f"none in {dict(ranges)}, never below {never_below}", allowed=f"{extent}"
        )
    return region.transpose(*space)
