"""The bridge from tensors back to cubes: run a network after reference times and dress its output as a forecast."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from cubecast.channels import Array, Channels
from cubecast.config import ModelConfig
from cubecast.cube import channel_names, locate, positions, sequence_dim, space_dims, window_starts
from cubecast.errors import InputError, ModelMismatchError, UsageError
from cubecast.nn.members import draw_pairs
from cubecast.product import build_forecast
from cubecast.progress import Progress, follow
from cubecast.steps import Step

MEMBERS = 24
"""How many members are averaged where a network with noise is asked for one forecast."""
AT_ONCE = 8
"""Members that are computed together."""


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
    members: int | None = None,
    seed: int = 0,
    attrs: Mapping[str, Any],
    progress: Progress | None = None,
) -> xr.Dataset:
    """The forecast Dataset of a network after the frames at ``index``, one reference at a time.

    Pixels that were never observed in the history stay missing in the forecast. With ``members`` it has that many
    realizations. A network with noise that is asked for none gives the mean of `MEMBERS`, in the cube's units. The
    noise depends on ``seed`` and the reference time alone.

    Raises:
        InputError: a history without a single observed value.
    """
    dim = sequence_dim(cube)
    single = channel_names(cube) if len(channels.inputs) == 1 else None
    shape = tuple(cube.sizes[d] for d in space_dims(cube))
    names = {name: single[0] if single else name for name in channels.outputs}
    size = (horizon, *shape) if members is None else (members, horizon, *shape)
    values = {name: np.empty((len(index), *size), np.float32) for name in names.values()}
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
        own = _noise_seed(seed, cube[dim].values[last])
        valid = step.add(cube[dim].values[last], np.arange(1, horizon + 1))
        for first, outputs in _ask(network, frames, horizon, members=members, seed=own, autocast=autocast):
            for c, (name, out_name) in enumerate(names.items()):
                like = _like(cube, valid, out_name)
                seen = observed[:, c].any(axis=0).reshape(shape)
                for number, output in enumerate(outputs):
                    field = np.where(seen, channels.decode(name, output[:, c], like), np.nan)
                    if members is not None:
                        values[out_name][i, first + number] = field
                    else:
                        _average(values[out_name][i], field, first + number)
    return build_forecast(values, cube, reference=cube[dim].values[list(index)], step=step, attrs=attrs)


def _ask(
    network: nn.Module,
    frames: torch.Tensor,
    horizon: int,
    *,
    members: int | None,
    seed: int,
    autocast: torch.dtype | None,
) -> Iterator[tuple[int, Array]]:
    """Number of the first of some members, and their fields in model space (member, horizon, output, y, x)."""
    noise = draw_pairs(network, frames, horizon, members=members or MEMBERS, seed=seed)
    parts: Sequence[torch.Tensor | None] = [None] if noise is None else noise.split(AT_ONCE)
    for number, part in enumerate(parts):
        with torch.no_grad(), torch.autocast(frames.device.type, autocast, enabled=autocast is not None):
            output = network(frames, horizon) if part is None else network(frames, horizon, part)
        yield number * AT_ONCE, output.float().cpu().numpy()


def _average(mean: Array, field: Array, number: int) -> None:
    """Take field ``number`` (from 0) into the mean of those before it."""
    if number:
        mean += (field - mean) / (number + 1)
    else:
        mean[...] = field


def _noise_seed(seed: int, reference: Any) -> int:
    bits = np.asarray(reference).view(np.uint64 if np.asarray(reference).itemsize == 8 else np.uint32)
    return int(np.random.SeedSequence([seed, int(bits)]).generate_state(1)[0])


def check_members(members: int | None, config: ModelConfig) -> None:
    """Refuse members of a model that has none.

    Raises:
        UsageError: below 1, or a model without noise.
    """
    if members is not None and (members < 1 or not config.noise_channels):
        raise UsageError(
            "members",
            found=f"{members} of a model with {config.noise_channels} noise channels",
            allowed="1 or more, of a model with noise",
            remedy="train a model with --set noise_channels=4 --set loss.kind=crps",
        )


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
