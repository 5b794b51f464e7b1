"""The nowcast that moves what there is: extrapolation along the motion of the last frames.

The operational baseline for radar rain, beside those of `cubecast.baselines`. It costs well under a second a field.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from cubecast import units
from cubecast.baselines import build_baseline, check_horizon, find_references
from cubecast.cube import channel_names, cube_step, select_channel, sequence_dim, space_dims
from cubecast.errors import UsageError
from cubecast.forecast import reference_index
from cubecast.nn.advection import advect
from cubecast.nn.motion import WINDOW, estimate_motion
from cubecast.progress import Progress, follow
from cubecast.scores.spatial import cell_km
from cubecast.training import choose_device

Array = npt.NDArray[Any]

RAIN = (0.1, 50.0)
"""mm h-1: motion is seen in the logarithm of rain between these; below is dry, above hail and clutter."""
WINDOW_KM = 24.0
"""Within this standard deviation motion is about the same; smaller whirls do not live as long as a nowcast."""
WINDOW_PIXELS = (8.0, 64.0)


def extrapolation(
    cube: xr.DataArray,
    *,
    reference: Any,
    horizon: int,
    history: int = 6,
    device: str = "auto",
    progress: Progress | None = None,
) -> xr.Dataset:
    """The last frame, carried along the motion of the history: f(t + l) = x(t) at the place where the air was at t.

    The motion comes from the last ``history`` frames (`cubecast.nn.motion.estimate_motion`), of the logarithm for rain
    and of standardised values for other fields; each variable has its own. The air keeps its motion, and rain neither
    grows nor decays. Missing is what comes from outside of the grid or was missing at the reference time
    (`cubecast.nn.advection.advect`).

    Args:
        cube: what was observed: fields, not point series.
        reference: one or many values of the sequence coordinate, each that of a frame with a complete history.
        horizon: number of leads, in steps.
        history: frames that the motion is estimated from, 2 or more.
        device: ``auto`` is CUDA when present.
        progress: shows how many reference times are done.

    Returns:
        The forecast Dataset of `cubecast.product.build_forecast`, float32.

    Raises:
        UsageError: a point series, a history below 2 or a horizon below 1.
        InputError: a reference time that is not in the cube, or frames missing in its history.
    """
    check_horizon(horizon)
    if history < 2:
        raise UsageError("history of an extrapolation", found=history, allowed="2 or more frames")
    index = find_references(cube, reference)
    if len(space_dims(cube)) != 2:
        raise UsageError("extrapolation", found=f"space dims {space_dims(cube)}", allowed="fields with two of them")
    dim, step, place = sequence_dim(cube), cube_step(cube), choose_device(device)
    times = cube[dim].values[index]
    reference_index(cube, times, history=history, step=step)
    window = _window(cube)
    shape = (len(times), horizon, *(cube.sizes[d] for d in space_dims(cube)))
    values = {name: np.empty(shape, np.float32) for name in channel_names(cube)}
    for i, last in enumerate(follow(index.tolist(), "extrapolating", len(index), progress)):
        past = cube.isel({dim: slice(last + 1 - history, last + 1)}).load()
        for name, array in values.items():
            array[i] = _carry(units.with_floor(select_channel(past, name)), horizon, window, place)
    about = f"the last observed frame, carried along the motion of {history} frames"
    return build_baseline(values, cube, times, "extrapolation", about)


def is_rain_field(cube: xr.DataArray) -> bool:
    """Whether a cube holds fields of rain rates or reflectivity (its first variable does)."""
    return len(space_dims(cube)) == 2 and units.is_rain(select_channel(cube, channel_names(cube)[0]))


def _window(cube: xr.DataArray) -> float:
    """The window of the motion in pixels."""
    side = cell_km(cube)
    return WINDOW if side is None else float(np.clip(WINDOW_KM / side, *WINDOW_PIXELS))


def find_motion(past: xr.DataArray, *, device: str = "auto") -> Array:
    """The motion of all frames of a history: pixels a step towards growing y and x, (2, y, x) float32.

    Args:
        past: 2 frames or more of one field (time, y, x), NaN where missing.
        device: ``auto`` is CUDA when present.

    Raises:
        UsageError: fewer than 2 frames.
    """
    return _motion(past.load(), _window(past), choose_device(device))[0].cpu().numpy()


def _motion(past: xr.DataArray, window: float, device: torch.device) -> torch.Tensor:
    observed = np.isfinite(past.values)
    seen = torch.from_numpy(observed)[None, :, None].to(device)
    visible = torch.from_numpy(np.where(observed, _visible(past, observed), 0).astype(np.float32))[None, :, None]
    with torch.no_grad():
        return estimate_motion(visible.to(device), seen, window=window)


def _carry(past: xr.DataArray, horizon: int, window: float, device: torch.device) -> Array:
    """The last frame of a history (time, y, x) at every lead, NaN where missing."""
    values = past.values[-1]
    seen = torch.from_numpy(np.isfinite(values))[None, None].to(device)
    last = torch.from_numpy(np.nan_to_num(values, nan=0.0).astype(np.float32))[None, None].to(device)
    carried, there = advect(last, _motion(past, window, device), horizon, observed=seen)
    return torch.where(there, carried, torch.nan)[0, :, 0].cpu().numpy()


def _visible(past: xr.DataArray, observed: Array) -> Array:
    """Values in which motion is well seen: nothing spikes."""
    if units.is_rain(past):
        low, high = RAIN
        return np.log(np.clip(units.convert_units(past, "mm h-1").values, low, high) / low)
    known = past.values[observed].astype(np.float64)
    spread = float(known.std()) if known.size else 0.0
    return (past.values - (known.mean() if known.size else 0.0)) / (spread or 1.0)
