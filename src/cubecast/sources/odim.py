"""ODIM HDF5 composites (EUMETNET OPERA data information model), read through netCDF4.

``nodata`` is missing; ``undetect`` was measured and is dry: 0 for rain, no echo for reflectivity.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from typing import Any

import netCDF4
import numpy as np

from cubecast.errors import InputError
from cubecast.sources.axes import no_variable
from cubecast.sources.blocks import LOCK, Key, Stored
from cubecast.sources.coding import Array, Coding
from cubecast.sources.layout import Found, Layout
from cubecast.sources.projected import crs_of, grid, project
from cubecast.sources.times import Stamps, Times
from cubecast.sources.values import interpret
from cubecast.units import NO_ECHO

QUANTITIES: dict[str, tuple[str, dict[str, str]]] = {
    "RATE": (
        "rainfall_rate",
        {"standard_name": "rainfall_rate", "long_name": "rainfall rate", "units": "mm h-1"},
    ),
    "ACRR": (
        "rainfall_amount",
        {"standard_name": "rainfall_amount", "long_name": "accumulated rainfall", "units": "kg m-2"},
    ),
    "DBZH": (
        "DBZH",
        {"standard_name": "equivalent_reflectivity_factor", "long_name": "reflectivity", "units": "dBZ"},
    ),
    "TH": (
        "TH",
        {"standard_name": "equivalent_reflectivity_factor", "long_name": "uncorrected reflectivity", "units": "dBZ"},
    ),
}
"""Quantities that can be forecast, the first that a file has is taken: name and attributes in the cube."""


def is_odim(file: netCDF4.Dataset) -> bool:
    """Whether an open HDF5 file says that it is ODIM."""
    return str(getattr(file, "Conventions", "")).startswith("ODIM_H5")


def scan(file: netCDF4.Dataset, path: str, names: tuple[str | None, ...]) -> list[Found]:
    """The quantities ``names`` (RATE, ACRR, DBZH, TH, or their names in a cube; None: the first of these).

    Raises:
        InputError: none is there, or the file is no composite on a grid.
    """
    here: dict[str, str] = {}
    for where, quantity in _quantities(file):
        if quantity in QUANTITIES:
            here.setdefault(quantity, where)  # the lowest of several heights
    out = []
    for name in names:
        known = [q for q in QUANTITIES if q in here and name in (None, q, QUANTITIES[q][0], _cube_name(q))]
        if known:
            out.append(_found(file, path, known[0], here[known[0]], name))
    if not out:
        raise no_variable(names, here, path)
    return out


def read(path: str, name: str, key: Key) -> tuple[Array, Coding]:
    """Stored numbers of ``datasetN/dataM/data`` and the coding in the ``what`` groups above it."""
    with LOCK, netCDF4.Dataset(path) as file:
        file.set_auto_maskandscale(False)
        what = _inherited(file, name)
        dry = (float(what["undetect"]),) if "undetect" in what else ()
        missing = (float(what["nodata"]),) if "nodata" in what else ()
        nothing = 0.0 if what.get("quantity") in ("RATE", "ACRR") else NO_ECHO
        coding = Coding(float(what.get("gain", 1)), float(what.get("offset", 0)), missing, dry, nothing)
        return file[name][key], coding


def _cube_name(quantity: str) -> str:
    return interpret(*QUANTITIES[quantity], where=quantity).name


def _quantities(file: netCDF4.Dataset) -> Iterator[tuple[str, str]]:
    """(path of the values, quantity) for all layers, the lowest numbers first."""
    for dataset in sorted((g for g in file.groups if g.startswith("dataset")), key=_number):
        for layer in sorted((g for g in file[dataset].groups if g.startswith("data")), key=_number):
            if "data" in file[dataset][layer].variables:
                path = f"{dataset}/{layer}/data"
                yield path, str(_inherited(file, path).get("quantity", ""))


def _number(group: str) -> int:
    digits = "".join(c for c in group if c.isdigit())
    return int(digits or 0)


def _inherited(file: netCDF4.Dataset, path: str, kind: str = "what") -> dict[str, Any]:
    """The ``what`` or ``where`` attributes that hold for a layer: those of the file, of the dataset and its own."""
    dataset, layer, _ = path.split("/")
    out: dict[str, Any] = {}
    for group in (file, file[dataset], file[dataset][layer]):
        if kind in group.groups:
            out |= group[kind].__dict__
    return out


def _found(file: netCDF4.Dataset, path: str, quantity: str, name: str, asked: str | None) -> Found:
    what = _inherited(file, name)
    where = _inherited(file, name, "where")
    try:
        numbers = tuple(float(where[k]) for k in ("xsize", "ysize", "xscale", "yscale", "LL_lon", "LL_lat"))
        projection = str(where["projdef"])
        nominal = _time(what, "date", "time")
        period = (_time(what, "startdate", "starttime"), _time(what, "enddate", "endtime"))
    except (KeyError, ValueError) as error:
        raise InputError(f"{path} is no ODIM composite", found=f"no usable attribute {error}") from error
    variable = file[name]
    chunking = variable.chunking()
    chunks = (1, *chunking) if isinstance(chunking, list) else None
    layout = _layout(quantity, name, projection, numbers, chunks)
    if variable.shape != layout.space:
        raise InputError(f"grid of {path}", found=f"shape {variable.shape}", allowed=f"{layout.space} as 'where' says")
    amount = layout.meaning.amount is not None
    stamps = Stamps(period[1] if amount else nominal)
    return Found(layout, path, Times(stamps, (Stamps(period[0]), stamps) if amount else None), asked)


@lru_cache(maxsize=64)
def _layout(
    quantity: str, name: str, projection: str, numbers: tuple[float, ...], chunks: tuple[int, ...] | None
) -> Layout:
    nx, ny, dx, dy, lon, lat = numbers
    crs = crs_of(projection, "an ODIM file")
    left, bottom = project(crs, lon, lat)
    x = left + (np.arange(int(nx)) + 0.5) * dx
    y = bottom + (int(ny) - np.arange(int(ny)) - 0.5) * dy
    coords = grid(crs, x=x, y=y)
    *space, mapping = coords
    meaning = interpret(*QUANTITIES[quantity], where="an ODIM file")
    meaning.attrs["grid_mapping"] = mapping
    stored = Stored(read, name, (1, 2), np.dtype(np.float32), meaning.limits, meaning.name)
    return Layout(stored, meaning, ("time", *space), coords, (int(ny), int(nx)), chunks, {"standard_name": "time"})


def _time(what: dict[str, Any], date: str, time: str) -> Array:
    stamp = datetime.strptime(f"{what[date]}{what[time]}", "%Y%m%d%H%M%S")
    return np.array([stamp], "datetime64[ns]")
