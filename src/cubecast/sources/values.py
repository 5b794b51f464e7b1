"""What the values of a variable are: their name and units in the cube, amounts that become rates, physical limits."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from cubecast import units
from cubecast.cf import STORAGE
from cubecast.errors import InputError

logger = logging.getLogger(__name__)

RATES = ("rainfall_rate", "lwe_precipitation_rate", "precipitation_flux", "rainfall_flux")
AMOUNTS = (
    "precipitation_amount",
    "rainfall_amount",
    "lwe_thickness_of_precipitation_amount",
    "thickness_of_rainfall_amount",
)
HIGHEST_RATE = 1e4
"""mm h-1; the wettest minute on record had 1,872 mm h-1, clutter in radar composites reaches 2,200."""
ROUNDING = 1e-6
"""mm h-1; a negative rate this small is rounding of packed values, and dry."""
FILL = 9e36
"""netCDF's default fill values, which some writers leave undeclared, are larger than this."""
_RATE_UNITS = ("mm h-1", "m s-1", "kg m-2 s-1", "mm d-1")
_AMOUNT_UNITS = {"kg m-2": 1.0, "m": 1000.0}
# attributes that describe how the values were stored, or name other variables of the file
_OF_THE_FILE = {*STORAGE, "ancillary_variables", "cell_measures", "bounds", "grid_mapping"}


@dataclass(frozen=True, slots=True)
class Limits:
    """Values outside of ``low..high`` cannot be: they are missing. Those in ``low..0`` are 0 where ``floor`` is set."""

    low: float = -FILL
    high: float = FILL
    floor: bool = False
    keep: float | None = None

    def apply(self, values: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], list[float]]:
        """``values`` with NaN for what cannot be, and the distinct values that were removed (sorted)."""
        bad = (values < self.low) | (values > self.high)
        if self.keep is not None:
            bad &= values != self.keep
        removed: list[float] = []
        if bad.any():
            removed = np.unique(values[bad]).tolist()
            values = np.where(bad, values.dtype.type(np.nan), values)
        return (np.maximum(values, values.dtype.type(0)) if self.floor else values), removed


@dataclass(frozen=True, slots=True)
class Meaning:
    """A variable as it will be in the cube; ``amount`` is the factor from its amounts to mm, None for all others."""

    name: str
    attrs: dict[str, Any]
    amount: float | None
    limits: Limits


def interpret(name: str, attrs: Mapping[str, Any], *, where: str) -> Meaning:
    """What the variable ``name`` holds, from its attributes.

    Raises:
        InputError: no units, or units that cannot be those of its standard name.
    """
    unit = str(attrs.get("units", "")).strip()
    if not unit or unit == "unknown":
        raise InputError(
            f"variable {name!r} of {where} has no units",
            found="no 'units' attribute" if not unit else "units 'unknown'",
            remedy="set it in the file or on the xarray object, for example units = 'mm h-1'",
        )
    standard = str(attrs.get("standard_name", ""))
    words = f"{name} {attrs.get('long_name', '')}".lower()
    rain = standard in RATES + AMOUNTS or (not standard and re.search("rain|precip", words) is not None)
    canonical = units.canonical(unit)
    _check_units(name, standard, unit, where)
    kept = {str(k): v for k, v in attrs.items() if k not in _OF_THE_FILE and not str(k).startswith("GRIB_")}
    if standard in AMOUNTS or (rain and canonical == "kg m-2"):
        rate = {"standard_name": "rainfall_rate", "long_name": "rainfall rate", "units": "mm h-1"}
        return Meaning(
            "rainfall_rate",
            {**kept, **rate, "cell_methods": "time: mean"},
            _AMOUNT_UNITS[canonical],
            _limits("mm h-1", "rainfall_rate", True),
        )
    if rain or canonical != "kg m-2":  # "mm" of something else is a length, which the table does not know
        unit = canonical
    return Meaning(name, {**kept, "units": unit}, None, _limits(canonical, standard, rain))


def is_temperature(standard_name: str) -> bool:
    """Whether a CF standard name is that of a temperature (not an anomaly or a tendency)."""
    return standard_name.endswith("temperature") and not standard_name.startswith(("tendency_of", "change_over_time"))


def _check_units(name: str, standard: str, unit: str, where: str) -> None:
    allowed: tuple[str, ...] = ()
    if standard in RATES:
        allowed = _RATE_UNITS
    elif standard in AMOUNTS:
        allowed = ("kg m-2", "mm", "m") if "thickness" in standard else ("kg m-2", "mm")
    elif is_temperature(standard):
        allowed = ("K", "degC")
    if allowed and units.canonical(unit) not in {units.canonical(u) for u in allowed}:
        raise InputError(
            f"variable {name!r} of {where} has wrong units",
            found=f"{unit!r} for {standard}",
            allowed=", ".join(allowed),
            remedy="correct the units attribute",
        )


def _limits(unit: str, standard: str, rain: bool) -> Limits:
    if unit == "mm h-1" or (rain and unit in _RATE_UNITS):
        low, high = (_from_mm_h(v, unit) for v in (-ROUNDING, HIGHEST_RATE))
        return Limits(low, high, floor=True)
    if unit == "dBZ":
        return Limits(-200.0, 200.0, keep=-np.inf)  # -inf dBZ is no echo at all
    if unit in ("K", "degC"):
        low = 0.0 if unit == "K" and is_temperature(standard) else -273.16  # without the name: maybe an anomaly
        return Limits(low, 1000.0)
    return Limits()


def _from_mm_h(value: float, unit: str) -> float:
    return float(units.convert_units(xr.DataArray(value, attrs={"units": "mm h-1"}), unit))


def warn_removed(removed: list[float], name: str, where: str) -> None:
    """Say once which impossible values became missing."""
    shown = ", ".join(f"{v:g}" for v in removed[:3]) + (", ..." if len(removed) > 3 else "")
    logger.warning("%s: impossible values of %r are taken as missing: %s", where, name, shown)
