"""Where a field lies on its map: the cube's own projection, the edges of its cells, and the region in lon/lat."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cartopy.crs as ccrs
import numpy as np
import numpy.typing as npt
import pyproj
import xarray as xr

from cubecast import units
from cubecast.cube import cube_crs
from cubecast.errors import InputError

Floats = npt.NDArray[np.floating[Any]]
_WGS84 = pyproj.CRS.from_epsg(4326)
_MAX_LATITUDE_STRETCH = 70.0
"""Beyond this latitude a lat/lon map is not stretched any more."""


class GridProjection(ccrs.Projection):
    """The cartopy projection of any pyproj CRS over the limits of one grid; cartopy's own knows no limits of most."""

    def __init__(self, crs: pyproj.CRS, extent: tuple[float, float, float, float]) -> None:
        super().__init__(crs)
        self.bounds = extent
        self.threshold = min(extent[1] - extent[0], extent[3] - extent[2]) / 500


@dataclass(frozen=True)
class Place:
    """The place of a grid on its map, in the coordinates of ``projection`` (metres or degrees, x and y ascending).

    ``projection`` is None for a field without a CRS: then its own coordinates are drawn. ``flips`` are the slices
    that bring an array of values (y, x) into ascending order. ``stretch`` is how much longer a unit of y is drawn
    than one of x: 1 but for regional lat/lon grids, where it is 1 / cos(latitude). ``labels`` name the axes of a field
    without a CRS. ``central`` is the longitude of x = 0 of a lat/lon grid, None for others.
    """

    projection: ccrs.Projection | None
    x_edges: tuple[float, ...]
    y_edges: tuple[float, ...]
    flips: tuple[bool, bool]
    stretch: float
    labels: tuple[str, str] = ("", "")
    central: float | None = None

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """West, east, south and north limit of the map; cells may reach beyond a pole, the map does not."""
        south, north = self.y_edges[0], self.y_edges[-1]
        if self.central is not None:
            south, north = max(south, -90.0), min(north, 90.0)
        return self.x_edges[0], self.x_edges[-1], south, north

    @property
    def aspect(self) -> float:
        """Height over width of the map."""
        west, east, south, north = self.extent
        return (north - south) / (east - west) * self.stretch

    @property
    def regular(self) -> bool:
        """Whether all cells have the same size, so that no edge is off by more than a tenth of a cell."""
        even = [(np.array(e), np.linspace(e[0], e[-1], len(e))) for e in (self.x_edges, self.y_edges)]
        return all(np.abs(edges - equal).max() <= 0.1 * (equal[1] - equal[0]) for edges, equal in even)

    def ascending(self, values: Floats) -> Floats:
        """``values`` (y, x) in ascending order of both coordinates."""
        return values[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]


def find_place(field: xr.DataArray) -> Place:
    """The `Place` of a field; reads its coordinates only.

    Args:
        field: last two dims (y, x): lat/lon in degrees, or projected in m or km with a grid mapping, or neither.

    Raises:
        InputError: coordinates that cannot be drawn.
    """
    y_dim, x_dim = (str(d) for d in field.dims[-2:])
    if y_dim in field.coords and field[y_dim].attrs.get("units") in ("degrees_east", "degree_east"):
        raise InputError(
            "a map", found=f"dims {y_dim}, {x_dim}", allowed="latitude first", remedy="transpose the field"
        )
    frame = field.isel(dict.fromkeys(field.dims[:-2], 0), drop=True)
    crs = cube_crs(frame.expand_dims("frame"))  # which asks for a cube: a sequence dim first
    y, x = _axis(field, y_dim), _axis(field, x_dim)
    flips = bool(y[0] > y[-1]), bool(x[0] > x[-1])
    y, x = np.sort(y), np.sort(x)
    if crs is None:
        return Place(None, _edges(x), _edges(y), flips, 1.0, (_label(field, x_dim), _label(field, y_dim)))
    if crs.is_geographic and not crs.is_derived:
        return _latlon_place(x, y, flips)
    x, y = x * _factor(field, x_dim, crs), y * _factor(field, y_dim, crs)
    x_edges, y_edges = _edges(x), _edges(y)
    projection = GridProjection(crs, (x_edges[0], x_edges[-1], y_edges[0], y_edges[-1]))
    return Place(projection, x_edges, y_edges, flips, 1.0)


def _latlon_place(lon: Floats, lat: Floats, flips: tuple[bool, bool]) -> Place:
    x_edges, y_edges = _edges(lon), _edges(lat)
    middle = (x_edges[0] + x_edges[-1]) / 2
    central = 0.0 if x_edges[0] >= -180 and x_edges[-1] <= 180 else middle
    stretch = 1.0
    if x_edges[-1] - x_edges[0] < 90:
        middle_lat = min(abs(lat[0] + lat[-1]) / 2, _MAX_LATITUDE_STRETCH)
        stretch = 1 / float(np.cos(np.deg2rad(middle_lat)))
    edges = tuple(e - central for e in x_edges)
    return Place(ccrs.PlateCarree(central_longitude=central), edges, y_edges, flips, stretch, central=central)


