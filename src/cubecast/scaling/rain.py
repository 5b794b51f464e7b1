"""Scalings for rain rates in mm h-1: dry is exactly 0 in model space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, final

import numpy as np
import xarray as xr

from cubecast.errors import InputError
from cubecast.progress import Progress
from cubecast.scaling.base import Pointwise, common_units, pieces
from cubecast.sharing import ALL, Share

UNITS = "mm h-1"
FAINT = 0.005
"""mm h-1; what forecasts have less of is none. Radars give rain in hundredths, and dry places as 0: members with traces
of rain there would all be above what is observed."""


@dataclass(frozen=True, eq=False)
class _Rain(Pointwise):
    """A rain scaling with one fitted number, ``scale``: the root mean square of wet values before division by it."""

    scale: float = 1.0
    wet: float = 0.1
    """mm h-1; a value is wet at or above it."""

    def fit(self, parts: Sequence[xr.DataArray], *, progress: Progress | None = None, share: Share = ALL) -> Self:
        """Fits ``scale``; see `Scaling.fit`."""
        found = common_units(parts, need=UNITS)
        unscaled, count, squares = replace(self, scale=1.0), 0, 0.0
        for _, _, values in pieces(parts, progress, share):
            z = unscaled._forward(values[values >= self._limit])
            count, squares = count + z.size, squares + float(np.square(z, dtype=np.float64).sum())
        count, squares = share.add(np.array([count, squares], np.float64)).tolist()
        if not count:
            raise InputError(
                "no rain to fit the scaling to",
                found=f"no value of {self.wet:g} {UNITS} or more in the training part",
                allowed="some rain",
                remedy="train on cubes in which it rains",
            )
        return replace(self, units=found, scale=math.sqrt(squares / count))

    @property
    def _limit(self) -> float:
        return self.wet * (1 - 1e-6)  # packed values are rounded


@final
@dataclass(frozen=True, eq=False)
class LogRain(_Rain):
    """z = log(1 + r / wet) / scale for a rain rate r in mm h-1.

    Dry is 0, wet values are about 1, and every r comes back from z, below `FAINT` as 0. Negative values count as dry,
    both ways. ``wet`` is 0.1 mm h-1, about the weakest rain that radar sees.
    """

    kind = "log"

    @property
    def curvature(self) -> float:
        """See `Scaling.curvature`: with u = r / (wet scale) it is the scale."""
        return self.scale

    def _forward(self, values: Any) -> Any:
        return np.log1p(np.maximum(values, 0) / self.wet) / self.scale

    def _backward(self, values: Any) -> Any:
        faint = math.log1p(FAINT / self.wet) / self.scale * (1 - 1e-6)  # `FAINT` itself survives rounding
        rates = np.where(values < faint, values.dtype.type(0), values)
        rates *= self.scale
        rates = np.exp(rates)  # several times as fast as expm1, and as good from `FAINT` on
        rates -= 1
        rates *= self.wet
        return rates


@final
@dataclass(frozen=True, eq=False)
class DBR(_Rain):
    """z = (10 log10(r) - zero) / scale for a rain rate r >= wet in mm h-1, else z = 0.

    zero = 10 log10(wet) - 5, the value that pysteps gives to dry pixels (Pulkkinen et al. 2019,
    https://doi.org/10.5194/gmd-12-4185-2019). Not invertible below ``wet``: weaker rain comes back as 0, and so does
    every z below that of ``wet``.
    """

    kind = "dbr"

    @property
    def _zero(self) -> float:
        return 10 * math.log10(self.wet) - 5

    def _forward(self, values: Any) -> Any:
        decibel = 10 * np.log10(np.maximum(values, self._limit))
        return np.where(values < self._limit, 0, (decibel - self._zero) / self.scale)

    def _backward(self, values: Any) -> Any:
        decibel = values * self.scale + self._zero
        lowest = self._zero + 5 - 1e-4  # ``wet`` itself must survive the rounding of float32
        return np.where(decibel < lowest, 0, 10 ** (decibel / 10))
