"""The sequence coordinate of files: read as it is stored, decoded for all files at once, put in order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from cubecast.errors import InputError

logger = logging.getLogger(__name__)
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Stamps:
    """Values of a sequence coordinate as they are stored; ``units`` None: no coding (datetime64, or depths)."""

    values: Array
    units: str | None = None
    calendar: str = "standard"


@dataclass(frozen=True, slots=True)
class Times:
    """The sequence of one file: a value for each frame, and (start, end) of accumulations."""

    stamps: Stamps
    period: tuple[Stamps, Stamps] | None = None


def read_times(
    get: Callable[[str], tuple[Array, Mapping[str, Any]]], sequence: str, period: tuple[str, ...] = ()
) -> Times:
    """The `Times` of one file.

    Args:
        get: gives the stored values and attributes of a variable.
        sequence: the sequence coordinate.
        period: the variable with its bounds, or with the start of each accumulation, or nothing. Bounds have the
            units of the coordinate that they belong to (CF conventions, section 7.1).
    """
    values, attrs = get(sequence)
    stamps = _stamps(np.ravel(values), attrs)
    if not period:
        return Times(stamps)
    values, own = get(period[0])
    coding = {k: attrs[k] for k in ("units", "calendar") if k in attrs}
    other = _stamps(np.asarray(values), {**coding, **own})
    if other.values.size == 2 * stamps.values.size:
        pairs = other.values.reshape(-1, 2)
        start, end = (Stamps(pairs[:, i], other.units, other.calendar) for i in (0, 1))
        return Times(stamps, (start, end))
    return Times(stamps, (Stamps(np.ravel(other.values), other.units, other.calendar), stamps))


def is_coded(attrs: Mapping[str, Any], values: Array) -> bool:
    """Whether stored values are numbers in CF time units."""
    return values.dtype.kind in "iuf" and " since " in str(attrs.get("units", ""))


def _stamps(values: Array, attrs: Mapping[str, Any]) -> Stamps:
    if not is_coded(attrs, values):
        return Stamps(values)
    for key in ("_FillValue", "missing_value"):
        if key in attrs and (values == attrs[key]).any():
            values = np.where(values == attrs[key], np.nan, values)
    return Stamps(values, str(attrs["units"]), str(attrs.get("calendar", "standard")))


def decode(stamps: Sequence[Stamps], files: Sequence[Any]) -> list[Array]:
    """Times as datetime64[ns] (other sequences as they are), all of one coding in one call.

    Raises:
        InputError: a missing time, a calendar that is not that of datetime64, or units that are no time units.
    """
    out: list[Array] = [s.values for s in stamps]
    groups: dict[tuple[str, str], list[int]] = {}
    for i, one in enumerate(stamps):
        if one.units is not None:
            groups.setdefault((one.units, one.calendar), []).append(i)
    for (unit, calendar), members in groups.items():
        coded = np.concatenate([stamps[i].values for i in members])
        cuts = np.cumsum([stamps[i].values.size for i in members])[:-1]
        for i, part in zip(members, np.split(_decode(coded, unit, calendar, files[members[0]]), cuts), strict=True):
            out[i] = part
    return [_checked(values, file) for values, file in zip(out, files, strict=True)]


def _decode(coded: Array, unit: str, calendar: str, file: Any) -> Array:
    try:
        ds = xr.decode_cf(xr.Dataset({"t": ("t", coded, {"units": unit, "calendar": calendar})}))
        values = ds["t"].values
    except (ValueError, OverflowError) as error:
        raise InputError(f"times of {file}", found=f"units {unit!r}, calendar {calendar!r}: {error}") from error
    if values.dtype.kind != "M":
        raise InputError(
            f"times of {file}", found=f"calendar {calendar!r}", allowed="the standard calendar, years 1678 to 2261",
            remedy="convert it with xarray's convert_calendar('standard')",
        )  # fmt: skip
    exact = values.astype("datetime64[ns]")
    if coded.dtype.kind != "f" or not len(exact):
        return exact
    # Days since 1970 in 64 bits are off by up to 300 ns: stamps of one moment must be one.
    return _rounded(exact, 1_000_000 if unit.lower().startswith(("d", "h", "min")) else 1_000)


def _rounded(times: Array, nanoseconds: int) -> Array:
    whole = np.rint(times.astype(np.int64) / nanoseconds).astype(np.int64) * nanoseconds
    return np.where(np.isnat(times), times, whole.astype(times.dtype))


def _checked(values: Array, file: Any) -> Array:
    if values.dtype.kind == "M":
        exact, bad = values.astype("datetime64[ns]"), np.isnat(values)
        if (exact.astype(values.dtype) != values)[~bad].any():
            raise InputError(f"times of {file}", found=f"up to {values[~bad].max()}", allowed="years 1678 to 2261")
        values = exact
    elif values.dtype.kind in "iuf":
        bad = ~np.isfinite(values)
    else:
        raise InputError(f"times of {file}", found=f"type {values.dtype}", allowed="the standard calendar, or numbers")
    if bad.any():
        raise InputError(f"missing time in {file}", found=f"{int(bad.sum())} frame(s) without a time")
    return values


def keep_order(sequence: Array, labels: Sequence[str] | None = None) -> Array:
    """Indices that sort ``sequence`` and leave the first of equal values; what is left out is logged."""
    order = np.argsort(sequence, kind="stable")
    again = np.zeros(len(order), bool)
    again[1:] = sequence[order][1:] == sequence[order][:-1]
    if again.any():
        names = [shown(sequence[i]) + (f" ({labels[i]})" if labels else "") for i in order[again][:3]]
        more = f" and {again.sum() - 3} more" if again.sum() > 3 else ""
        logger.warning("duplicate frames are left out, the first is kept: %s%s", ", ".join(names), more)
    return order[~again]


def shown(value: Any) -> str:
    """A value of a sequence coordinate for people: times without needless digits."""
    if isinstance(value, np.datetime64):
        whole = value.astype("datetime64[s]")
        return str(whole if whole == value else value)
    return f"{value:g}"
