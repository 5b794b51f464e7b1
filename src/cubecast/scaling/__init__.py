"""How values of one variable are brought into model space and back.

A scaling is fitted on the training part alone, is invertible (its docstring says where not), and is saved with the
model as JSON plus arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import xarray as xr

from cubecast import units
from cubecast.cube import cube_step, space_dims
from cubecast.errors import InputError, UsageError
from cubecast.scaling.base import Scaling
from cubecast.scaling.linear import Identity, Standardise
from cubecast.scaling.monthly import MonthlyAnomaly
from cubecast.scaling.rain import DBR, LogRain

__all__ = [
    "DBR",
    "Identity",
    "LogRain",
    "MonthlyAnomaly",
    "Scaling",
    "Standardise",
    "choose_scaling",
    "scaling_from_json",
]

_KINDS: dict[str, type[Scaling]] = {c.kind: c for c in (LogRain, DBR, Standardise, MonthlyAnomaly, Identity)}


def choose_scaling(kind: str, cube: xr.DataArray, *, harmonics: int | None = None) -> Scaling:
    """The scaling of a kind, not yet fitted; ``auto`` looks at the metadata of a single-variable cube.

    auto: log for rain (by standard name or units; a point series only in mm h-1), monthly_anomaly for temperature on a
    monthly step, else standardise (also for reflectivity in dBZ, which is a logarithm already).

    ``harmonics`` smooths the climatology of monthly anomalies (`MonthlyAnomaly`); other scalings have none.

    Raises:
        UsageError: an unknown kind.
    """
    if kind == "auto":
        kind = _automatic(cube)
    if kind not in _KINDS:
        raise UsageError("scaling", found=kind, allowed=f"auto, {', '.join(_KINDS)}")
    return MonthlyAnomaly(harmonics=harmonics) if kind == MonthlyAnomaly.kind else _KINDS[kind]()


def _automatic(cube: xr.DataArray) -> str:
    unit = units.canonical(str(cube.attrs.get("units", "")))
    series = len(space_dims(cube)) < 2  # a gauge may say mm d-1 where log, made for radar, needs mm h-1
    if units.is_rain_rate(unit, str(cube.attrs.get("standard_name", ""))) and (unit == "mm h-1" or not series):
        return "log"
    if unit in ("K", "degC") and cube_step(cube).kind == "months":
        return "monthly_anomaly"
    return "standardise"


def scaling_from_json(values: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Scaling:
    """The scaling that `Scaling.to_json` and `Scaling.arrays` describe.

    Raises:
        InputError: an unknown kind, or other fields than that kind has.
    """
    own = dict(values)
    kind = own.pop("kind", None)
    try:
        return _KINDS[str(kind)](**{**own, **arrays})
    except (KeyError, TypeError):
        fields = ", ".join(sorted([*own, *arrays]))
        raise InputError("a saved scaling", found=f"kind {kind!r} with {fields}", allowed=", ".join(_KINDS)) from None
