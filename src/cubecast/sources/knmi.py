"""KNMI HDF5 radar images (accumulations and reflectivities), read through netCDF4.

Grid and projection are in kilometres in the file; here they are in metres, as CF and pyproj have them.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import netCDF4
import numpy as np

from cubecast.errors import InputError
from cubecast.sources.axes import no_variable
from cubecast.sources.blocks import LOCK, Key, Stored
from cubecast.sources.coding import Array, Coding
from cubecast.sources.layout import Found, Layout
from cubecast.sources.projected import crs_of, grid
from cubecast.sources.times import Stamps, Times
from cubecast.sources.values import interpret

_PARAMETERS: dict[str, tuple[str, dict[str, str]]] = {
    "ACCUMULATED_PRECIPITATION_[MM]": (
        "precipitation_amount",
        {"standard_name": "precipitation_amount", "long_name": "accumulated precipitation", "units": "kg m-2"},
    ),
    "REFLECTIVITY_[DBZ]": (
        "DBZH",
        {"standard_name": "equivalent_reflectivity_factor", "long_name": "reflectivity", "units": "dBZ"},
    ),
}
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_FORMULA = re.compile(r"\s*GEO\s*=\s*([-+.\deE]+)\s*\*\s*PV\s*(?:\+?\s*([-+]?\s*[.\deE]+))?\s*")


def is_knmi(file: netCDF4.Dataset) -> bool:
    """Whether an open HDF5 file has the groups of a KNMI radar image."""
    return {"overview", "geographic", "image1"} <= set(file.groups)


def scan(file: netCDF4.Dataset, path: str, names: tuple[str | None, ...]) -> list[Found]:
    """The first image of a file.

    Raises:
        InputError: it is of another name or kind, or the file lacks what says where and when it is.
    """
    image, overview = file["image1"], file["overview"]
    parameter = str(getattr(image, "image_geo_parameter", ""))
    if parameter not in _PARAMETERS:
        raise InputError(f"image of {path}", found=parameter or "no parameter", allowed=" or ".join(_PARAMETERS))
    try:
        layout = _layout(parameter, _geography(file))
        start, end = (_time(overview.getncattr(f"product_datetime_{k}")) for k in ("start", "end"))
    except (AttributeError, KeyError, ValueError, IndexError) as error:
        raise InputError(f"{path} is no KNMI radar image", found=str(error)) from error
    if image["image_data"].shape != layout.space:
        raise InputError(f"grid of {path}", found=f"shape {image['image_data'].shape}", allowed=str(layout.space))
    known: tuple[Any, ...] = (None, _PARAMETERS[parameter][0], layout.meaning.name)
    asked = next((n for n in names if n in known), "")
    if asked == "":
        raise no_variable(names, known[1:], path)
    stamps = Stamps(end)
    return [Found(layout, path, Times(stamps, (Stamps(start), stamps)), asked)]


def read(path: str, name: str, key: Key) -> tuple[Array, Coding]:
    """Stored numbers of the image and its calibration."""
    with LOCK, netCDF4.Dataset(path) as file:
        file.set_auto_maskandscale(False)
        calibration = file["image1"]["calibration"].__dict__
        match = _FORMULA.fullmatch(str(calibration.get("calibration_formulas", "")))
        if match is None:
            raise ValueError(f"calibration {calibration.get('calibration_formulas')!r}")
        missing = [calibration.get(f"calibration_{k}") for k in ("missing_data", "out_of_image")]
        gain, offset = float(match[1]), float((match[2] or "0").replace(" ", ""))
        return file[name][key], Coding(gain, offset, tuple(float(m) for m in missing if m is not None))


def _geography(file: netCDF4.Dataset) -> tuple[Any, ...]:
    """What the grid is made of: rows, columns, pixel sizes and offsets in km, and the projection."""
    geo = file["geographic"]
    if str(geo.getncattr("geo_dim_pixel")).upper() != "KM,KM":
        raise ValueError(f"pixels in {geo.getncattr('geo_dim_pixel')}")
    keys = ("number_rows", "number_columns", "pixel_size_x", "pixel_size_y", "column_offset", "row_offset")
    numbers = tuple(float(geo.getncattr(f"geo_{k}")) for k in keys)
    return (*numbers, str(geo["map_projection"].getncattr("projection_proj4_params")))


@lru_cache(maxsize=64)
def _layout(parameter: str, geography: tuple[Any, ...]) -> Layout:
    rows, columns, dx, dy, left, top, projection = geography
    # the ellipsoid's axes are in km, which PROJ takes for metres
    metres = re.sub(r"\+([ab])=([.\d]+)", lambda m: f"+{m[1]}={float(m[2]) * 1000:.3f}", projection)
    metres = metres if re.search(r"\+a=\d{4}(\.|\s|$)", projection) else projection
    crs = crs_of(metres, "a KNMI file")
    x = (left + np.arange(int(columns)) + 0.5) * dx * 1000.0
    y = (top + np.arange(int(rows)) + 0.5) * dy * 1000.0
    coords = grid(crs, x=x, y=y)
    *space, mapping = coords
    meaning = interpret(*_PARAMETERS[parameter], where="a KNMI file")
    meaning.attrs["grid_mapping"] = mapping
    stored = Stored(read, "image1/image_data", (1, 2), np.dtype(np.float32), meaning.limits, meaning.name)
    return Layout(stored, meaning, ("time", *space), coords, (int(rows), int(columns)), None, {"standard_name": "time"})


def _time(text: Any) -> Array:
    """26-AUG-2010;00:05:00.000, whatever language the machine speaks."""
    match = re.fullmatch(r"(\d+)-([A-Z]{3})-(\d{4});([\d:]+)(\.\d+)?", str(text).strip().upper())
    if match is None or match[2] not in _MONTHS:
        raise ValueError(f"time {text!r}")
    date = f"{match[3]}-{_MONTHS.index(match[2]) + 1:02d}-{int(match[1]):02d}"
    return np.array([f"{date}T{match[4]}"], "datetime64[ns]")
