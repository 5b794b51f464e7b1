"""Semi-Lagrangian advection: what the air carried to each pixel.

Differentiable in fields and motion (backward passes on CUDA add in any order: reproducible there to rounding only).
"""

from __future__ import annotations

import torch
from torch import Tensor

from cubecast.nn.box import Box
from cubecast.nn.sampling import sample
from cubecast.nn.trajectories import SPACING, Trajectories, places
from cubecast.shapes import Carried, CarriedMask, Elsewhere, Field, Frames, Motion, Observed, ObservedField, Points

SHARE = 0.499
"""An interpolated value is observed when more than this share of its weight is: half of it, whatever the rounding."""


def advect(
    field: Field, motion: Motion, steps: int, *, observed: ObservedField | None = None
) -> tuple[Frames, Observed]:
    """``field`` carried along ``motion``, unchanged from within, for 1, 2, ... ``steps`` steps.

        f_l(x) = f_0(X_l(x)),   X_l(x) + l motion(X_l(x)) = x

    The air keeps its motion: it goes straight on, and the field of motion goes with it (`Trajectories`). The field is
    interpolated once, bilinearly, at where its air came from: no diffusion adds up over leads (semi-Lagrangian:
    Germann and Zawadzki 2002, DOI 10.1175/1520-0493(2002)130<2859:SDOTPO>2.0.CO;2, where the motion stands still).

    Args:
        field: (batch, channel, y, x).
        motion: pixels a step (batch, 2, y, x).
        steps: number of leads.
        observed: (batch, channel, y, x), True where the field was observed; None: everywhere.

    Returns:
        The fields (batch, steps, channel, y, x), 0 where missing, and where they are not: missing is what comes from
        outside of the grid, or from where most of the field was not observed.

    Raises:
        UsageError: steps below 1.
    """
    repeated = None if observed is None else observed[:, None].expand(-1, steps, -1, -1, -1)
    return interpolate(field[:, None].expand(-1, steps, -1, -1, -1), trajectories(motion, steps), observed=repeated)


def trajectories(motion: Motion, steps: int, *, spacing: int = SPACING) -> Points:
    """Where the air at each pixel was 1, 2, ... ``steps`` steps before, as `Trajectories.arriving` has it.

    Args:
        motion: pixels a step (batch, 2, y, x).
        steps: as in `advect`.
        spacing: trajectories start at least this densely, in pixels.

    Raises:
        UsageError: steps or spacing below 1.
    """
    paths = Trajectories(motion, spacing=spacing)
    whole = Box.whole(paths.size)
    return torch.stack([places(moved, whole, whole) for moved in paths.arriving(steps)], dim=1)


def interpolate(frames: Frames, points: Elsewhere, *, observed: Observed | None = None) -> tuple[Carried, CarriedMask]:
    """Each of ``frames`` at its own points, bilinear among what was observed: values (0 where missing) and mask."""
    values, seen = [], []
    for step in range(frames.shape[1]):
        field = frames[:, step].to(points.dtype)
        mask = torch.ones_like(field) if observed is None else observed[:, step]
        value, there = among_observed(field, mask, points[:, step])
        values.append(value.to(frames.dtype))
        seen.append(there)
    return torch.stack(values, dim=1), torch.stack(seen, dim=1)


def among_observed(fields: Tensor, mask: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """`interpolate` for one step; ``mask`` of each channel, or one for all (batch, channel or 1, y, x)."""
    weight = mask.to(fields.dtype)
    both = sample(torch.cat([fields * weight, weight], dim=1), points)
    value, share = both.tensor_split([fields.shape[1]], dim=1)
    there = share > SHARE
    return torch.where(there, value / share.clamp(min=SHARE), 0.0), there
