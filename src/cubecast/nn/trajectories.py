"""Where air came from, and where it was: its ways in a motion that goes with it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from cubecast.errors import UsageError
from cubecast.nn.box import Box
from cubecast.nn.sampling import sample
from cubecast.shapes import Displaced, Motion

SPACING = 4
"""Trajectories start at every fourth pixel or closer and are interpolated between: motion is smooth."""
ITERATIONS = 2
"""Of the fixed point, at each lead; the next lead starts from there."""
PART = 0.7
"""How wide, as a part of the way that air goes, the window is that its motion is taken from. A narrow window knows the
motion of now better, a wide one that of an hour. On radars that move 1 to 11 pixels a step this or wider is best."""


@final
class Trajectories:
    """Where the air came from; asked for step by step, and window by window.

    At the reference time the air at x moves with v(x), and each parcel keeps its velocity, before and after:

        k steps before it was at      x - k v(x)
        l steps after, at x is what was at X_l(x),  X_l(x) + l v_l(X_l(x)) = x

    The second is solved by fixed-point iteration from lead to lead. In a field of motion that stands still the air
    would turn with each whirl that it passes; but what makes radar's whirls moves with the rain.

    With motions within wider windows v_l is that within `PART` of the way l |v|, where this is wider than the
    narrowest; |v| is within the widest, and between two windows v_l goes with the logarithm. Without, v_l is v.

    Outside of the grid the motion is that of the nearest pixel of its edge. Trajectories start at nodes, the first and
    last of which are pixels, and are interpolated between: motion is smooth.

    Args:
        motions: pixels a step (batch, 2, y, x); or several, as `cubecast.nn.motion.estimate_motions` finds them.
        spacing: largest distance of nodes, in pixels.
        dtype: that trajectories are followed in; None: that of the motion.

    Raises:
        UsageError: spacing below 1.
    """

    def __init__(
        self,
        motions: Motion | Iterable[tuple[float, Motion]],
        *,
        spacing: int = SPACING,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_positive("spacing", spacing)
        at_nodes: list[Tensor] = []
        for window, motion in [(math.inf, motions)] if isinstance(motions, Tensor) else motions:
            self.size, self._dtype, self._window = (motion.shape[2], motion.shape[3]), motion.dtype, window
            nodes = tuple(math.ceil((n - 1) / spacing) + 1 for n in self.size)
            exact = None if motion.device.type == "mps" else dtype  # Apple's has no float64
            at_nodes.insert(0, _resize(motion, nodes).to(exact or motion.dtype).flip(1))  # x first
        self._levels = torch.cat(at_nodes, dim=1)  # the narrowest window first

    @property
    def _velocity(self) -> Tensor:
        """At the reference time, at all nodes (batch, 2, y, x)."""
        return self._levels[:, :2]

    def speeds(self, box: Box) -> Tensor:
        """How far the air goes in a step, within the widest window: at the pixels of a window (batch, y, x)."""
        return _speed(self._between_nodes(self._levels[:, -2:, *self._nodes_of(box)], box))[:, 0]

    def arriving(self, steps: int, box: Box | None = None) -> Iterator[Displaced]:
        """From each pixel of a window (None: of all) to where its air was 1, 2, ... ``steps`` steps before.

        Raises:
            UsageError: steps below 1.
        """
        box = box or Box.whole(self.size)
        return (self._between_nodes(way, box) for way in self._followed(steps, *self._nodes_of(box)))

    def passed(self, steps: int, box: Box | None = None) -> Iterator[Displaced]:
        """From each pixel of a window to where the air that is there at the reference time was so many steps before.

        Raises:
            UsageError: steps below 1.
        """
        box = box or Box.whole(self.size)
        return _straight(self._between_nodes(self._velocity[:, :, *self._nodes_of(box)], box), steps)

    def reach_arriving(self, steps: int, box: Box, *, beside: float = 0.0) -> Box:
        """The window that holds where the air of a window comes from, and the window; of what is mirrored, the image.

        ``beside`` is how far it may come from elsewhere, as a share of the way.
        """
        return self._reach(self._followed(steps, *self._nodes_of(box)), box, beside)

    def reach_passed(self, steps: int, box: Box) -> Box:
        """The window that holds where the air of a window was before, and the window."""
        return self._reach(_straight(self._velocity[:, :, *self._nodes_of(box)], steps), box, 0.0)

    def _reach(self, ways: Iterator[Tensor], box: Box, beside: float) -> Box:
        rows, columns = self._nodes_of(box)
        start = self._places(rows, columns)
        ends = torch.stack([end for way in ways for end in _extent(start + way, beside * way.norm(dim=1))])
        (x0, y0), (x1, y1) = ends[0::2].amin(0).tolist(), ends[1::2].amax(0).tolist()
        (y0, y1), (x0, x1) = (
            (max(0, min(first, math.floor(min(a, 2 * n - 2 - b)))), min(n, max(stop, math.ceil(max(b, -a)) + 1)))
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

    def _nodes_of(self, box: Box) -> tuple[slice, slice]:
        """The nodes around a window."""
        ny, nx = self._velocity.shape[2:]
        y, x = self._density
        rows = slice(math.floor(box.y0 * y), min(ny, math.ceil((box.y1 - 1) * y) + 1))
        return rows, slice(math.floor(box.x0 * x), min(nx, math.ceil((box.x1 - 1) * x) + 1))

    def _places(self, rows: slice, columns: slice) -> Tensor:
        """The pixels that some nodes are (2, y, x)."""
        y, x = (
            torch.linspace(0, max(n - 1, 0), m, device=self._velocity.device, dtype=self._velocity.dtype)
            for n, m in zip(self.size, self._velocity.shape[2:], strict=True)
        )
        return torch.stack(torch.broadcast_tensors(x[None, columns], y[rows, None]))

    def _followed(self, steps: int, rows: slice, columns: slice) -> Iterator[Tensor]:
        """From some nodes to where their air was, step by step (batch, 2, y, x)."""
        check_positive("steps", steps)
        start, velocity = self._places(rows, columns), self._velocity[:, :, rows, columns]
        for lead in range(1, steps + 1):
            for _ in range(ITERATIONS):
                velocity = self._at(start - lead * velocity, lead)
            yield -lead * velocity

    def _at(self, pixels: Tensor, lead: int) -> Tensor:
        """The velocity of air for so many steps at places (batch, 2, y, x), those beyond the grid as at its edge."""
        at = (pixels * pixel(self.size, pixels) - 1).permute(0, 2, 3, 1)
        levels = sample(self._levels, at, beyond="border").unflatten(1, (-1, 2))
        way = lead * _speed(levels[:, -1:])
        place = (PART * way / self._window).clamp(min=1).log2().clamp(max=levels.shape[1] - 1)
        number = torch.arange(levels.shape[1], device=place.device).view(-1, 1, 1, 1)
        return ((1 - (place - number).abs()).clamp(min=0) * levels).sum(dim=1)

    def _between_nodes(self, field: Tensor, box: Box) -> Tensor:
        """At the pixels of a window, from the nodes around it."""
        rows, columns = self._nodes_of(box)
        along_x = _between(field.to(self._dtype), 3, (box.x0, box.x1), columns.start, self._density[1])
        return _between(along_x, 2, (box.y0, box.y1), rows.start, self._density[0])


def places(moved: Displaced, box: Box, window: Box) -> Tensor:
    """Points of ``window``, as `torch.nn.functional.grid_sample` has them, ``moved`` away from the pixels of a box.

    In memory x and y of all points are apart, as in ``moved``: arithmetic of either is fast so.
    """
    y0, x0 = box.y0 - window.y0, box.x0 - window.x0
    y = torch.arange(y0, y0 + box.shape[0], device=moved.device, dtype=moved.dtype)
    x = torch.arange(x0, x0 + box.shape[1], device=moved.device, dtype=moved.dtype)
    unit = pixel(window.shape, moved)
    start = torch.stack(torch.broadcast_tensors(unit[0] * x - 1, (unit[1] * y[:, None] - 1)))
    return torch.addcmul(start, moved, unit).movedim(1, -1)


def pixel(size: tuple[int, int], like: Tensor) -> Tensor:
    """The size of a pixel of a grid (y, x), along x and y (2, 1, 1), as `torch.nn.functional.grid_sample` counts."""
    return like.new_tensor([2 / max(n - 1, 1) for n in reversed(size)])[:, None, None]


def _straight(velocity: Tensor, steps: int) -> Iterator[Tensor]:
    """To where air was that keeps its velocity, 1, 2, ... ``steps`` steps before."""
    check_positive("steps", steps)
    return (-back * velocity for back in range(1, steps + 1))


def _speed(velocity: Tensor) -> Tensor:
    """How fast it is (..., 1, y, x); no pixel stands quite still, for the slope of the root."""
    x, y = velocity.split(1, dim=-3)
    return torch.addcmul(x * x + 1e-12, y, y).sqrt()


def _extent(pixels: Tensor, beside: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the largest x and y of places that may be so far away."""
    low, high = pixels - beside[:, None], pixels + beside[:, None]
    return low.amin(dim=(0, 2, 3)), high.amax(dim=(0, 2, 3))


def _between(nodes: Tensor, dim: int, pixels: tuple[int, int], first: int, density: float) -> Tensor:
    """Linear between nodes along ``dim``, of which the first is number ``first`` of the grid: at a range of pixels."""
    at = torch.arange(*pixels, device=nodes.device, dtype=torch.float64) * density - first
    low = at.long().clamp(max=nodes.shape[dim] - 1)
    high = (low + 1).clamp(max=nodes.shape[dim] - 1)
    weight = (at - low).to(nodes.dtype).view(-1, *(1,) * (nodes.ndim - 1 - dim))
    return torch.lerp(nodes.index_select(dim, low), nodes.index_select(dim, high), weight)


def check_positive(name: str, number: int) -> None:
    """Raises `UsageError` for a number below 1."""
    if number < 1:
        raise UsageError(name, found=number, allowed="1 or more")


def _resize(field: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bilinear between nodes of which the first and last are pixels: exact for what is linear in space."""
    return field if field.shape[2:] == size else F.interpolate(field, size=size, mode="bilinear", align_corners=True)
