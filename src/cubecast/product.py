"""What a forecast is: the Dataset that models and baselines return, `write_forecast` writes and maps show.

Dims ``(forecast_reference_time, [realization,] lead_time, *SPACE)``; for a sequence other than time the word
``time`` in these names is that dim's name (``forecast_reference_depth``, ``lead_depth``, ``valid_depth``).
``lead_time`` is a timedelta with ``standard_name: forecast_period``; ``valid_time`` is 2-D. Each output variable
stands under its own name in the input's units, with the input's space coordinates and CRS untouched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from cubecast.cube import CHANNEL, channel_units, select_channel, sequence_dim, space_dims
from cubecast.steps import MONTH_DAYS, Step

REALIZATION = "realization"


def names(dim: str = "time") -> tuple[str, str, str]:
    """Names of the reference, lead and valid coordinates for a sequence dim."""
    return f"forecast_reference_{dim}", f"lead_{dim}", f"valid_{dim}"


def forecast_dim(forecast: xr.Dataset | xr.DataArray) -> str:
    """The sequence dim that a forecast came from (``time`` in nearly all of them)."""
    prefix = "forecast_reference_"
    return next(str(d)[len(prefix) :] for d in forecast.dims if str(d).startswith(prefix))


def file_stem(reference: Any) -> str:
    """The name of the file of a forecast, without its suffix: for times, sorted by name is sorted by time."""
    return f"nowcast_{reference_text(reference)}"


def reference_text(reference: Any) -> str:
    """A reference as part of a file name, no two alike: ``20170509T133000``, ``1200.5``."""
    if not isinstance(reference, np.datetime64):
        return f"{reference:.15g}"
    whole = reference == reference.astype("datetime64[s]")
    text = str(np.datetime_as_string(reference, unit="s" if whole else "ms"))
    return text.replace("-", "").replace(":", "")


def lead_texts(leads: npt.NDArray[Any]) -> list[str]:
    """Leads in words, all in the largest unit in which they are whole: ``30 min``, ``2 h``, ``1 d``, ``3 months``."""
    if not np.issubdtype(leads.dtype, np.timedelta64):
        return [f"{lead:g}" for lead in leads]
    seconds = leads / np.timedelta64(1, "s")
    months = seconds / 86400 / MONTH_DAYS
    if (months > 0.5).all() and (np.abs(months - np.rint(months)) < 1e-6).all():
        return [f"{m:.0f} month" + ("s" if m > 1.5 else "") for m in months]
    sizes = {"d": 86400.0, "h": 3600.0, "min": 60.0}
    unit, size = next(((u, z) for u, z in sizes.items() if (seconds % z == 0).all()), ("s", 1.0))
    return [f"{s / size:g} {unit}" for s in seconds]


def build_forecast(
    values: Mapping[str, npt.NDArray[Any]],
    cube: xr.DataArray,
    *,
    reference: Sequence[Any] | npt.NDArray[Any],
    step: Step,
    attrs: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """The forecast Dataset of arrays of values.

    Args:
        values: for each output variable, an array ``(reference, [realization,] lead, *SPACE)`` in the cube's units.
        cube: the cube the forecast was made from: its coordinates, CRS, names and units are taken over.
        reference: the last observed time of each forecast.
        step: the step of the leads; lead i (from 0) is ``i + 1`` steps.
        attrs: global attributes (model, version, weights, data).
    """
    dim, space = sequence_dim(cube), space_dims(cube)
    ref_name, lead_name, _ = names(dim)
    first = next(iter(values.values()))
    dims: tuple[str, ...] = (ref_name, lead_name, *space)
    if first.ndim == len(dims) + 1:
        dims = (ref_name, REALIZATION, lead_name, *space)
    keep = {str(k): v for k, v in cube.coords.items() if dim not in v.dims and CHANNEL not in v.dims and k != CHANNEL}
    coords = keep | _sequence_coordinates(dim, np.asarray(reference), first.shape[dims.index(lead_name)], step)
    if REALIZATION in dims:
        members = np.arange(first.shape[1], dtype="int32")
        coords[REALIZATION] = (REALIZATION, members, {"standard_name": "realization", "units": "1"})
    unit = channel_units(cube)
    data = {}
    for name, array in values.items():
        said = select_channel(cube, name).attrs
        kept = {k: v for k, v in said.items() if k in ("standard_name", "long_name", "grid_mapping")}
        data[name] = (dims, array, {**kept, "units": unit[name]})
    return xr.Dataset(data, coords=coords, attrs=dict(attrs or {}))


def _sequence_coordinates(dim: str, reference: npt.NDArray[Any], horizon: int, step: Step) -> dict[str, Any]:
    """The reference, lead and valid coordinates with their CF attributes."""
    ref_name, lead_name, valid_name = names(dim)
    leads = np.arange(1, horizon + 1)
    attrs = {
        ref_name: {"long_name": f"last observed {dim} used"},
        lead_name: {"long_name": f"{dim} since the forecast reference {dim}"},
        valid_name: {"long_name": f"{dim} for which the forecast is valid"},
    }
    if dim == "time":
        standard = ("forecast_reference_time", "forecast_period", "time")
        attrs = {k: {"standard_name": n, **v} for (k, v), n in zip(attrs.items(), standard, strict=True)}
    if step.kind == "months":
        attrs[lead_name]["comment"] = "nominal months of 30.436875 days; valid_time is the exact month"
    return {
        ref_name: (ref_name, reference, attrs[ref_name]),
        lead_name: (lead_name, step.lead(leads), attrs[lead_name]),
        valid_name: ((ref_name, lead_name), step.add(reference[:, None], leads[None, :]), attrs[valid_name]),
    }
