"""The bridge from tensors back to cubes: run a network after reference times and dress its output as a forecast."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from cubecast.channels import Array, Channels
from cubecast.config import ModelConfig
from cubecast.cube import locate, positions, sequence_dim, space_dims, window_starts
from cubecast.errors import InputError, ModelMismatchError, UsageError
from cubecast.nn.members import Forecasts, draw_pairs, forecasts
from cubecast.product import build_forecast
from cubecast.progress import Progress, follow
from cubecast.shapes import Forecast, Frames, Noise, Observed
from cubecast.steps import Step, parse_time

MEMBERS = 8
"""How many members are averaged where a network with noise in its layers is asked for one forecast: four pairs."""
AT_ONCE = 8
"""Members that are computed together."""


def reference_index(cube: xr.DataArray, at: Sequence[Any] | Array | None, *, history: int, step: Step) -> list[int]:
    """Index of the last observed frame of each forecast; None asks for the last frame of the cube.

    Raises:
        InputError: a time that is not in the cube, too few frames before it, or frames missing among them.
        UsageError: no time, or no number where the sequence is none of times.
    """
    dim = sequence_dim(cube)
    values = cube[dim].values
    place = positions(cube, step)
    try:
        wanted = values[-1:] if at is None else np.atleast_1d(np.asarray(at)).astype(values.dtype)
    except (ValueError, TypeError) as error:
        raise UsageError(f"reference {dim}", found=at, allowed=f"values of {dim!r}") from error
    found = []
    for value, index in zip(wanted, locate(cube, wanted, step).tolist(), strict=True):
        if index < 0:
            raise InputError(
                f"reference {dim} {_show(value)} is not in the cube",
                found=f"{len(values)} frames from {_show(values[0])} to {_show(values[-1])}",
                allowed=f"the {dim} of one of its frames",
            )
        if index + 1 < history:
            allowed = f"{history} (the model's history)"
            raise InputError(f"too few frames up to {_show(value)}", found=index + 1, allowed=allowed)
        if missing := place[index] - place[index + 1 - history] - history + 1:
            raise InputError(
                f"frames are missing before {_show(value)}",
                found=f"{missing} missing of the last {history} steps",
                allowed="a complete history",
                remedy=f"choose another reference {dim}",
            )
        found.append(index)
    return found


def read_reference(text: Any, cube: xr.DataArray) -> Any:
    """A reference as text, as a value of the sequence coordinate: a time, or a number for another sequence (depth).

    Raises:
        UsageError: neither.
    """
    kind = cube[sequence_dim(cube)].dtype.kind
    try:
        return parse_time(str(text)) if kind == "M" else float(text)
    except ValueError:
        allowed = "a time such as 2017-05-09T12:30" if kind == "M" else "a number"
        raise UsageError("--at", found=repr(text), allowed=allowed) from None


def possible_references(cube: xr.DataArray, *, history: int) -> Array:
    """Every value of the sequence coordinate that has a complete history of frames."""
    return cube[sequence_dim(cube)].values[window_starts(cube, history) + history - 1]


@dataclass(frozen=True)
class Run:
    """What turns histories of a cube into forecasts.

    Without ``members`` a network with noise in its layers gives the mean of `MEMBERS`, in the cube's units; there is
    neither noise for what fades, then, nor do they stray from the motion. The noise depends on ``seed`` and the
    reference time alone.
    """

    network: nn.Module
    channels: Channels
    cube: xr.DataArray
    step: Step
    history: int
    horizon: int
    static: xr.Dataset | None
    device: torch.device
    autocast: torch.dtype | None = None
    members: int | None = None
    seed: int = 0

    @property
    def names(self) -> dict[str, str]:
        """The output variables, and what they are called in the cube."""
        called = self.channels.called(self.cube)
        return {n: called[n] for n in self.channels.outputs}

    @property
    def size(self) -> tuple[int, ...]:
        """Sizes of the space dims."""
        return tuple(self.cube.sizes[d] for d in space_dims(self.cube))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what is forecast of one variable after one reference time, without the space dims."""
        return (self.horizon,) if self.members is None else (self.members, self.horizon)

    @cached_property
    def planes(self) -> Array | None:
        """The static planes of the cube's grid (field, y, x)."""
        return self.channels.static_planes(self.static, self.cube)

    def crop(self, y: slice, x: slice) -> Run:
        """The same on a window of a grid."""
        window = dict(zip(space_dims(self.cube), (y, x), strict=True))
        static = None if self.static is None else self.static.isel(window, missing_dims="ignore")
        return replace(self, cube=self.cube.isel(window), static=static)

    def read(self, last: int) -> tuple[Frames, Array]:
        """The network's input up to frame ``last``, and where outputs were observed in it (output, y, x)."""
        past = self._past(slice(last + 1 - self.history, last + 1))
        encoded = self.channels.encode(past)
        frames = self.channels.frames(encoded, self.planes, past[sequence_dim(past)].values)
        seen = np.asarray(np.isfinite(encoded[:, : len(self.names)]).any(axis=0))
        return torch.from_numpy(frames[None]).to(self.device), seen

    def read_frame(self, number: int) -> tuple[Frames, Observed]:
        """The output variables of one frame, and where they were observed (1, 1, output, y, x)."""
        encoded = self.channels.encode(self._past(slice(number, number + 1)))[:, : len(self.names)]
        observed = np.isfinite(encoded)
        values = np.where(observed, encoded, np.float32(0))
        return torch.from_numpy(values[None]).to(self.device), torch.from_numpy(observed[None]).to(self.device)

    def check_observed(self, last: int, seen: bool) -> None:
        """Refuse a history without a single observed value.

        Raises:
            InputError: ``seen`` is false.
        """
        if not seen:
            what, remedy = f"the history up to {_show(self._reference(last))}", "look at it with cubecast info"
            raise InputError(f"{what} is all missing", found="no observed value", allowed="at least one", remedy=remedy)

    def ask(
        self,
        forecast: Callable[[Noise | None], Forecast],
        like: Frames,
        last: int,
        *,
        corner: tuple[int, int] = (0, 0),
    ) -> Iterator[Array]:
        """Forecasts in model space, some members at a time (member, horizon, output, y, x).

        Args:
            forecast: of one sample, given the noise of some members.
            like: what the noise is like: frames of the network's window of the grid.
            last: index of the reference.
            corner: of that window.
        """
        total = self.members or MEMBERS
        for group, first in enumerate(range(0, total, AT_ONCE)):
            count = min(AT_ONCE, total - first)
            state = np.random.SeedSequence([self.seed, _bits(self._reference(last)), group]).generate_state(1)
            how: dict[str, Any] = {"seed": int(state[0]), "corner": corner, "renewing": self.members is not None}
            noise = draw_pairs(self.network, like, self.horizon, members=count, **how)
            with torch.no_grad(), torch.autocast(like.device.type, self.autocast, enabled=self.autocast is not None):
                output = forecast(noise)
            yield output.float().cpu().numpy()
            if noise is None:
                return

    def fill(self, out: Sequence[Array], outputs: Iterator[Array], seen: Array, last: int) -> None:
        """Put forecasts in units into ``out``, an array ([member,] horizon, *space) for each output variable.

        Pixels that were never observed in the history stay missing.
        """
        reference, done = self._reference(last), 0
        valid = self.step.add(reference, np.arange(1, self.horizon + 1))
        for part in outputs:
            for c, (name, out_name) in enumerate(self.names.items()):
                there = seen[c].reshape(self.size)
                leads = [slice(lead, lead + 1) for lead in range(self.horizon)]  # each alone stays in the cache
                likes = [_like(self.cube, valid[lead], out_name) for lead in leads]
                for number, output in enumerate(part, start=done):
                    for lead, like in zip(leads, likes, strict=True):
                        field = self.channels.decode(name, output[lead, c], like)
                        field[:, ~there] = np.nan
                        if self.members is not None:
                            out[c][number, lead] = field
                        else:
                            _average(out[c][lead], field, number)
            done += len(part)

    def dress(self, values: Sequence[Any], references: Array, attrs: Mapping[str, Any]) -> xr.Dataset:
        """The forecast Dataset of one array (reference, [member,] horizon, *space) for each output variable."""
        named = dict(zip(self.names.values(), values, strict=True))
        return build_forecast(named, self.cube, reference=references, step=self.step, attrs=attrs)

    def references(self, index: Sequence[int]) -> Array:
        """The reference times of frames."""
        return self.cube[sequence_dim(self.cube)].values[list(index)]

    def _past(self, frames: slice) -> xr.DataArray:
        return self.cube.isel({sequence_dim(self.cube): frames}).load()

    def _reference(self, last: int) -> Any:
        return self.references([last])[0]


