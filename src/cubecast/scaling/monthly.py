"""Anomalies from the monthly climatology of the training part."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, final

import numpy as np
import pandas as pd
import xarray as xr

from cubecast.cube import sequence_dim, space_dims
from cubecast.errors import InputError, ModelMismatchError, UsageError
from cubecast.progress import Progress
from cubecast.scaling.base import Array, Scaling, common_units, floating, pieces
from cubecast.scaling.moments import moments_by_group
from cubecast.sharing import ALL, Share


@final
@dataclass(frozen=True, eq=False)
class MonthlyAnomaly(Scaling):
    """z = (x - climatology[calendar month, pixel]) / std, by the month of each value's own time.

    The climatology is the mean of each calendar month at each pixel, ``std`` the standard deviation of all
    anomalies. Where a pixel was never observed in a month, z is NaN. The first dim of what is encoded or decoded is
    the (valid) time; pixels are found by the labels of the space coordinates, or by shape where there are none.

    With ``harmonics`` = H the twelve means c_m of a pixel are replaced by the H longest waves in them and their mean,

        c'_m = a_0 + sum_{k=1..H} a_k cos(2 pi k m / 12) + b_k sin(2 pi k m / 12)   (least squares over m)

    because a mean over a few years is noisy: 2 H + 1 numbers instead of 12. A pixel that lacks a month keeps its means.
    Source: Narapusetty, DelSole & Tippett (2009), DOI 10.1175/2009JCLI2944.1.
    """

    kind = "monthly_anomaly"
    std: float = 1.0
    climatology: Array | None = None
    """(12, *space) float64 in the cube's units, NaN where never observed."""
    labels: Mapping[str, Sequence[Any]] | None = None
    """Values of the space coordinates, by dim."""
    harmonics: int | None = None
    """Waves a year in the climatology, 1 to 5; None: the monthly means as they are."""

    def fit(self, parts: Sequence[xr.DataArray], *, progress: Progress | None = None, share: Share = ALL) -> Self:
        """Fits climatology and standard deviation; the parts lie on one grid and hold all calendar months."""
        found, labels = common_units(parts), _labels(parts[0])
        for part in parts:
            if part.shape[1:] != parts[0].shape[1:] or _labels(part) != labels:
                raise InputError(
                    "monthly anomalies of cubes on different grids",
                    found=f"shapes {parts[0].shape[1:]} and {part.shape[1:]}",
                    allowed="one grid with the same coordinates",
                    remedy="train on one grid, or choose scaling standardise",
                )
        blocks = ((_months(part[frames]), values) for part, frames, values in pieces(parts, progress, share))
        total = [own.over(share) for own in moments_by_group(blocks, 12, parts[0].shape[1:])]
        count = np.stack([t.count for t in total])
        _check_months(count)
        means = np.where(count > 0, np.stack([t.mean for t in total]), np.nan)
        climatology = means if self.harmonics is None else _smoothed(means, self.harmonics)
        moved = np.nansum(count * (means - climatology) ** 2)
        std = math.sqrt((sum(t.squares.sum() for t in total) + moved) / count.sum())
        # Rounding leaves anomalies that are all zero a tiny spread.
        if not std > 1e-7 * max(float(np.abs(t.mean).max()) for t in total):
            raise InputError(
                "no monthly anomalies",
                found="every value equals the climatology of its month",
                allowed="two or more years in the training part",
                remedy="train on more years, or choose scaling standardise",
            )
        return replace(self, units=found, std=std, climatology=climatology, labels=labels)

    def encode(self, da: xr.DataArray) -> xr.DataArray:
        """See `Scaling.encode`."""
        self.check_fitted()
        self.check_units(da)
        std = self.std
        return self._apply(da, lambda x, mean: (x - mean) / std, "1")

    def decode(self, da: xr.DataArray) -> xr.DataArray:
        """See `Scaling.decode`; the sequence coordinate of ``da`` is the valid time."""
        self.check_fitted()
        std = self.std
        return self._apply(da, lambda z, mean: z * std + mean, self.units)

    def _apply(self, da: xr.DataArray, function: Callable[[Any, Any], Any], to: str) -> xr.DataArray:
        """``function(values, climatology at their months)``, chunk by chunk in time when ``da`` is lazy."""
        space = list(space_dims(da))
        months = xr.DataArray(_months(da), dims=sequence_dim(da))
        table = xr.DataArray(self._at(da), dims=("calendar_month", *space))
        if da.chunks is not None:
            da = da.chunk(dict.fromkeys(space, -1))
        out = xr.apply_ufunc(
            lambda x, month, mean: function(floating(x), mean[month]).astype(np.float32),
            da,
            months,
            table,
            input_core_dims=[space, [], ["calendar_month", *space]],
            output_core_dims=[space],
            dask="parallelized",
            output_dtypes=[np.float32],
        )
        return out.assign_attrs({**da.attrs, "units": to})

    def _at(self, da: xr.DataArray) -> Array:
        """The climatology at the pixels of ``da``."""
        table, labels = np.asarray(self.climatology), self.labels or {}
        space = space_dims(da)
        if table.ndim != da.ndim:
            raise ModelMismatchError("dims", found=da.dims, allowed=f"time and {table.ndim - 1} space dims")
        for axis, dim in enumerate(space, start=1):
            if dim not in da.coords or dim not in labels:
                continue
            index = _find(labels[dim], da[dim].values)
            if (index < 0).any():
                raise ModelMismatchError(
                    f"coordinate {dim!r}",
                    found=da[dim].values[index < 0][0],
                    allowed=f"the {len(labels[dim])} values that the climatology was fitted on",
                    remedy="interpolate to that grid, or fit a model on this one",
                )
            table = table.take(index, axis=axis)
        if table.shape[1:] != da.shape[1:]:
            raise ModelMismatchError("grid", found=f"shape {da.shape[1:]}", allowed=f"{table.shape[1:]}")
        return table


