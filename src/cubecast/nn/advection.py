"""Semi-Lagrangian advection: where the air at each pixel came from, and what it carried there.

Differentiable in fields and motion (backward passes on CUDA add in any order: reproducible there to rounding only).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from cubecast.errors import UsageError
from cubecast.nn.box import Box
from cubecast.shapes import (
    Carried,
    CarriedMask,
    Elsewhere,
    Field,
    Frames,
    Motion,
    Observed,
    ObservedField,
    Points,
)

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
    """Where the air at each pixel was 1, 2, ... ``steps`` steps before: the points of `Trajectories`, all at once.

    Args:
        motion: pixels a step (batch, 2, y, x).
        steps, substeps: as in `advect`.
        spacing: trajectories start at least this densely, in pixels.

    Raises:
        UsageError: steps, substeps or spacing below 1.
    """
    return torch.stack(list(Trajectories(motion, substeps=substeps, spacing=spacing).points(steps)), dim=1)


@final
class Trajectories:
    """Where the air came from, in a motion that stands still; asked for step by step, and window by window.

    Outside of the grid the motion is that of the nearest pixel of its edge. Trajectories start at nodes, the first and
    last of which are pixels, and are interpolated between: motion is smooth.

    Args:
        motion: pixels a step (batch, 2, y, x).
        substeps: mid-point steps a step.
        spacing: largest distance of nodes, in pixels.
        dtype: of the points; None: that of the motion. In float32 a point is known to about 6e-8 of the grid's size.

    Raises:
        UsageError: substeps or spacing below 1.
    """

    def __init__(
        self, motion: Motion, *, substeps: int = 1, spacing: int = SPACING, dtype: torch.dtype | None = None
    ) -> None:
        for name, number in (("substeps", substeps), ("spacing", spacing)):
            _check_positive(name, number)
        self.size, self.substeps = (motion.shape[2], motion.shape[3]), substeps
        nodes = tuple(math.ceil((n - 1) / spacing) + 1 for n in self.size)
        velocity = _resize(motion, nodes).to(dtype or motion.dtype)
        unit = velocity.new_tensor([2 / max(n - 1, 1) / substeps for n in self.size]).view(1, 2, 1, 1)
        self._velocity = (velocity * unit).flip(1)

    def points(self, steps: int, box: Box | None = None) -> Iterator[Tensor]:
        """The points (batch, y, x, 2) of the pixels of a window (None: of all) after 1, 2, ... ``steps`` steps.

        Raises:
            UsageError: steps below 1.
        """
        rows, columns = self._nodes_of(box)
        for place in self._followed(steps, rows, columns):
            if box is None:
                yield _resize(place.permute(0, 3, 1, 2), self.size).permute(0, 2, 3, 1)
            else:
                along_y = _between(place, 1, (box.y0, box.y1), rows.start, self._density[0])
                yield _between(along_y, 2, (box.x0, box.x1), columns.start, self._density[1])

    def reach(self, steps: int, box: Box) -> Box:
        """The window that holds what a window's points of ``steps`` steps are interpolated from, and the window."""
        ends = [n.flatten(0, 2) for n in self._followed(steps, *self._nodes_of(box))]
        low, high = torch.stack([n.amin(0) for n in ends]).amin(0), torch.stack([n.amax(0) for n in ends]).amax(0)
        (x0, y0), (x1, y1) = (((n + 1) / 2 * n.new_tensor(self.size[::-1]).sub(1)).tolist() for n in (low, high))
        (y0, y1), (x0, x1) = (
            (max(0, min(first, math.floor(a))), min(n, max(stop, math.ceil(b) + 1)))
            for a, b, first, stop, n in zip(
                (y0, x0), (y1, x1), (box.y0, box.x0), (box.y1, box.x1), self.size, strict=True
            )
        )
        return Box(y0, y1, x0, x1)

    @property
    def _density(self) -> tuple[float, float]:
        """Nodes a pixel, along y and x."""
        nodes = self._velocity.shape[2:]
        return (nodes[0] - 1) / max(self.size[0] - 1, 1), (nodes[1] - 1) / max(self.size[1] - 1, 1)

    def _nodes_of(self, box: Box | None) -> tuple[slice, slice]:
        """The nodes around a window."""
        ny, nx = self._velocity.shape[2:]
        if box is None:
            return slice(0, ny), slice(0, nx)
        y, x = self._density
        rows = slice(math.floor(box.y0 * y), min(ny, math.ceil((box.y1 - 1) * y) + 1))
        return rows, slice(math.floor(box.x0 * x), min(nx, math.ceil((box.x1 - 1) * x) + 1))

    def _followed(self, steps: int, rows: slice, columns: slice) -> Iterator[Tensor]:
        """Where the air of some nodes was, step by step (batch, y, x, 2)."""
        _check_positive("steps", steps)
        velocity = self._velocity
        place = _pixels(velocity)[:, rows, columns].expand(velocity.shape[0], -1, -1, -1)
        for _ in range(steps):
            for _ in range(self.substeps):
                middle = place - _at(velocity, place) / 2
                place = place - _at(velocity, middle)
            yield place


