"""Maps for people: one field, a panel of leads, observed beside forecast, and a folder of pictures of a forecast."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from cubecast.atomic import atomic_path
from cubecast.errors import InputError, UsageError
from cubecast.maps.basemap import Coastline
from cubecast.maps.colours import difference_style, field_style, shown, title_of
from cubecast.maps.frames import forecast_frames, observed_values, time_text
from cubecast.maps.panels import Panel, draw_panels
from cubecast.maps.projection import find_place
from cubecast.product import REALIZATION, lead_texts

FORMATS = (".png", ".pdf", ".svg")
_PANELS = 6


def plot_field(
    field: xr.DataArray, *, title: str | None = None, coastline: Coastline = "auto", attribution: str | None = None
) -> Figure:
    """A map of one field on its own projection, with coasts, borders, a labelled graticule and a colour bar.

    Rain is coloured by bounds in mm h-1, temperature and anomalies by cmocean; missing data are grey and hatched.

    Args:
        field: dims (y, x), with ``units``; see `cubecast.cube` for its coordinates.
        title: None: what the field is and its time.
        coastline: auto, 110m, 50m (both packaged), 10m (downloaded by cartopy) or none.
        attribution: small text below the map, such as the owner of the data.

    Raises:
        InputError: not a field, or coordinates that cannot be placed.
    """
    if field.ndim != 2:
        raise InputError(
            f"no map of {field.name!r}", found=f"dims {field.dims}", allowed="one field (y, x)", remedy="select a frame"
        )
    one = shown(field)
    panel = Panel(one.values, field_style(one, [one.values]), _when(one))
    heading = title if title is not None else title_of(one)
    return draw_panels([[panel]], find_place(one), heading=heading, coastline=coastline, attribution=attribution).figure


def plot_leads(
    forecast: xr.Dataset,
    *,
    variable: str | None = None,
    reference: Any = None,
    leads: Sequence[int] | None = None,
    coastline: Coastline = "auto",
    attribution: str | None = None,
) -> Figure:
    """A panel of maps, one a lead.

    Args:
        forecast: see `cubecast.product`; of an ensemble, the mean is drawn.
        variable: None: the first one.
        reference: one of the reference times; None: the last.
        leads: positions of the leads, from 0; None: six or fewer, from the first to the last.
        coastline, attribution: as `plot_field`.

    Raises:
        UsageError: no such variable, reference time or lead.
        InputError: not a forecast of fields.
    """
    chosen = _spread(forecast, leads)
    frames = forecast_frames(forecast, variable=variable, reference=reference, leads=chosen)
    values = frames.values()
    style = field_style(frames.field, values)
    titles = [f"{lead}\nvalid {time}" for lead, time in zip(frames.leads, frames.times, strict=True)]
    panels = [Panel(v, style, title) for v, title in zip(values, titles, strict=True)]
    place = find_place(frames.field)
    across = _columns(len(panels), place.aspect)
    rows = [panels[i : i + across] for i in range(0, len(panels), across)]
    return draw_panels(rows, place, heading=frames.heading, coastline=coastline, attribution=attribution).figure


def plot_comparison(
    forecast: xr.Dataset,
    cube: xr.DataArray,
    *,
    variable: str | None = None,
    reference: Any = None,
    leads: Sequence[int] | None = None,
    coastline: Coastline = "auto",
    attribution: str | None = None,
) -> Figure:
    """Rows of maps: observed, forecast, and forecast minus observed; one column a lead.

    Args:
        forecast: see `cubecast.product`.
        cube: the observed frames; where it has none at a valid time, the map is all missing.
        variable, reference, coastline, attribution: as `plot_leads`.
        leads: positions of the leads, from 0; None: four or fewer.

    Raises:
        UsageError: no such variable, reference time or lead.
        InputError: not a forecast of fields; the cube lies on another grid or at other times.
    """
    chosen = _spread(forecast, leads, most=4)
    frames = forecast_frames(forecast, variable=variable, reference=reference, leads=chosen)
    observed, made = observed_values(cube, frames), frames.values()
    differences = [f - o for f, o in zip(made, observed, strict=True)]
    style, change = field_style(frames.field, [*observed, *made]), difference_style(frames.field, differences)
    rows = [
        [Panel(v, style, f"Observed\n{t}") for v, t in zip(observed, frames.times, strict=True)],
        [Panel(v, style, f"Forecast {text}") for v, text in zip(made, frames.leads, strict=True)],
        [Panel(v, change, "Forecast − observed") for v in differences],
    ]
    place = find_place(frames.field)
    return draw_panels(rows, place, heading=frames.heading, coastline=coastline, attribution=attribution).figure


def plot_systems(
    forecasts: Mapping[str, xr.Dataset],
    cube: xr.DataArray,
    *,
    variable: str | None = None,
    reference: Any = None,
    leads: Sequence[int] | None = None,
    coastline: Coastline = "auto",
    attribution: str | None = None,
) -> Figure:
    """Rows of maps: observed, then the forecast of each system in the same colours; one column a lead.

    Args:
        forecasts: by the name of the system, with the same reference times, leads and grid; see `cubecast.product`.
        cube, variable, reference, leads, coastline, attribution: as `plot_comparison`.

    Raises:
        UsageError: no system, no such variable, reference time or lead.
        InputError: not forecasts of fields; the cube lies on another grid or at other times.
    """
    if not forecasts:
        raise UsageError("no map", found="no forecast", allowed="one system or more")
    chosen = _spread(next(iter(forecasts.values())), leads, most=4)
    made = {
        name: forecast_frames(forecast, variable=variable, reference=reference, leads=chosen)
        for name, forecast in forecasts.items()
    }
    first = next(iter(made.values()))
    rows = {"Observed": observed_values(cube, first)} | {name: frames.values() for name, frames in made.items()}
    style = field_style(first.field, [field for row in rows.values() for field in row])
    mean = {name: ", mean of members" if REALIZATION in forecast.dims else "" for name, forecast in forecasts.items()}
    titles = {name: [name.replace("_", " ") + mean[name]] * len(first.times) for name in made}
    titles["Observed"] = [f"Observed, {lead}\n{time}" for lead, time in zip(first.leads, first.times, strict=True)]
    panels = [[Panel(v, style, t) for v, t in zip(row, titles[name], strict=True)] for name, row in rows.items()]
    place = find_place(first.field)
    return draw_panels(panels, place, heading=first.title, coastline=coastline, attribution=attribution).figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG, PDF or SVG by the suffix of ``path``, whole or not at all.

    Raises:
        UsageError: another suffix.
        OutputError: it cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(f"cannot write {path}", found=f"suffix {suffix!r}", allowed=", ".join(FORMATS))
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=suffix[1:], dpi="figure")


def _when(field: xr.DataArray) -> str:
    """The time of one field, and its lead when it was taken from a forecast."""
    scalar = {str(n): v.values for n, v in field.coords.items() if not v.ndim}
    if "lead_time" in scalar and "valid_time" in scalar:
        return f"+{lead_texts(scalar['lead_time'][None])[0]}, valid {time_text(scalar['valid_time'][()])}"
    return time_text(scalar["time"][()]) if "time" in scalar else ""


def _spread(forecast: xr.Dataset, leads: Sequence[int] | None, *, most: int = _PANELS) -> Sequence[int] | None:
    """``leads``, or up to ``most`` evenly spaced positions that end with the last lead."""
    if leads is not None or not isinstance(forecast, xr.Dataset):
        return leads
    count = max((n for d, n in forecast.sizes.items() if str(d).startswith("lead_")), default=0)
    even = [n for n in (most, most - 1) if count % n == 0]
    number = even[0] if even else min(count, most)
    return [round((k + 1) * count / number) - 1 for k in range(number)] or None


def _columns(count: int, aspect: float) -> int:
    """How many panels of height/width ``aspect`` stand in a row, so that the figure is about 3 wide and 2 high."""

    def badness(columns: int) -> float:
        rows = -(-count // columns)
        return abs(np.log(rows * aspect / columns / 0.66)) + 0.5 * (rows * columns - count)

    return min(range(1, count + 1), key=badness)
