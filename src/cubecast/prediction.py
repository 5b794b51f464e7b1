"""From what a user asks of a model to a run of its network."""

from __future__ import annotations

import xarray as xr
from torch import nn

from cubecast.channels import Channels
from cubecast.config import Config
from cubecast.cube import cube_step
from cubecast.errors import ModelMismatchError, UsageError
from cubecast.forecast import Run, check_members, check_step
from cubecast.precision import choose_autocast
from cubecast.steps import Step
from cubecast.training import choose_device

FARTHEST = 10_000
"""Leads at most: memory for all of them is taken before the first."""


def start_run(
    network: nn.Module,
    channels: Channels,
    step: Step,
    config: Config,
    cube: xr.DataArray,
    *,
    horizon: int | None = None,
    static: xr.Dataset | None = None,
    device: str | None = None,
    precision: str | None = None,
    members: int | None = None,
    seed: int = 0,
) -> Run:
    """The run of a model on a cube that fits its variables; the arguments are those of `cubecast.Nowcaster.predict`.

    Raises:
        ModelMismatchError: another step, or fewer frames than the history.
        UsageError: a horizon below 1 or beyond `FARTHEST`, another precision, or members of a model without noise.
    """
    history, steps = config.task.history, config.task.horizon if horizon is None else horizon
    if cube.shape[0] < history:
        raise ModelMismatchError("the cube is too short", found=f"{cube.shape[0]} frames", allowed=f"{history} or more")
    if cube.shape[0] > 1:
        check_step(cube, cube_step(cube), step)
    if not 1 <= steps <= FARTHEST:
        raise UsageError("horizon", found=steps, allowed=f"1 to {FARTHEST} steps")
    check_members(members, config.model)
    place = choose_device(device or config.training.device)
    return Run(
        network=network.to(place).eval(),
        channels=channels,
        cube=cube,
        step=step,
        history=history,
        horizon=steps,
        static=static,
        device=place,
        autocast=choose_autocast(precision or config.training.precision, place),
        members=members,
        seed=seed,
    )
