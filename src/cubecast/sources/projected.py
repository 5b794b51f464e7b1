"""Grids of files that give a projection string and corners (ODIM, KNMI, PGM) as CF coordinates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyproj
import xarray as xr

from cubecast.errors import InputError

MAPPING = "crs"


def crs_of(projection: str, where: str) -> pyproj.CRS:
    """The CRS of a PROJ string.

    Raises:
        InputError: pyproj does not understand it.
    """
    try:
        return pyproj.CRS.from_user_input(projection)
    except pyproj.exceptions.CRSError as error:
        raise InputError(f"projection of {where}", found=repr(projection), allowed="a PROJ string") from error


def project(crs: pyproj.CRS, lon: float, lat: float) -> tuple[float, float]:
    """Projected (x, y), in the units of the CRS, of a place in degrees on its own datum."""
    geodetic = crs.geodetic_crs
    if crs.is_geographic or geodetic is None:
        return lon, lat
    return pyproj.Transformer.from_crs(geodetic, crs, always_xy=True).transform(lon, lat)


def grid(crs: pyproj.CRS, *, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> dict[str, xr.Variable]:
    """CF coordinates of pixel centres (metres, or degrees for a geographic CRS) and the grid mapping, in cube order."""
    if crs.is_geographic:
        names = (("lat", "latitude", "degrees_north"), ("lon", "longitude", "degrees_east"))
    else:
        names = (("y", "projection_y_coordinate", "m"), ("x", "projection_x_coordinate", "m"))
    coords = {
        name: xr.Variable((name,), values, {"standard_name": standard, "units": unit, "axis": axis})
        for (name, standard, unit), values, axis in zip(names, (y, x), "YX", strict=True)
    }
    return {**coords, MAPPING: xr.Variable((), np.int32(0), crs.to_cf())}
