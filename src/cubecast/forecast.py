"""The bridge from tensors back to cubes: run a network after reference times and dress its output as a forecast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from cubecast.channels import Array, Channels
from cubecast.cube import channel_names, locate, positions, sequence_dim, space_dims, window_starts
from cubecast.errors import InputError, ModelMismatchError
from cubecast.product import build_forecast
from cubecast.progress import Progress, follow
from cubecast.steps import Step


def reference_index(cube: xr.DataArray, at: Sequence[Any] | Array | None, *, history: int, step: Step) -> list[int]:
    """Index of the last observed frame of each forecast; None asks for the last frame of the cube.

    Raises:
        InputError: a time that is not in the cube, too few frames before it, or frames missing among them.
    """
    dim = sequence_dim(cube)
    values = cube[dim].values
    place = positions(cube, step)
    wanted = values[-1:] if at is None else np.atleast_1d(np.asarray(at)).astype(values.dtype)
    found = []
    for value, index in zip(wanted, locate(cube, wanted, step).tolist(), strict=True):
        if index < 0:
            raise InputError(
                f"reference {dim} {_show(value)} is not in the cube",
                found=f"{len(values)} frames from {_show(values[0])} to {_show(values[-1])}",
                allowed=f"the {dim} of one of its frames",
            )
        if index + 1 < history:
            raise InputError(
                f"too few frames up to {_show(value)}", found=f"{index + 1}", allowed=f"{history} (the model's history)"
            )
        if place[index] - place[index + 1 - history] != history - 1:
            raise InputError(
                f"frames are missing before {_show(value)}",
                found=f"{place[index] - place[index + 1 - history] - history + 1} missing of the last {history} steps",
                allowed="a complete history",
                remedy=f"choose another reference {dim}",
            )
        found.append(index)
    return found


def possible_references(cube: xr.DataArray, *, history: int) -> Array:
    """Every value of the sequence coordinate that has a complete history of frames."""
    return cube[sequence_dim(cube)].values[window_starts(cube, history) + history - 1]


def run_network(
    network: nn.Module,
    channels: Channels,
    cube: xr.DataArray,
    index: Sequence[int],
    *,
    history: int,
    horizon: int,
    step: Step,
    static: Array | None,
    device: torch.device,
    autocast: torch.dtype | None = None,
    attrs: Mapping[str, Any],
    progress: Progress | None = None,
) -> xr.Dataset:
    """The forecast Dataset of a network after the frames at ``index``, one reference at a time.

    Pixels that were never observed in the history stay missing in the forecast.

    Raises:
        InputError: a history without a single observed value.
    """
    dim = sequence_dim(cube)
    single = channel_names(cube) if len(channels.inputs) == 1 else None
    shape = tuple(cube.sizes[d] for d in space_dims(cube))
    names = {name: single[0] if single else name for name in channels.outputs}
    values = {name: np.empty((len(index), horizon, *shape), np.float32) for name in names.values()}
    network.eval()
    for i, last in enumerate(follow(index, "forecasting", len(index), progress)):
        past = cube.isel({dim: slice(last + 1 - history, last + 1)}).load()
        encoded = channels.encode(past)
        observed = np.isfinite(encoded)
        if not observed[:, : len(channels.outputs)].any():
            raise InputError(
                f"the history up to {_show(cube[dim].values[last])} is all missing",
                found="no observed value",
                allowed="at least one",
                remedy="look at the data with cubecast info",
            )
        frames = torch.from_numpy(channels.frames(encoded, static, past[dim].values)[None]).to(device)
        with torch.no_grad(), torch.autocast(device.type, autocast, enabled=autocast is not None):
            output = network(frames, horizon)[0].float().cpu().numpy()
        valid = step.add(cube[dim].values[last], np.arange(1, horizon + 1))
        for c, (name, out_name) in enumerate(names.items()):
            like = _like(cube, valid, out_name)
            field = channels.decode(name, output[:, c], like)
            values[out_name][i] = np.where(observed[:, c].any(axis=0).reshape(shape), field, np.nan)
    return build_forecast(values, cube, reference=cube[dim].values[list(index)], step=step, attrs=attrs)


def check_step(cube: xr.DataArray, found: Step, wanted: Step) -> None:
    """Refuse a cube with another step than the model's.

    Raises:
        ModelMismatchError: the steps differ.
    """
    if found.kind != wanted.kind or not np.isclose(found.size, wanted.size, rtol=1e-3):
        raise ModelMismatchError(
            f"step of {cube.name!r}",
            found=found,
            allowed=f"{wanted} (the step the model was trained for)",
            remedy="resample the cube or train a model for its step",
        )


def _like(cube: xr.DataArray, valid: Array, name: str) -> xr.DataArray:
    """An empty piece of a cube at the valid times, on the cube's space coordinates."""
    dim, space = sequence_dim(cube), space_dims(cube)
    coords = {d: cube[d] for d in space if d in cube.coords}
    data = np.empty((len(valid), *(cube.sizes[d] for d in space)), np.float32)
    return xr.DataArray(data, dims=(dim, *space), coords={dim: valid, **coords}, name=name)


def _show(value: Any) -> str:
    return str(value.astype("datetime64[s]")) if isinstance(value, np.datetime64) else str(value)
