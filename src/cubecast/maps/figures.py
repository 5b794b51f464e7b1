"""Maps for people: one field, a panel of leads, observed beside forecast, and a folder of pictures of a forecast."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from cubecast.atomic import atomic_path, make_folder
from cubecast.errors import InputError, UsageError
from cubecast.maps.animation import animate, show_frame
from cubecast.maps.basemap import Coastline
from cubecast.maps.colours import difference_style, field_style, shown, title_of
from cubecast.maps.frames import Frames, file_part, forecast_frames, observed_values, time_text
from cubecast.maps.panels import Panel, draw_panels
from cubecast.maps.projection import find_place
from cubecast.product import forecast_dim, lead_texts, names
from cubecast.progress import Progress, follow

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
    style = field_style(frames.field, list(frames.field.values))
    panels = [Panel(v, style, _title(frames, i)) for i, v in enumerate(frames.field.values)]
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
    observed, made = observed_values(cube, frames), list(frames.field.values)
    differences = [f - o for f, o in zip(made, observed, strict=True)]
    style, change = field_style(frames.field, [*observed, *made]), difference_style(frames.field, differences)
    rows = [
        [Panel(v, style, f"Observed\n{t}") for v, t in zip(observed, frames.times, strict=True)],
        [Panel(v, style, f"Forecast {text}") for v, text in zip(made, frames.leads, strict=True)],
        [Panel(v, change, "Forecast − observed") for v in differences],
    ]
    place = find_place(frames.field)
    return draw_panels(rows, place, heading=frames.heading, coastline=coastline, attribution=attribution).figure


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


def draw_maps(
    forecast: xr.Dataset,
    folder: str | os.PathLike[str],
    *,
    cube: xr.DataArray | None = None,
    variable: str | None = None,
    animations: Sequence[str] = (),
    coastline: Coastline = "auto",
    attribution: str | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Pictures of every reference time of a forecast in one folder: a PNG a lead, a panel of leads, animations.

    Names are ``VARIABLE_REFERENCE_+LEAD.png``, ``..._leads.png``, ``..._comparison.png`` (with ``cube``) and
    ``VARIABLE_REFERENCE.gif``; files of these names are replaced.

    Args:
        forecast: see `cubecast.product`.
        folder: made when missing.
        cube: observed frames to set beside the forecast.
        variable: None: all of them.
        animations: any of gif, mp4, html.
        coastline, attribution: as `plot_field`.
        progress: wraps the loop over reference times.

    Returns:
        The paths in the order they were written.

    Raises:
        UsageError, InputError, OutputError: as the functions that draw each of them.
    """
    target = Path(folder)
    fields = [str(n) for n in forecast.data_vars] if variable is None else [variable]
    dim = forecast_dim(forecast) if isinstance(forecast, xr.Dataset) and fields else ""
    jobs = [(name, reference) for reference in forecast[names(dim)[0]].values for name in fields]
    written: list[Path] = []
    for name, reference in follow(jobs, "maps", len(jobs), progress):
        options: dict[str, Any] = {"variable": name, "reference": reference}
        look: dict[str, Any] = {"coastline": coastline, "attribution": attribution}
        frames = forecast_frames(forecast, **options)
        make_folder(target)
        stem = f"{name}_{file_part(reference)}".replace("/", "_")
        written += _each_lead(frames, target, f"{name}_".replace("/", "_"), reference, look)
        written.append(_saved(plot_leads(forecast, **options, **look), target / f"{stem}_leads.png"))
        if cube is not None:
            written.append(
                _saved(plot_comparison(forecast, cube, **options, **look), target / f"{stem}_comparison.png")
            )
        for kind in animations:
            written.append(target / f"{stem}.{kind}")
            animate(forecast, written[-1], cube=cube, **options, **look)
    return written


def _each_lead(frames: Frames, folder: Path, prefix: str, reference: Any, look: dict[str, Any]) -> list[Path]:
    """One PNG a lead; the map is drawn once, only the field and the title change."""
    values = list(frames.field.values)
    style = field_style(frames.field, values)
    titles = [f"{lead}, valid {time}" for lead, time in zip(frames.leads, frames.times, strict=True)]
    first = Panel(values[0], style, titles[0])
    place = find_place(frames.field)
    drawn = draw_panels([[first]], place, heading=frames.heading, **look)
    leads = frames.field[names(forecast_dim_of(frames.field))[1]].values
    paths = []
    for i, value in enumerate(values):
        show_frame(drawn, place, [value], [titles[i]])
        paths.append(_saved(drawn.figure, folder / f"{prefix}{file_part(reference, leads[i])}.png"))
    return paths


def _when(field: xr.DataArray) -> str:
    """The time of one field, and its lead when it was taken from a forecast."""
    scalar = {str(n): v.values for n, v in field.coords.items() if not v.ndim}
    if "lead_time" in scalar and "valid_time" in scalar:
        return f"+{lead_texts(scalar['lead_time'][None])[0]}, valid {time_text(scalar['valid_time'][()])}"
    return time_text(scalar["time"][()]) if "time" in scalar else ""


def forecast_dim_of(field: xr.DataArray) -> str:
    """The sequence dim of the forecast that ``field`` (lead, y, x) came from."""
    return str(field.dims[0])[len("lead_") :]


def _saved(figure: Figure, path: Path) -> Path:
    save_figure(figure, path)
    return path


def _title(frames: Frames, index: int) -> str:
    return f"{frames.leads[index]}\nvalid {frames.times[index]}"


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