def _axis(field: xr.DataArray, dim: str) -> Floats:
    """The coordinate of ``dim`` in its own units, or 0, 1, 2, ...; strictly monotonic, longitudes unwrapped."""
    if dim not in field.coords:
        return np.arange(field.sizes[dim], dtype=float)
    values = np.asarray(field[dim].values)
    if values.dtype.kind in "iuf":
        values = values.astype(float)
        if units.same(str(field[dim].attrs.get("units", "")), "degrees"):
            values = np.unwrap(values, period=360.0)
        steps = np.diff(values)
        if np.isfinite(values).all() and ((steps > 0).all() or (steps < 0).all()):
            return values
    raise InputError(
        f"coordinate {dim!r} cannot be drawn", found="values that neither rise nor fall throughout", allowed="numbers"
    )


def _edges(centres: Floats) -> tuple[float, ...]:
    if len(centres) == 1:
        return float(centres[0]) - 0.5, float(centres[0]) + 0.5
    inner = (centres[1:] + centres[:-1]) / 2
    ends = centres[0] - (inner[0] - centres[0]), centres[-1] + (centres[-1] - inner[-1])
    return tuple(float(v) for v in (ends[0], *inner, ends[1]))


def _factor(field: xr.DataArray, dim: str, crs: pyproj.CRS) -> float:
    """Units of the CRS in one unit of the coordinate."""
    unit = units.canonical(str(field[dim].attrs.get("units", ""))) if dim in field.coords else ""
    if crs.is_geographic:  # rotated lat/lon: degrees on both sides
        allowed, size = "degrees", {"degrees": 1.0}
    else:
        metres = crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0
        allowed, size = "m or km", {"m": 1 / metres, "km": 1000 / metres}
    if unit not in size:
        raise InputError(
            f"coordinate {dim!r} cannot be placed on its projection",
            found=f"units {unit!r}",
            allowed=allowed,
            remedy=f"set them, for example cube[{dim!r}].attrs['units'] = 'm'",
        )
    return size[unit]


def _label(field: xr.DataArray, dim: str) -> str:
    unit = str(field[dim].attrs.get("units", "")) if dim in field.coords else "cells"
    return f"{dim} ({unit})" if unit else dim


# ------------------------------------------------------------------------------------------------------- lon and lat


@lru_cache(maxsize=16)
def to_projection(projection: ccrs.Projection) -> pyproj.Transformer:
    """Longitude and latitude (WGS 84) to the coordinates of ``projection``."""
    return pyproj.Transformer.from_crs(_WGS84, pyproj.CRS.from_wkt(projection.to_wkt()), always_xy=True)


def to_lonlat(projection: ccrs.Projection, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Longitude and latitude (WGS 84) of points of ``projection``; NaN off the globe."""
    lon, lat = to_projection(projection).transform(x, y, direction="INVERSE")
    off = ~(np.isfinite(lon) & np.isfinite(lat))
    return np.where(off, np.nan, lon), np.where(off, np.nan, lat)


def from_lonlat(projection: ccrs.Projection, lon: Floats, lat: Floats) -> tuple[Floats, Floats]:
    """Coordinates of ``projection`` of points; NaN where it has none."""
    x, y = to_projection(projection).transform(lon, lat)
    off = ~(np.isfinite(x) & np.isfinite(y))
    return np.where(off, np.nan, x), np.where(off, np.nan, y)


def region(place: Place) -> tuple[float, float, float, float]:
    """West, east, south and north of the map in degrees, with a small margin; east may be beyond 180, west below it.

    A map that shows a pole has all longitudes.
    """
    if place.projection is None:
        raise InputError("a field without a CRS has no region in longitude and latitude")
    west, east, south, north = place.extent
    x, y = np.meshgrid(np.linspace(west, east, 41), np.linspace(south, north, 41))
    if place.central is not None:
        return west + place.central, east + place.central, south, north
    lon, lat = to_lonlat(place.projection, x, y)
    middle = np.nanmedian(np.unwrap(lon[20][np.isfinite(lon[20])], period=360.0)) if np.isfinite(lon[20]).any() else 0.0
    around = (lon - middle + 180) % 360 - 180
    margin = 0.02 * float(np.nanmax(lat) - np.nanmin(lat))
    limits = [float(middle + np.nanmin(around)) - margin, float(middle + np.nanmax(around)) + margin]
    lats = [max(float(np.nanmin(lat)) - margin, -90.0), min(float(np.nanmax(lat)) + margin, 90.0)]
    for index, pole in enumerate((-90.0, 90.0)):
        px, py = from_lonlat(place.projection, np.array([middle]), np.array([pole]))
        if west <= px[0] <= east and south <= py[0] <= north:
            limits, lats[index] = [float(middle) - 180, float(middle) + 180], pole
    return limits[0], limits[1], float(lats[0]), float(lats[1])
