"""A window of a grid, in pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Box:
    """The rows from ``y0`` to ``y1`` and columns from ``x0`` to ``x1`` of a grid, the last ones excluded."""

    y0: int
    y1: int
    x0: int
    x1: int

    @classmethod
    def whole(cls, size: Sequence[int]) -> Box:
        """All of a grid of ``size`` (y, x)."""
        return cls(0, size[0], 0, size[1])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.shape[0] * self.shape[1]

    @property
    def slices(self) -> tuple[slice, slice]:
        """Its rows and columns, as slices of the grid."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def inside(self, other: Box) -> tuple[slice, slice]:
        """Its rows and columns, as slices of an array that covers ``other``."""
        return (
            slice(self.y0 - other.y0, self.y1 - other.y0),
            slice(self.x0 - other.x0, self.x1 - other.x0),
        )

    def grown(self, by: int, multiple: int, size: Sequence[int]) -> Box:
        """Larger by ``by`` pixels on each side and on to the next ``multiple``, within a grid of ``size``."""
        y0, x0 = (max(0, (n - by) // multiple * multiple) for n in (self.y0, self.x0))
        y1, x1 = (min(n, -(-(m + by) // multiple) * multiple) for m, n in zip((self.y1, self.x1), size, strict=True))
        return Box(y0, y1, x0, x1)

    def rounded(self, multiple: int, size: Sequence[int]) -> Box:
        """Larger at its far ends, by a sixteenth at most, within a grid of ``size``: so that few shapes occur.

        Its sides are multiples of the largest power of 2 that is no more than that, and of ``multiple``.
        """
        steps = [math.lcm(multiple, 2 ** max(0, n.bit_length() - 5)) for n in self.shape]
        y1, x1 = (
            first - (first - end) // k * k
            for first, end, k in zip((self.y0, self.x0), (self.y1, self.x1), steps, strict=True)
        )
        return Box(self.y0, min(y1, size[0]), self.x0, min(x1, size[1]))

    def halves(self) -> tuple[Box, Box]:
        """Two pieces, one after the other along the longer side."""
        if self.shape[0] >= self.shape[1]:
            middle = (self.y0 + self.y1) // 2
            return Box(self.y0, middle, self.x0, self.x1), Box(middle, self.y1, self.x0, self.x1)
        middle = (self.x0 + self.x1) // 2
        return Box(self.y0, self.y1, self.x0, middle), Box(self.y0, self.y1, middle, self.x1)


@dataclass(frozen=True, slots=True)
class Windows:
    """What a forecast of a part of a grid takes: windows around one another."""

    read: Box
    """Of the frames: what the air in `here` was seen in."""
    here: Box
    """Of the network: what bears on what the air in `part` carries there."""
    part: Box
    """Of the forecast."""
