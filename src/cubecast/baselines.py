"""Forecasts that cost nothing, to compare a model with: persistence, climatology and what lies between.

All return the forecast Dataset of `product.build_forecast` in float32, for fields, channels and point series, and
need the reference times to be in the cube. Missing values stay missing: a pixel that is masked at the reference time
is NaN in everything that starts from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from cubecast.climate import Climate, fit_climate
from cubecast.cube import channel_names, check_cube, cube_step, locate, select_channel, sequence_dim
from cubecast.errors import InputError, UsageError
from cubecast.product import build_forecast

Array = npt.NDArray[Any]


def persistence(cube: xr.DataArray, *, reference: Any, horizon: int) -> xr.Dataset:
    """The last frame, at every lead: f(t + l) = x(t).

    Args:
        cube: what was observed.
        reference: one or many values of the sequence coordinate, each that of a frame.
        horizon: number of leads, in steps.

    Raises:
        InputError: a reference time that is not in the cube.
    """
    times, last = _last_frames(cube, reference)
    values = {name: np.repeat(frame[:, None], check_horizon(horizon), axis=1) for name, frame in last.items()}
    return build_baseline(values, cube, times, "persistence", "the last observed frame")


def climatology(cube: xr.DataArray, *, reference: Any, horizon: int, training: xr.DataArray | Climate) -> xr.Dataset:
    """The climatology at the valid time: f(t + l) = c(t + l).

    Args:
        cube, reference, horizon: as in `persistence`.
        training: the training part, or what `fit_climate` made of it (fit once when calling many times).

    Raises:
        InputError: a reference time that is not in the cube, or a training part on another grid, in other units, or
            (on monthly steps) without one of the calendar months.
    """
    times, _ = _last_frames(cube, reference, read=False)
    climate = _climate(training, cube)
    values = {name: climate.at(name, _valid(cube, times, horizon)) for name in channel_names(cube)}
    return build_baseline(values, cube, times, "climatology", climate.about)


def anomaly_persistence(
    cube: xr.DataArray, *, reference: Any, horizon: int, training: xr.DataArray | Climate
) -> xr.Dataset:
    """The last anomaly on the climatology of the valid time: f(t + l) = c(t + l) + x(t) - c(t).

    For monthly data this is what is meant by persistence. Arguments and errors as in `climatology`.
    """
    return _from_anomaly(cube, reference, horizon, _climate(training, cube), damped=False)


def damped_persistence(
    cube: xr.DataArray, *, reference: Any, horizon: int, training: xr.DataArray | Climate
) -> xr.Dataset:
    """The last anomaly, damped: f(t + l) = c(t + l) + r(l) (x(t) - c(t)).

    r(l) is the regression of the anomaly on the one l steps before, over the training part: each pixel's own, drawn
    towards the one of all pixels (see `climate.fit_climate`). Arguments and errors as in `climatology`; a climate that
    is given must be fitted for as many leads as are asked for.
    """
    return _from_anomaly(cube, reference, horizon, _climate(training, cube, leads=check_horizon(horizon)), damped=True)


def _from_anomaly(cube: xr.DataArray, reference: Any, horizon: int, climate: Climate, *, damped: bool) -> xr.Dataset:
    times, last = _last_frames(cube, reference)
    values = {}
    for name, frame in last.items():
        anomaly = (frame - climate.at(name, times))[:, None]
        share = (
            climate.damping[name][:horizon] if damped else np.ones((check_horizon(horizon),) + (1,) * (frame.ndim - 1))
        )
        values[name] = climate.at(name, _valid(cube, times, horizon)) + share * anomaly
    kind = "damped persistence" if damped else "anomaly persistence"
    return build_baseline(values, cube, times, kind, f"the last observed anomaly from the {climate.about}")


def find_references(cube: xr.DataArray, reference: Any) -> Array:
    """Which frames of the cube are at the reference times, one or many.

    Raises:
        UsageError: values that are no times. InputError: a time that is not in the cube.
    """
    check_cube(cube)
    dim = sequence_dim(cube)
    frames = cube[dim].values
    try:
        wanted = np.atleast_1d(np.asarray(reference)).astype(frames.dtype)
    except (ValueError, TypeError):
        raise UsageError(
            f"reference {dim}", found=repr(reference), allowed="times such as 2020-08-01T12:00, or numbers"
        ) from None
    index = locate(cube, wanted)
    if (index < 0).any():
        raise InputError(
            f"reference {dim} {wanted[index < 0][0]} is not in the cube",
            found=f"{len(frames)} frames from {frames[0]} to {frames[-1]}",
            allowed=f"the {dim} of one of its frames",
        )
    return index


def _last_frames(cube: xr.DataArray, reference: Any, *, read: bool = True) -> tuple[Array, dict[str, Array]]:
    """The reference times as the cube has them, and (unless not ``read``) its frames there by variable."""
    last = cube.isel({sequence_dim(cube): find_references(cube, reference)})
    return last[sequence_dim(cube)].values, {n: select_channel(last, n).values for n in channel_names(cube) if read}


def check_horizon(horizon: int) -> int:
    """``horizon``, when it is a number of leads."""
    if horizon < 1:
        raise UsageError("horizon", found=horizon, allowed="1 step or more")
    return horizon


def _valid(cube: xr.DataArray, times: Array, horizon: int) -> Array:
    """Valid times (reference, lead)."""
    return cube_step(cube).add(times[:, None], np.arange(1, check_horizon(horizon) + 1)[None])


def build_baseline(values: Mapping[str, Array], cube: xr.DataArray, times: Array, kind: str, about: str) -> xr.Dataset:
    """The forecast Dataset of a baseline: float32, with attributes that say what it is."""
    attrs = {"title": f"{kind.capitalize()} of {', '.join(values)}", "source": f"cubecast baseline {kind}: {about}"}
    small = {name: np.asarray(array, np.float32) for name, array in values.items()}
    return build_forecast(small, cube, reference=times, step=cube_step(cube), attrs=attrs)


def _climate(training: xr.DataArray | Climate, cube: xr.DataArray, *, leads: int = 0) -> Climate:
    """The fitted climate, when it fits the cube and has the leads."""
    climate = training if isinstance(training, Climate) else fit_climate(training, leads=leads)
    climate.check_fits(check_cube(cube))
    if leads > min((len(c) for c in climate.damping.values()), default=0):
        raise UsageError("fitted damping", found=f"fewer than {leads} leads", remedy=f"fit_climate(..., leads={leads})")
    return climate