def run_whole(
    run: Run, index: Sequence[int], *, attrs: Mapping[str, Any], progress: Progress | None = None
) -> xr.Dataset:
    """The forecast Dataset after the frames at ``index``, one reference at a time, on the whole grid at once.

    Raises:
        InputError: a history without a single observed value.
    """
    values = [np.empty((len(index), *run.shape, *run.size), np.float32) for _ in run.names]
    for i, last in enumerate(follow(index, "forecasting", len(index), progress)):
        frames, seen = run.read(last)
        run.check_observed(last, bool(seen.any()))
        # Made within `ask`: without gradients, in its precision.
        shared = cache(partial(forecasts, run.network, frames, run.horizon, steady=run.members is None))

        def forecast(noise: Noise | None, shared: Callable[[], Forecasts] = shared) -> Forecast:
            return shared()(noise)

        run.fill([v[i] for v in values], run.ask(forecast, frames, last), seen, last)
    return run.dress(values, run.references(index), attrs)


def _average(mean: Array, field: Array, number: int) -> None:
    """Take field ``number`` (from 0) into the mean of those before it."""
    if number:
        mean += (field - mean) / (number + 1)
    else:
        mean[...] = field


def _bits(reference: Any) -> int:
    value = np.asarray(reference)
    return int(value.view(f"u{value.itemsize}"))


def check_members(members: int | None, config: ModelConfig) -> None:
    """Refuse members of a model that has none.

    Raises:
        UsageError: below 1, or a model without noise.
    """
    if members is not None and (members < 1 or not config.has_members):
        raise UsageError(
            "members",
            found=f"{members} of a model {'with' if config.has_members else 'without'} members",
            allowed="1 or more, of a model with members",
            remedy="train a model with --set renewal=true --set loss.kind=crps",
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
