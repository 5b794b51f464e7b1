"""The periodic grid on which rain is made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import scipy.fft

Array = npt.NDArray[Any]

PADDING = 1.5
"""Rain is periodic over this many times the grid: no edge repeats, and what leaves does not soon come back."""


@dataclass(frozen=True, slots=True)
class Domain:
    """A grid of ``shape``, periodic; that of the cube is its first part, around y = x = 0."""

    size: tuple[int, int]
    shape: tuple[int, int]
    grid_km: float

    @classmethod
    def around(cls, size: tuple[int, int], grid_km: float) -> Domain:
        ny, nx = (scipy.fft.next_fast_len(math.ceil(PADDING * n), real=True) for n in size)
        return cls(size, (ny, nx), grid_km)

    @property
    def period(self) -> tuple[float, float]:
        """(Ly, Lx) in m."""
        return self.shape[0] * self.grid_km * 1e3, self.shape[1] * self.grid_km * 1e3

    def coordinate(self, axis: int, pixel: Array) -> Array:
        """y (axis 0) or x (axis 1) in m of pixels counted from the first."""
        return (pixel - (self.size[axis] - 1) / 2) * self.grid_km * 1e3

    def wave_numbers(self) -> tuple[Array, Array]:
        """Cycles per km along y and x of every coefficient of the real FFT."""
        return (
            scipy.fft.fftfreq(self.shape[0], self.grid_km)[:, None],
            scipy.fft.rfftfreq(self.shape[1], self.grid_km)[None, :],
        )
