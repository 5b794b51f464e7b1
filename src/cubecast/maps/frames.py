"""What is on a map: the fields of one forecast, the observed frames of the same times, and their names in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from cubecast.cube import channel_names, check_cube, cube_step, locate, same_places, select_channel, sequence_dim
from cubecast.ensemble_products import observed_product
from cubecast.errors import InputError, UsageError
from cubecast.maps.colours import shown, title_of
from cubecast.product import REALIZATION, forecast_dim, lead_texts, names, reference_text
from cubecast.steps import MONTH_DAYS

Values = npt.NDArray[Any]


@dataclass(frozen=True)
class Frames:
    """Fields in the order of time, in the units that are shown.

    ``field`` has dims (frame, y, x) and may be lazy; ``times`` and ``leads`` are texts, one a frame (no leads for a
    cube); ``valid`` are the values of the sequence coordinate; ``title`` says what they are, ``reference`` is the
    reference time of a forecast, and ``members`` how it was made of an ensemble, if it was.
    """

    field: xr.DataArray
    valid: Values
    times: list[str]
    leads: list[str]
    title: str
    reference: Any = None
    members: str = ""
    alone: bool = False
    """Whether a forecast has no other variable: a cube of one is that, whatever its name."""

    @property
    def heading(self) -> str:
        """The title of a figure of these frames alone."""
        return ", ".join(filter(None, (self.title, self.members)))

    def values(self) -> list[Values]:
        """The fields as arrays (y, x); computes them."""
        return list(self.field.values)


def forecast_frames(
    forecast: xr.Dataset, *, variable: str | None = None, reference: Any = None, leads: Sequence[int] | None = None
) -> Frames:
    """The fields of one reference time; the mean of the members of an ensemble.

    Args:
        forecast: see `cubecast.product`.
        variable: None: the first one.
        reference: one of its reference times; None: the last.
        leads: positions of leads, from 0; None: all.

    Raises:
        UsageError: no such variable, reference time or lead.
        InputError: not a forecast.
    """
    field = _variable(forecast, variable)
    dim = forecast_dim(forecast)
    ref_name, lead_name, valid_name = names(dim)
    field = field.isel({ref_name: _reference(forecast[ref_name].values, reference)})
    count = field.sizes[lead_name]
    chosen = list(range(count)) if leads is None else [int(i) for i in leads]
    if not chosen or not all(-count <= i < count for i in chosen):
        raise UsageError("leads", found=list(leads or []), allowed=f"positions 0 to {count - 1}")
    field = field.isel({lead_name: chosen})
    members = field.sizes.get(REALIZATION, 0)
    if members:
        field = field.mean(REALIZATION, keep_attrs=True, skipna=False)
    _check_fields(field)
    field = shown(field.transpose(lead_name, ...))
    months = "nominal months" in str(forecast[lead_name].attrs.get("comment", ""))
    unit = str(forecast[ref_name].attrs.get("units", ""))
    start = time_text(field[ref_name].values[()], months=months, unit=unit)
    made = field.attrs.get("ensemble_statistic") or (f"mean of {members} members" if members > 1 else "")
    title = title_of(field) + ("," if "threshold" in field.attrs else "")
    valid = field[valid_name].values
    return Frames(
        field,
        valid,
        [time_text(v, months=months, unit=unit) for v in valid],
        ["+" + text for text in lead_texts(field[lead_name].values)],
        f"{title} forecast from {start}",
        field[ref_name].values[()],
        made,
        len({v.attrs.get("source_variable", name) for name, v in forecast.data_vars.items()}) == 1,
    )


def cube_frames(cube: xr.DataArray, *, variable: str | None = None) -> Frames:
    """All frames of a cube."""
    field = _channel(check_cube(cube), variable)
    _check_fields(field)
    field = shown(field)
    dim = sequence_dim(field)
    months, unit = cube_step(cube).kind == "months", str(cube[dim].attrs.get("units", ""))
    times = [time_text(v, months=months, unit=unit) for v in cube[dim].values]
    return Frames(field, cube[dim].values, times, [], f"{title_of(field)} observed")


def observed_values(cube: xr.DataArray, frames: Frames) -> list[Values]:
    """The observed field at each valid time of ``frames``, in its units; all missing where the cube has no frame.

    Beside a probability it is the event: 1 where it happened (`cubecast.ensemble_products.observed_product`).

    Raises:
        InputError: the cube has not this variable, or lies on another grid.
    """
    name = _observed_name(check_cube(cube), frames)
    if name is None:
        found, wanted = ", ".join(channel_names(cube)), frames.field.attrs.get("source_variable", frames.field.name)
        raise InputError("the observed cube has not the variable", found=found, allowed=wanted)
    one = _channel(cube, name)
    space = tuple(str(d) for d in frames.field.dims[1:])
    if not same_places(one, frames.field, space):
        raise InputError(
            "the observed cube does not lie on the grid of the forecast",
            found=f"{dict(one.sizes)}",
            allowed=f"{ {d: frames.field.sizes[d] for d in space} } with the same coordinates",
        )
    index = locate(one, frames.valid)
    if not has_observed(cube, frames):
        first, last = one[sequence_dim(one)].values[[0, -1]]
        raise InputError(
            "the observed cube has none of the valid times of the forecast",
            found=f"{time_text(first)} to {time_text(last)}",
            allowed=f"{frames.times[0]} to {frames.times[-1]}",
        )
    fields: list[Values] = []
    for i in index:
        frame = observed_product(frames.field, one.isel({sequence_dim(one): max(int(i), 0)}).load())
        fields.append(np.where(i < 0, np.nan, frame.values))
    return fields


def has_observed(cube: xr.DataArray, frames: Frames) -> bool:
    """Whether the cube has the variable, and a frame at any valid time of ``frames``."""
    return _observed_name(check_cube(cube), frames) is not None and bool((locate(cube, frames.valid) >= 0).any())


def _observed_name(cube: xr.DataArray, frames: Frames) -> str | None:
    """What the variable of ``frames`` is called in a cube; None: it is not there."""
    known, name = channel_names(cube), str(frames.field.attrs.get("source_variable", frames.field.name))
    if name in known:
        return name
    return known[0] if frames.alone and len(known) == 1 else None


def time_text(value: Any, *, months: bool = False, unit: str = "") -> str:
    """``2017-05-09 13:30 UTC``, ``2017-05`` for months, ``1200.5 ft`` for another sequence."""
    if not np.issubdtype(np.asarray(value).dtype, np.datetime64):
        return f"{value:g} {unit}".strip()
    stamp = np.datetime64(value, "s")
    if months:
        return str(stamp.astype("datetime64[M]"))
    clock = str(stamp).replace("T", " ")
    return (clock[:-3] if clock.endswith(":00") else clock) + " UTC"


def file_part(value: Any, lead: Any = None) -> str:
    """A reference time, and a lead, as part of a file name, in order for a week: ``20170509T1330_+0030min``."""
    text = reference_text(value)
    if "T" in text and "." not in text:
        text = text.removesuffix("00")
    if lead is None:
        return text
    if not np.issubdtype(np.asarray(lead).dtype, np.timedelta64):
        return f"{text}_+{lead:.15g}"
    seconds = lead / np.timedelta64(1, "s")
    months = seconds / 86400 / MONTH_DAYS
    if months > 0.5 and abs(months - round(months)) < 1e-6:
        return f"{text}_+{months:02.0f}months"
    return f"{text}_+{seconds / 60:04.0f}min" if seconds % 60 == 0 else f"{text}_+{seconds:06g}s"


def _variable(forecast: xr.Dataset, variable: str | None) -> xr.DataArray:
    if not isinstance(forecast, xr.Dataset) or not any(str(d).startswith(names("")[0]) for d in forecast.dims):
        raise InputError(
            "not a forecast", found=type(forecast).__name__, allowed="a Dataset from predict or read_forecast"
        )
    if variable is not None and variable not in forecast.data_vars:
        raise UsageError("variable", found=repr(variable), allowed=", ".join(str(n) for n in forecast.data_vars))
    return forecast[variable if variable is not None else next(iter(forecast.data_vars))]


def _check_fields(field: xr.DataArray) -> None:
    """Refuse point series: ``field`` must be one sequence of fields (frame, y, x)."""
    if field.ndim != 3:
        raise InputError(
            f"no map of {field.name!r}",
            found=f"dims {field.dims}",
            allowed="fields (..., y, x)",
            remedy="draw a point series with cubecast.charts.plot_series",
        )


def _channel(cube: xr.DataArray, variable: str | None) -> xr.DataArray:
    known = channel_names(cube)
    if variable is not None and variable not in known:
        raise UsageError("variable", found=repr(variable), allowed=", ".join(known))
    return select_channel(cube, variable if variable is not None else known[0])


def _reference(references: Values, wanted: Any) -> int:
    if wanted is None:
        return len(references) - 1
    try:
        value = np.asarray(wanted).astype(references.dtype)
    except (ValueError, TypeError):
        value = None
    found = np.flatnonzero(references == value) if value is not None else np.empty(0, int)
    if not len(found):
        allowed = time_text(references[0]) + ("" if len(references) < 2 else f" to {time_text(references[-1])}")
        raise UsageError("reference time", found=str(wanted), allowed=f"{len(references)}: {allowed}")
    return int(found[0])
