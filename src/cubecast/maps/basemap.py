"""Coastlines, borders and the labelled graticule of a map; Natural Earth comes with the package, no network is used."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import as_file, files
from typing import Any, Literal
from urllib.error import URLError

import cartopy.crs as ccrs
import cartopy.io.shapereader as shapereader
import numpy as np
import shapely
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import LineCollection
from matplotlib.ticker import FixedFormatter, FixedLocator

from cubecast.errors import InputError, UsageError
from cubecast.maps.projection import Floats, Place, from_lonlat, region, to_lonlat

Coastline = Literal["auto", "110m", "50m", "10m", "none"]
COASTLINES = ("auto", "110m", "50m", "10m", "none")
_THEMES = {"coast": ("physical", "coastline"), "border": ("cultural", "admin_0_boundary_lines_land")}
_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0)
LINE = "#333333"


def draw_basemap(ax: Axes, place: Place, *, coastline: Coastline = "auto") -> None:
    """Draw coasts (strong) and land borders (thin) over the field on ``ax``.

    Args:
        ax: axes in the coordinates of ``place.projection``.
        place: of the field.
        coastline: scale of Natural Earth: 110m and 50m are packaged, 10m is downloaded by cartopy when it is first
            used, auto takes 110m for maps wider than about 5000 km, none draws nothing.

    Raises:
        UsageError: another word.
        InputError: 10m cannot be downloaded.
    """
    if coastline not in COASTLINES:
        raise UsageError("coastline", found=repr(coastline), allowed=", ".join(COASTLINES))
    if place.projection is None or coastline == "none":
        return
    scale = _scale(place) if coastline == "auto" else coastline
    for theme, width, color in (("border", 0.5, "#666666"), ("coast", 0.8, LINE)):
        # a white edge keeps the line visible on dark rain
        lines = _projected(place.projection, region(place), theme, scale)
        ax.add_collection(LineCollection(lines, linewidths=width + 0.8, colors="white", alpha=0.6, zorder=2.9))
        ax.add_collection(LineCollection(lines, linewidths=width, colors=color, zorder=3, label=theme))


def _scale(place: Place) -> str:
    west, east, south, north = region(place)
    width = (east - west) * np.cos(np.deg2rad((south + north) / 2)) * 111
    return "110m" if max(width, (north - south) * 111) > 5000 else "50m"


@lru_cache(maxsize=8)
def _geometries(theme: str, scale: str) -> tuple[Any, ...]:
    folder, name = _THEMES[theme]
    if scale == "10m":
        try:
            path = shapereader.natural_earth(resolution=scale, category=folder, name=name)
        except (URLError, OSError) as error:
            raise InputError(
                "cannot download the 10m coastline",
                found=str(error),
                remedy="take coastline='50m', which is packaged, or fill cartopy's data folder",
            ) from error
        return tuple(shapereader.Reader(path).geometries())
    packaged = files("cubecast") / "naturalearth" / "shapefiles" / "natural_earth" / folder
    with as_file(packaged) as on_disk:
        return tuple(shapereader.Reader(on_disk / f"ne_{scale}_{name}.shp").geometries())


@lru_cache(maxsize=32)
def _projected(
    projection: ccrs.Projection, limits: tuple[float, float, float, float], theme: str, scale: str
) -> list[Floats]:
    """The lines of a theme within ``limits`` (degrees), in the coordinates of ``projection``."""
    west, east, south, north = limits
    clipped = []
    for turn in (-360.0, 0.0, 360.0):  # limits may reach beyond 180
        box = shapely.box(max(west + turn, -180.0), south, min(east + turn, 180.0), north)
        if box.bounds[0] < box.bounds[2]:
            near = [g for g in _geometries(theme, scale) if shapely.intersects(g, box)]
            clipped += [part for g in near for part in _parts(shapely.intersection(g, box))]
    if not clipped:
        return []
    lines = projection.project_geometry(shapely.MultiLineString(clipped), ccrs.PlateCarree())
    return [np.asarray(part.coords) for part in _parts(lines)]


def _parts(geometry: Any) -> list[Any]:
    """The lines in a geometry; points where a line just touches are none."""
    found = getattr(geometry, "geoms", [geometry])
    return [g for g in found if isinstance(g, shapely.LineString) and not g.is_empty]


# --------------------------------------------------------------------------------------------------------- graticule


def draw_graticule(ax: Axes, place: Place, *, left: bool = True, bottom: bool = True, size: float = 7.0) -> None:
    """Draw meridians and parallels; label parallels where they meet the left side, meridians at the bottom.

    A field without a CRS gets its own coordinates on the axes instead.

    Args:
        ax: axes with its final limits and size.
        place: of the field.
        left: whether there is room for labels on the left.
        bottom: the same for the bottom.
        size: of the labels in points.
    """
    ax.tick_params(labelsize=size, length=2, labelleft=left, labelbottom=bottom)
    if place.projection is None:
        ax.set_xlabel(place.labels[0] if bottom else "", fontsize=size)
        ax.set_ylabel(place.labels[1] if left else "", fontsize=size)
        return
    west, east, south, north = region(place)
    box, dpi = ax.get_window_extent(), ax.figure.dpi
    wide, high = box.width / dpi, box.height / dpi
    meridians = _multiples(west, east, step=_step(_side(place, "x"), room=wide, label=0.085 * size / 7))
    parallels = _multiples(south, north, step=_step(_side(place, "y"), room=high, label=0.065 * size / 7))
    lines = [_line(place, np.full(100, lon), np.linspace(south, north, 100)) for lon in meridians]
    lines += [_line(place, np.linspace(west, east, 200), np.full(200, lat)) for lat in parallels]
    ax.add_collection(
        LineCollection(lines, linewidths=0.5, colors="#808080", alpha=0.7, linestyles=(0, (2, 3)), zorder=2.5)
    )
    ax.xaxis.set_visible(bottom)
    ax.yaxis.set_visible(left)
    at, names = _crossings(place, meridians, along="x", keep_off=0.22 / wide)
    _ticks(ax.xaxis, at, [_degrees(n, "E", "W") for n in names])
    at, names = _crossings(place, parallels, along="y", keep_off=0.06 / high)
    _ticks(ax.yaxis, at, [_degrees(n, "N", "S") for n in names])


def _ticks(axis: Axis, at: list[float], names: list[str]) -> None:
    axis.set_major_locator(FixedLocator(at))
    axis.set_major_formatter(FixedFormatter(names))


def _step(side: Floats, *, room: float, label: float) -> float:
    """The smallest round step whose labels fit, with space between, along one side of the map.

    Args:
        side: degrees along the side.
        room: its length in inches.
        label: inches that a character takes.
    """
    span = float(np.nanmax(side) - np.nanmin(side)) if np.isfinite(side).any() else 360.0
    for step in _STEPS:
        characters = 5 + (0 if step >= 1 else 1 + len(f"{step:g}".split(".")[1]))
        if span / step <= min(room / (label * (characters + 1)), 6):
            return step
    return _STEPS[-1]


def _multiples(low: float, high: float, *, step: float) -> Floats:
    values = np.arange(np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9) + 1) * step
    return np.asarray(np.round(values, 6))


def _line(place: Place, lon: Floats, lat: Floats) -> Floats:
    assert place.projection is not None  # draw_graticule returned before
    if place.central is not None:
        return np.stack([lon - place.central, lat], axis=-1)
    x, y = from_lonlat(place.projection, lon, lat)
    return np.stack([x, y], axis=-1)


_SAMPLES = 400


def _side(place: Place, along: Literal["x", "y"]) -> Floats:
    """Longitudes along the bottom of the map (x), or latitudes along its left side (y)."""
    assert place.projection is not None
    x0, x1, y0, y1 = place.extent
    side = np.linspace(*((x0, x1) if along == "x" else (y0, y1)), _SAMPLES)
    if place.central is not None:
        return side + (place.central if along == "x" else 0.0)
    x, y = (side, np.full(_SAMPLES, y0)) if along == "x" else (np.full(_SAMPLES, x0), side)
    lon, lat = to_lonlat(place.projection, x, y)
    return np.asarray(np.unwrap(lon, period=360.0)) if along == "x" else lat


def _crossings(
    place: Place, values: Floats, *, along: Literal["x", "y"], keep_off: float
) -> tuple[list[float], list[float]]:
    """Where the meridians (along x) or parallels (along y) ``values`` cross the bottom or the left side.

    Those within ``keep_off`` (a part of the side) of its ends are left out: labels would run into the next map.
    """
    x0, x1, y0, y1 = place.extent
    side = np.linspace(*((x0, x1) if along == "x" else (y0, y1)), _SAMPLES)
    found = _side(place, along)
    at, names = [], []
    for value in np.unique(values % 360) if along == "x" else values:
        for turn in (-720.0, -360.0, 0.0, 360.0) if along == "x" else (0.0,):
            off = found - value - turn
            for i in np.flatnonzero((off[:-1] <= 0) != (off[1:] <= 0)):
                where = (i + off[i] / (off[i] - off[i + 1])) / (_SAMPLES - 1)
                if keep_off <= where <= 1 - keep_off:
                    at.append(float(side[0] + (side[-1] - side[0]) * where))
                    names.append(float(value))
    return at, names


def _degrees(value: float, positive: str, negative: str) -> str:
    value = (value + 180) % 360 - 180 if positive == "E" else value
    if value in (0.0, -180.0):
        return f"{abs(value):g}°"
    return f"{abs(value):g}°{positive if value > 0 else negative}"
