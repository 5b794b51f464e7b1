"""Count, mean and variance of data that is read piece by piece."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cubecast.sharing import Share

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and sum of squared deviations; those of two pieces give those of both together.

    n = n1 + n2, d = m2 - m1, m = m1 + d n2 / n, S = S1 + S2 + d^2 n1 n2 / n
    (Chan, Golub and LeVeque 1983, https://doi.org/10.1080/00031305.1983.10483115).
    """

    count: Array
    mean: Array
    squares: Array

    @classmethod
    def of(cls, values: Array) -> Self:
        """Moments over the first axis of ``values``, missing ones left out."""
        observed = np.isfinite(values)
        count = observed.sum(axis=0, dtype=np.float64)
        mean = np.where(observed, values, 0).sum(axis=0, dtype=np.float64) / np.maximum(count, 1)
        deviation = np.where(observed, values - mean, 0)
        return cls(count, mean, np.square(deviation, out=deviation).sum(axis=0))

    @classmethod
    def none(cls, shape: tuple[int, ...] = ()) -> Self:
        """Moments of no values."""
        return cls(np.zeros(shape), np.zeros(shape), np.zeros(shape))

    def merge(self, other: Self) -> Self:
        """Moments of both together."""
        count = self.count + other.count
        share = other.count / np.maximum(count, 1)
        apart = other.mean - self.mean
        squares = self.squares + other.squares + apart**2 * self.count * share
        return type(self)(count, self.mean + apart * share, squares)

    def over(self, share: Share) -> Self:
        """Moments of what all processes have together: S = sum of S_i + n_i (m_i - m)^2."""
        if share.count == 1:
            return self
        count = share.add(self.count)
        mean = share.add(self.count * self.mean) / np.maximum(count, 1)
        return type(self)(count, mean, share.add(self.squares + self.count * (self.mean - mean) ** 2))


def moments_by_group(blocks: Iterable[tuple[Array, Array]], groups: int, shape: tuple[int, ...]) -> list[Moments]:
    """Moments over the frames of each group, from blocks (group of each frame, values (frame, *shape))."""
    total = [Moments.none(shape) for _ in range(groups)]
    for found, values in blocks:
        for group in np.unique(found):
            total[group] = total[group].merge(Moments.of(values[found == group]))
    return total
