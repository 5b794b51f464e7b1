"""What of a cube is verified: the period, the reference times and the pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from cubecast.cube import channel_names, cube_step, select_channel, sequence_dim, space_dims
from cubecast.errors import InputError, UsageError
from cubecast.forecast import possible_references


def select_period(cube: xr.DataArray, start: Any, end: Any) -> xr.DataArray:
    """The frames from ``start`` to ``end``, both included.

    Raises:
        UsageError: values that are none of the sequence. InputError: fewer than two frames.
    """
    dim = sequence_dim(cube)
    try:
        part = cube.sel({dim: slice(start, end)})
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"period {start} to {end}", found=str(error), allowed=f"values of {dim!r}") from None
    if part.shape[0] < 2:
        first, last = cube[dim].values[[0, -1]]
        raise InputError("no frames to verify", found=f"none from {start} to {end}", allowed=f"{first} to {last}")
    return part


def select_references(cube: xr.DataArray, truth: xr.DataArray, *, history: int, horizon: int) -> Any:
    """Reference times with a complete history and at least one valid time among the frames of the period.

    Raises:
        InputError: there is none.
    """
    dim = sequence_dim(cube)
    step = cube_step(cube)
    times = possible_references(cube, history=history)
    first, last = truth[dim].values[[0, -1]]
    reference = times[(step.add(times, horizon) >= first) & (step.add(times, 1) <= last)]
    if not len(reference):
        raise InputError(
            "no case to verify",
            found=f"{cube.shape[0]} frames",
            allowed=f"{history} frames in a row and a frame after them in the period",
        )
    return reference


def select_region(
    cube: xr.DataArray, ranges: Mapping[str, tuple[float, float]], never_below: float | None
) -> xr.DataArray | None:
    """True where a pixel counts, by ranges of its coordinates and by all its observed values; None: all pixels.

    Raises:
        UsageError: a range of what is no space dim with coordinates.
    """
    if not ranges and never_below is None:
        return None
    space = space_dims(cube)
    region = xr.DataArray(np.ones([cube.sizes[d] for d in space], bool), dims=space)
    for dim, (low, high) in ranges.items():
        if dim not in space or dim not in cube.coords:
            raise UsageError("region", found=dim, allowed=", ".join(d for d in space if d in cube.coords))
        coordinate = cube[dim].values
        region = region & xr.DataArray((coordinate >= low) & (coordinate <= high), dims=dim)
    if never_below is not None:
        first = select_channel(cube, channel_names(cube)[0])
        region = region & xr.DataArray(first.min(sequence_dim(cube)).values >= never_below, dims=space)
    return region.transpose(*space)
