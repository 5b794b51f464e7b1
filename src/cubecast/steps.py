"""The regular step of a cube's sequence coordinate: seconds, calendar months, or a number (depth in feet)."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cubecast.errors import InputError

MONTH_DAYS = 30.436875
"""Mean length of a Gregorian month in days: the nominal ``lead_time`` of one calendar month."""

Values = npt.NDArray[Any]
_TIME = re.compile(r"\d{4}[\d-]*([T ][\d:.]+)?Z?")


def parse_time(text: str) -> np.datetime64:
    """A UTC time such as ``2017-05-09T12:30``, with or without a ``Z`` at its end.

    Raises:
        ValueError: anything else; other time zones, too, which numpy would convert with a warning.
    """
    if not _TIME.fullmatch(text):
        raise ValueError(f"{text!r} is not a UTC time such as 2017-05-09T12:30")
    return np.datetime64(text.removesuffix("Z"), "ns")


@dataclass(frozen=True)
class Step:
    """One step of a sequence coordinate.

    ``kind`` is ``seconds`` (a fixed time step), ``months`` (calendar months) or ``number`` (a coordinate that is
    not a time, such as depth); ``size`` counts seconds, months or the coordinate's own ``units``.
    """

    kind: Literal["seconds", "months", "number"]
    size: float
    units: str = ""

    def __str__(self) -> str:
        if self.kind == "months":
            return f"{self.size:g} month" + ("s" if self.size != 1 else "")
        if self.kind == "number":
            return f"{self.size:g} {self.units}".strip()
        for unit, seconds in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
            if self.size >= seconds and (self.size / seconds) % 1 == 0:
                return f"{self.size / seconds:g} {unit}"
        return f"{self.size:g} s"

    def add(self, values: Values, count: npt.ArrayLike) -> Values:
        """``values`` moved by ``count`` steps; the two broadcast.

        Calendar months keep day and time of day;
        a day that the month does not have is its last one, and the last of a month stays that.
        """
        values, count = np.asarray(values), np.asarray(count)
        if self.kind == "number":
            return values + count * self.size
        if self.kind == "seconds":
            return values + (count * round(self.size * 1e9)).astype("timedelta64[ns]")
        month = values.astype("datetime64[M]")
        target = month + (count * int(self.size)).astype("timedelta64[M]")
        day = (values.astype("datetime64[D]") - month).astype("timedelta64[D]")
        last = _days(target) - np.timedelta64(1, "D")
        moved = np.where(day == _days(month) - np.timedelta64(1, "D"), last, np.minimum(day, last))
        return target.astype(values.dtype) + moved + (values - values.astype("datetime64[D]"))

    def lead(self, count: npt.ArrayLike) -> Values:
        """The lead of ``count`` steps: timedelta64[ns] (months at their mean length), or plain numbers."""
        count = np.asarray(count)
        if self.kind == "number":
            return count * self.size
        seconds = self.size if self.kind == "seconds" else self.size * MONTH_DAYS * 86400.0
        return (count * round(seconds * 1e9)).astype("timedelta64[ns]")

    def offsets(self, values: Values, origin: Any) -> Values:
        """How many steps each of ``values`` lies after ``origin`` (int64).

        Raises:
            InputError: a value is not a whole number of steps away (tolerance: 2 % of a step; half a step for
                months, whose stamps may be the middle of each month).
        """
        if self.kind == "months":
            first = np.asarray(origin).astype("datetime64[M]")
            count = (np.asarray(values).astype("datetime64[M]") - first).astype(np.int64) / self.size
        elif self.kind == "seconds":
            count = (np.asarray(values) - np.asarray(origin)) / np.timedelta64(round(self.size * 1e9), "ns")
        else:
            count = (np.asarray(values, float) - float(origin)) / self.size
        whole = np.rint(count)
        off = np.abs(count - whole) > 0.02
        if off.any():
            bad = np.asarray(values)[off][0]
            raise InputError(
                "irregular sequence coordinate",
                found=f"{bad} which is not a whole number of steps of {self} after {origin}",
                allowed="one regular step (frames may be missing)",
                remedy="select or resample to a regular step first",
            )
        return whole.astype(np.int64)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values; `Step(**d)` is the inverse."""
        return asdict(self)


def infer_step(values: Values, *, units: str = "", what: str = "time") -> Step:
    """The regular step of strictly increasing ``values`` (1-D datetime64 or numbers): the most common difference.

    Stamps whose differences are those of whole calendar months (28 to 31 days a month) give months.

    Raises:
        InputError: fewer than two values, or not increasing.
    """
    if len(values) < 2:
        raise InputError(
            f"the step of {what!r} is unknown", found=f"{len(values)} frame(s)", allowed="2 or more frames"
        )
    diff = np.diff(values)
    if not (diff > np.zeros(1, diff.dtype)).all():
        raise InputError(
            f"{what!r} does not increase",
            found=f"{values[1:][~(diff > np.zeros(1, diff.dtype))][0]} after a later or equal value",
            remedy="sort it and drop duplicates, or read the data with cubecast.open_cube, which does",
        )
    if not np.issubdtype(values.dtype, np.datetime64):
        return Step("number", float(np.median(diff)), units)
    months = np.diff(values.astype("datetime64[M]").astype(np.int64))
    days: Values = diff / np.timedelta64(1, "D")
    if (months > 0).all() and (np.abs(days / months - MONTH_DAYS) <= 2.5).all():
        return Step("months", float(_most_common(months)))
    # counted in units of 1 % of a step or finer, at most 1 s: stamps that jitter agree, 10 ms steps stay 10 ms
    nanoseconds = diff / np.timedelta64(1, "ns")
    quantum = 10.0 ** np.clip(np.floor(np.log10(np.median(nanoseconds))) - 2, 0, 9)
    return Step("seconds", float(_most_common(np.rint(nanoseconds / quantum)) * quantum / 1e9))


def _days(month: Values) -> Values:
    """How many days a month (datetime64[M]) has."""
    return (month + 1).astype("datetime64[D]") - month.astype("datetime64[D]")


def _most_common(values: Values) -> Any:
    unique, counts = np.unique(values, return_counts=True)
    return unique[np.argmax(counts)]
