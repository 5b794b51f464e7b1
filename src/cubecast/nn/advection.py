"""Semi-Lagrangian advection: where the air at each pixel came from, and what it carried there.

Differentiable in fields and motion (backward passes on CUDA add in any order: reproducible there to rounding only).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from cubecast.errors import UsageError
from cubecast.shapes import Field, Frames, Motion, Observed, ObservedField, Points

SPACING = 4
"""Trajectories start at every fourth pixel or closer and are interpolated between: motion is smooth."""
SHARE = 0.5
"""An interpolated value is observed when more than this share of its weight is."""


def advect(
    field: Field, motion: Motion, steps: int, *, observed: ObservedField | None = None, substeps: int = 1
) -> tuple[Frames, Observed]:
    """``field`` carried along ``motion``, unchanged from within, for 1, 2, ... ``steps`` steps.

        f_l(x) = f_0(X_l(x)),   dX/dl = -motion(X),   X_0(x) = x

    The motion stands still. Its trajectories are followed backwards by the mid-point rule, ``substeps`` times a step
    (second order), and the field is interpolated once, bilinearly, at their ends: no diffusion adds up over leads
    (Germann and Zawadzki 2002, DOI 10.1175/1520-0493(2002)130<2859:SDOTPO>2.0.CO;2).

    Args:
        field: (batch, channel, y, x).
        motion: pixels a step (batch, 2, y, x).
        steps: number of leads.
        observed: (batch, channel, y, x), True where the field was observed; None: everywhere.
        substeps: mid-point steps a step; 1 is enough while motion hardly changes over one displacement.

    Returns:
        The fields (batch, steps, channel, y, x), 0 where missing, and where they are not: missing is what comes from
        outside of the grid, or from where most of the field was not observed.

    Raises:
        UsageError: steps or substeps below 1.
    """
    points = trajectories(motion, steps, substeps=substeps)
    repeated = None if observed is None else observed[:, None].expand(-1, steps, -1, -1, -1)
    return interpolate(field[:, None].expand(-1, steps, -1, -1, -1), points, observed=repeated)


def trajectories(motion: Motion, steps: int, *, substeps: int = 1, spacing: int = SPACING) -> Points:
    """Where the air at each pixel was 1, 2, ... ``steps`` steps before, in a motion that stands still.

    Outside of the grid the motion is that of the nearest pixel of its edge.

    Args:
        motion: pixels a step (batch, 2, y, x).
        steps, substeps: as in `advect`.
        spacing: trajectories start at least this densely, in pixels.

    Raises:
        UsageError: steps, substeps or spacing below 1.
    """
    for name, number in (("steps", steps), ("substeps", substeps), ("spacing", spacing)):
        if number < 1:
            raise UsageError(name, found=number, allowed="1 or more")
    size = (motion.shape[2], motion.shape[3])
    nodes = tuple(math.ceil((n - 1) / spacing) + 1 for n in size)
    unit = motion.new_tensor([2 / max(n - 1, 1) / substeps for n in size]).view(1, 2, 1, 1)
    velocity = _resize(motion * unit, nodes).flip(1)
    place = _pixels(velocity).expand(motion.shape[0], -1, -1, -1)
    found = []
    for _ in range(steps):
        for _ in range(substeps):
            middle = place - _at(velocity, place) / 2
            place = place - _at(velocity, middle)
        found.append(_resize(place.permute(0, 3, 1, 2), size).permute(0, 2, 3, 1))
    return torch.stack(found, dim=1)


def interpolate(frames: Frames, points: Points, *, observed: Observed | None = None) -> tuple[Frames, Observed]:
    """Each of ``frames`` at its own points, bilinear among what was observed: values (0 where missing) and mask."""
    values, seen = [], []
    for step in range(frames.shape[1]):
        field = frames[:, step]
        mask = torch.ones_like(field) if observed is None else observed[:, step].to(field.dtype)
        both = torch.cat([field * mask, mask], dim=1)
        value, share = F.grid_sample(both, points[:, step], align_corners=True).chunk(2, dim=1)
        there = share > SHARE
        values.append(torch.where(there, value / share.clamp(min=SHARE), 0.0))
        seen.append(there)
    return torch.stack(values, dim=1), torch.stack(seen, dim=1)


def displaced(motion: Motion) -> Points:
    """The points ``motion`` away from each pixel, as one step of `Points`."""
    unit = motion.new_tensor([2 / max(n - 1, 1) for n in motion.shape[2:]]).view(1, 2, 1, 1)
    return (_pixels(motion) + (motion * unit).flip(1).permute(0, 2, 3, 1))[:, None]


def _pixels(like: Tensor) -> Tensor:
    """The places of all pixels (1, y, x, 2)."""
    y, x = (torch.linspace(-1, 1, n, device=like.device, dtype=like.dtype) for n in like.shape[2:])
    return torch.stack(torch.broadcast_tensors(x[None, :], y[:, None]), dim=-1)[None]


def _at(velocity: Tensor, place: Tensor) -> Tensor:
    return F.grid_sample(velocity, place, padding_mode="border", align_corners=True).permute(0, 2, 3, 1)


def _resize(field: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bilinear between nodes of which the first and last are pixels: exact for what is linear in space."""
    return field if field.shape[2:] == size else F.interpolate(field, size=size, mode="bilinear", align_corners=True)
