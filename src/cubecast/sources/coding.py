"""How stored numbers become values: CF packing and sentinels, and the calibrations of ODIM, KNMI and PGM files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import netCDF4
import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Coding:
    """value = gain * stored + offset, with NaN for ``missing`` and outside of ``low..high``, and
    ``nothing`` for ``dry``.

    ``missing``, ``dry``, ``low`` and ``high`` are stored numbers, ``nothing`` and ``valid`` are in units of the value.
    """

    gain: float = 1.0
    offset: float = 0.0
    missing: tuple[float, ...] = ()
    dry: tuple[float, ...] = ()
    nothing: float = 0.0
    low: float | None = None
    high: float | None = None
    valid: tuple[float, float] | None = None
    unsigned: bool = False

    def decode(self, stored: Array, dtype: np.dtype[Any]) -> Array:
        """The values of ``stored`` as floating point ``dtype``, missing ones as NaN."""
        if self.unsigned and stored.dtype.kind == "i":
            stored = stored.view(stored.dtype.str.replace("i", "u"))  # in its byte order
        values = stored.astype(dtype)
        if (self.gain, self.offset) != (1.0, 0.0):
            # in double precision: float32 would add its rounding to that of the packing
            values = (stored * np.float64(self.gain) + np.float64(self.offset)).astype(dtype)
        for number in self.dry:
            values[stored == number] = self.nothing
        for number in self.missing:
            values[stored == number] = np.nan
        if self.low is not None:
            values[stored < self.low] = np.nan
        if self.high is not None:
            values[stored > self.high] = np.nan
        if self.valid is not None:
            values[(values < self.valid[0]) | (values > self.valid[1])] = np.nan
        return values


def cf_coding(attrs: Mapping[str, Any], dtype: np.dtype[Any]) -> Coding:
    """The coding that CF attributes declare for a variable stored as ``dtype``.

    ``missing_value`` and ``_FillValue`` both count (or netCDF's default fill value; not for ``_Unsigned``, which has
    none in the netCDF library either), and so do ``valid_min``, ``valid_max`` and ``valid_range``: in stored numbers,
    or in units of the value where they are floating point and the stored numbers are not (CF conventions, section
    2.5.1).
    """
    gain, offset = (float(np.ravel(attrs.get(k, d))[0]) for k, d in (("scale_factor", 1.0), ("add_offset", 0.0)))
    unsigned = is_unsigned(attrs)
    numbers = [n for key in ("_FillValue", "missing_value") for n in _numbers(attrs.get(key))]
    if unsigned and dtype.kind == "i":
        numbers = [n % 2 ** (8 * dtype.itemsize) for n in numbers]
    elif "_FillValue" not in attrs and (usual := f"{dtype.kind}{dtype.itemsize}") in netCDF4.default_fillvals:
        numbers += [netCDF4.default_fillvals[usual]] if dtype.itemsize > 1 else []
    missing = tuple(n for n in dict.fromkeys(numbers) if n == n)
    low, high, in_values = valid_limits(attrs, dtype, unsigned=unsigned)
    if in_values:
        valid = (-np.inf if low is None else low, np.inf if high is None else high)
        return Coding(gain, offset, missing, valid=valid, unsigned=unsigned)
    return Coding(gain, offset, missing, low=low, high=high, unsigned=unsigned)


def is_unsigned(attrs: Mapping[Any, Any]) -> bool:
    """Whether stored integers are meant as numbers from 0 on, which classic netCDF has no type for."""
    return str(attrs.get("_Unsigned", "false")).lower() == "true"


def valid_limits(
    attrs: Mapping[str, Any], dtype: np.dtype[Any], *, unsigned: bool
) -> tuple[float | None, float | None, bool]:
    """Lowest and highest valid number, and whether they are in units of the value (else in stored numbers)."""
    pair = _numbers(attrs.get("valid_range"))
    low, high = pair if len(pair) == 2 else (None, None)
    for number in _numbers(attrs.get("valid_min")):
        low = number
    for number in _numbers(attrs.get("valid_max")):
        high = number
    declared = [np.asarray(attrs[k]).dtype.kind for k in ("valid_range", "valid_min", "valid_max") if k in attrs]
    in_values = "f" in declared and dtype.kind in "iu"
    if unsigned and dtype.kind == "i" and not in_values:  # written as the stored type, meant as numbers from 0 on
        low, high = (None if n is None else n % 2 ** (8 * dtype.itemsize) for n in (low, high))
    return low, high, in_values


def value_dtype(stored: np.dtype[Any], attrs: Mapping[str, Any]) -> np.dtype[Any]:
    """float32, except for doubles and for integers that float32 cannot hold."""
    packed = "scale_factor" in attrs or "add_offset" in attrs
    wide = stored.itemsize > 4 or (stored.kind in "iu" and stored.itemsize == 4 and not packed)
    return np.dtype(np.float64 if wide else np.float32)


def _numbers(value: Any) -> list[Any]:
    """The numbers of an attribute as Python scalars (they compare in the precision of the stored numbers)."""
    array = np.ravel(np.asarray([] if value is None else value))
    return [n.item() for n in array] if array.dtype.kind in "iuf" else []