def within(points: Tensor, size: tuple[int, int], box: Box) -> Tensor:
    """Points of a grid of ``size`` as points of a window of it."""
    if box.shape == size:
        return points
    (ny, nx), (rows, columns) = size, box.shape
    pixels = (points + 1) / 2 * points.new_tensor([nx - 1, ny - 1]) - points.new_tensor([box.x0, box.y0])
    return pixels * (2 / points.new_tensor([max(columns - 1, 1), max(rows - 1, 1)])) - 1


def interpolate(frames: Frames, points: Elsewhere, *, observed: Observed | None = None) -> tuple[Carried, CarriedMask]:
    """Each of ``frames`` at its own points, bilinear among what was observed: values (0 where missing) and mask."""
    values, seen = [], []
    for step in range(frames.shape[1]):
        field = frames[:, step].to(points.dtype)
        mask = torch.ones_like(field) if observed is None else observed[:, step].to(field.dtype)
        both = torch.cat([field * mask, mask], dim=1)
        value, share = F.grid_sample(both, points[:, step], align_corners=True).chunk(2, dim=1)
        there = share > SHARE
        values.append(torch.where(there, value / share.clamp(min=SHARE), 0.0).to(frames.dtype))
        seen.append(there)
    return torch.stack(values, dim=1), torch.stack(seen, dim=1)


def displaced(motion: Motion, rows: slice) -> Elsewhere:
    """The points ``motion`` away from each pixel of some rows, as one step of `Points`."""
    unit = motion.new_tensor([2 / max(n - 1, 1) for n in motion.shape[2:]]).view(1, 2, 1, 1)
    return (_pixels(motion)[:, rows] + (motion[:, :, rows] * unit).flip(1).permute(0, 2, 3, 1))[:, None]


def _pixels(like: Tensor) -> Tensor:
    """The places of all pixels (1, y, x, 2)."""
    y, x = (torch.linspace(-1, 1, n, device=like.device, dtype=like.dtype) for n in like.shape[2:])
    return torch.stack(torch.broadcast_tensors(x[None, :], y[:, None]), dim=-1)[None]


def _at(velocity: Tensor, place: Tensor) -> Tensor:
    return F.grid_sample(velocity, place, padding_mode="border", align_corners=True).permute(0, 2, 3, 1)


def _between(nodes: Tensor, dim: int, pixels: tuple[int, int], first: int, density: float) -> Tensor:
    """Linear between nodes along ``dim``, of which the first is number ``first`` of the grid: at a range of pixels."""
    at = torch.arange(*pixels, device=nodes.device, dtype=torch.float64) * density - first
    low = at.long().clamp(max=nodes.shape[dim] - 1)
    high = (low + 1).clamp(max=nodes.shape[dim] - 1)
    weight = (at - low).to(nodes.dtype).view(-1, *(1,) * (nodes.ndim - 1 - dim))
    return torch.lerp(nodes.index_select(dim, low), nodes.index_select(dim, high), weight)


def _check_positive(name: str, number: int) -> None:
    if number < 1:
        raise UsageError(name, found=number, allowed="1 or more")


def _resize(field: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bilinear between nodes of which the first and last are pixels: exact for what is linear in space."""
    return field if field.shape[2:] == size else F.interpolate(field, size=size, mode="bilinear", align_corners=True)
