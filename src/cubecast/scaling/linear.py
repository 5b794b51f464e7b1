"""Scalings by one offset and one factor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, final

import xarray as xr

from cubecast.errors import InputError
from cubecast.progress import Progress
from cubecast.scaling.base import Pointwise, common_units, pieces
from cubecast.scaling.moments import Moments
from cubecast.sharing import ALL, Share


@final
@dataclass(frozen=True, eq=False)
class Identity(Pointwise):
    """z = x, for data that is in [0, 1] already."""

    kind = "identity"

    def fit(self, parts: Sequence[xr.DataArray], *, progress: Progress | None = None, share: Share = ALL) -> Self:
        """Takes over the units; reads no values."""
        return replace(self, units=common_units(parts))

    def _forward(self, values: Any) -> Any:
        return values

    def _backward(self, values: Any) -> Any:
        return values


@final
@dataclass(frozen=True, eq=False)
class Standardise(Pointwise):
    """z = (x - mean) / std, with one mean and one standard deviation; std is 1 for a constant variable."""

    kind = "standardise"
    mean: float = 0.0
    std: float = 1.0

    def fit(self, parts: Sequence[xr.DataArray], *, progress: Progress | None = None, share: Share = ALL) -> Self:
        """Fits mean and standard deviation; see `Scaling.fit`."""
        found, total = common_units(parts), Moments.none()
        for _, _, values in pieces(parts, progress, share):
            total = total.merge(Moments.of(values.reshape(-1)))
        total = total.over(share)
        if not total.count:
            raise InputError("nothing to fit the scaling to", found="no observed value", allowed="some values")
        mean, std = float(total.mean), math.sqrt(total.squares / total.count)
        # Rounding leaves a constant variable a tiny spread.
        return replace(self, units=found, mean=mean, std=std if std > 1e-12 * abs(mean) else 1.0)

    def _forward(self, values: Any) -> Any:
        return (values - self.mean) / self.std

    def _backward(self, values: Any) -> Any:
        return values * self.std + self.mean
