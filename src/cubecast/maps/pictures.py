"""A folder of pictures of a forecast: what ``cubecast map`` writes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr
from matplotlib.figure import Figure

from cubecast.atomic import make_folder
from cubecast.errors import UsageError
from cubecast.maps.animation import FORMATS, animate, find_ffmpeg, show_frame
from cubecast.maps.basemap import Coastline
from cubecast.maps.colours import field_style
from cubecast.maps.figures import plot_comparison, plot_leads, save_figure
from cubecast.maps.frames import Frames, file_part, forecast_frames, has_observed, observed_values
from cubecast.maps.panels import Panel, draw_panels
from cubecast.maps.projection import find_place
from cubecast.product import forecast_dim, names
from cubecast.progress import Progress, follow


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

    Names are ``VARIABLE_REFERENCE_+LEAD.png``, ``..._leads.png``, ``..._comparison.png`` and ``..._REFERENCE.gif``;
    files of these names are replaced.

    Args:
        forecast: see `cubecast.product`.
        folder: made when missing.
        cube: observed frames, set beside the forecasts that they have a valid time of (``..._comparison.png``).
        variable: None: all of them.
        animations: any of gif, mp4, html.
        coastline, attribution: as `cubecast.maps.plot_field`.
        progress: wraps the loop over reference times.

    Returns:
        The paths in the order they were written.

    Raises:
        UsageError: another kind of animation, no ffmpeg for mp4, no such variable.
        InputError: not a forecast of fields; an observed cube on another grid, or without any of the valid times.
        OutputError: a file cannot be written.
    """
    _check_animations(animations)
    cases = _cases(forecast, variable)
    if cube is not None:  # refuse a cube that does not fit before anything is written
        fit = [f for f in cases if has_observed(cube, f)] or cases[-1:]
        for one in {str(f.field.name): f for f in fit}.values():
            observed_values(cube, one)
    target = Path(folder)
    make_folder(target)
    written: list[Path] = []
    look: dict[str, Any] = {"coastline": coastline, "attribution": attribution}
    for frames in follow(cases, "maps", len(cases), progress):
        name = str(frames.field.name)
        options: dict[str, Any] = {"variable": name, "reference": frames.reference, **look}
        stem = f"{name}_{file_part(frames.reference)}".replace("/", "_")
        beside = cube if cube is not None and has_observed(cube, frames) else None
        written += _each_lead(frames, target, look)
        written.append(_saved(plot_leads(forecast, **options), target / f"{stem}_leads.png"))
        if beside is not None:
            written.append(_saved(plot_comparison(forecast, beside, **options), target / f"{stem}_comparison.png"))
        for kind in animations:
            written.append(target / f"{stem}.{kind}")
            animate(forecast, written[-1], cube=beside, **options)
    return written


def _check_animations(kinds: Sequence[str]) -> None:
    """Refuse what cannot be written before anything is."""
    for kind in kinds:
        if f".{kind}" not in FORMATS:
            raise UsageError("animation", found=repr(kind), allowed=", ".join(f[1:] for f in FORMATS))
        if kind == "mp4":
            find_ffmpeg()


def _cases(forecast: xr.Dataset, variable: str | None) -> list[Frames]:
    """The fields of every reference time and variable, not computed yet."""
    first = forecast_frames(forecast, variable=variable)  # checks both
    fields = [str(n) for n in forecast.data_vars] if variable is None else [variable]
    references = forecast[names(forecast_dim(forecast))[0]].values
    if len(references) == len(fields) == 1:
        return [first]
    return [forecast_frames(forecast, variable=name, reference=r) for r in references for name in fields]


def _each_lead(frames: Frames, folder: Path, look: dict[str, Any]) -> list[Path]:
    """One PNG a lead; the map is drawn once, only the field and the title change."""
    values = frames.values()
    style, place = field_style(frames.field, values), find_place(frames.field)
    titles = [f"{lead}, valid {time}" for lead, time in zip(frames.leads, frames.times, strict=True)]
    drawn = draw_panels([[Panel(values[0], style, titles[0])]], place, heading=frames.heading, **look)
    leads = frames.field[frames.field.dims[0]].values
    paths = []
    for value, title, lead in zip(values, titles, leads, strict=True):
        show_frame(drawn, place, [value], [title])
        name = f"{frames.field.name}_{file_part(frames.reference, lead)}.png".replace("/", "_")
        paths.append(_saved(drawn.figure, folder / name))
    return paths


def _saved(figure: Figure, path: Path) -> Path:
    save_figure(figure, path)
    return path
