"""Which forecasts of an archive are wanted, and which of them are possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from cubecast.channels import Array
from cubecast.cube import between, sequence_dim
from cubecast.errors import InputError, UsageError
from cubecast.forecast import possible_references, read_reference, reference_index
from cubecast.nowcaster import Nowcaster


def choose_references(
    cube: xr.DataArray, model: Nowcaster, *, at: Sequence[Any] | None, start: str | None, end: str | None, every: int
) -> tuple[Array, list[tuple[Any, str]]]:
    """Reference times that have a complete history, and those of ``at`` that have none with the reason.

    Raises:
        UsageError: times that are none, or ``at`` together with a period.
        InputError: there is none.
    """
    history, dim = model.config.task.history, sequence_dim(cube)
    failed: list[tuple[Any, str]] = []
    if at is not None:
        if start is not None or end is not None or every != 1:
            raise UsageError("reference times", found="--at beside --start, --end or --every", allowed="one of them")
        index = []
        for one in (read_reference(text, cube) for text in at):
            try:
                index += reference_index(cube, [one], history=history, step=model.step)
            except InputError as error:
                failed.append((one, str(error)))
        if not index:
            raise InputError("none of the reference times can be forecast after", found=failed[0][1])
        return cube[dim].values[sorted(set(index))], failed
    times = possible_references(cube, history=history)
    times = times[np.isin(times, between(cube, start, end)[dim].values)][::every]
    if not times.size:
        frames = f"{cube.sizes[dim]} frames from {cube[dim].values[0]} on"
        raise InputError(f"no time with a history of {history} frames", found=frames, remedy="widen --start, --end")
    return times, failed