def _months(da: xr.DataArray) -> Array:
    """The calendar month of every frame, 0 to 11."""
    dim = sequence_dim(da)
    if dim not in da.coords or da[dim].dtype.kind != "M":
        raise UsageError(
            "scaling monthly_anomaly needs the time of every value",
            found=f"dim {dim!r} without times",
            allowed="a datetime64 coordinate",
        )
    return da[dim].values.astype("datetime64[M]").astype(np.int64) % 12


def _smoothed(means: Array, harmonics: int) -> Array:
    """The mean and the ``harmonics`` longest waves of (12, *space) monthly means; pixels with a NaN are left alone."""
    spectrum = np.fft.rfft(np.where(np.isfinite(means).all(axis=0), means, 0.0), axis=0)
    spectrum[harmonics + 1 :] = 0
    return np.where(np.isfinite(means).all(axis=0), np.fft.irfft(spectrum, 12, axis=0), means)


def _check_months(count: Array) -> None:
    absent = np.flatnonzero(count.reshape(12, -1).sum(axis=1) == 0)
    if len(absent):
        raise InputError(
            "no monthly climatology",
            found=f"no observed value in calendar month {', '.join(str(m + 1) for m in absent)} of the training part",
            allowed="all twelve months",
            remedy="train on more years, or choose scaling standardise",
        )


def _labels(cube: xr.DataArray) -> dict[str, list[Any]]:
    """Values of the space coordinates by which pixels can be found, as JSON values."""
    labels = {}
    for dim in space_dims(cube):
        if dim in cube.coords and cube.indexes[dim].is_unique:
            labels[dim] = _plain(cube[dim].values)
    return labels


def _plain(values: Array) -> list[Any]:
    return values.tolist() if values.dtype.kind in "fiu" else [str(v) for v in values]


def _find(labels: Sequence[Any], values: Array) -> Array:
    """The place of each of ``values`` in ``labels``, -1 where it is not there."""
    index = pd.Index(labels)
    sorted_numbers = index.dtype.kind in "fiu" and (index.is_monotonic_increasing or index.is_monotonic_decreasing)
    if not sorted_numbers or len(labels) < 2 or values.dtype.kind not in "fiu":
        return np.asarray(index.get_indexer(pd.Index(_plain(values))))
    # A hundredth of a pixel allows for coordinates that were rounded on the way through a file.
    tolerance = 0.01 * float(np.abs(np.diff(index)).min())
    return np.asarray(index.get_indexer(pd.Index(values), method="nearest", tolerance=tolerance))
