"""What a Dataset becomes on disk: complete CF-1.11 attributes, exact integer times, chunks, compression, checksums."""

from __future__ import annotations

import json
import warnings
from collections.abc import Hashable
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import pyproj
import xarray as xr

from cubecast import units

CONVENTIONS = "CF-1.11"
TILE = 1024
"""Largest side of a chunk on disk: a field of up to this size is one chunk."""
PACKING = ("_FillValue", "missing_value", "scale_factor", "add_offset", "_Unsigned")
"""Attributes that say what stored numbers mean."""
STORAGE = {*PACKING, "valid_range", "valid_min", "valid_max", "actual_range", "coordinates"}
"""Attributes that tell how the file was made that data came from; a reader would apply them again."""
Kind = Literal["netcdf", "zarr"]


def describe(dataset: xr.Dataset, *, title: str) -> xr.Dataset:
    """``dataset`` as it is to be stored: CF attributes complete, encodings clean, times in nanoseconds.

    Coordinates that are no dimension become plain variables, which each field names in ``coordinates``: what stands
    on disk is decided here, not by the file that the data came from. Attributes that are there are kept, except
    ``actual_range`` and references to variables that are not there; values that netCDF cannot hold become JSON text.

    Args:
        dataset: fields as data variables, everything else as coordinates.
        title: the global attribute, where the dataset has none.
    """
    dataset = _label_dims(dataset.drop_encoding().copy(deep=False))
    dataset = dataset.assign({n: _plain(v) for n, v in dataset.variables.items()})
    for variable in dataset.variables.values():
        for key in ("bounds", "climatology", "grid_mapping"):
            if variable.attrs.get(key) not in dataset.variables:
                variable.attrs.pop(key, None)
    mappings = _named(dataset, "grid_mapping")
    for name in mappings:
        dataset[name].attrs.update(_missing_mapping_attrs(dataset[name].attrs))
    _name_axes(dataset, projected=any(dataset[m].attrs.get("grid_mapping_name") != _LATLON for m in mappings))
    auxiliary = [str(n) for n in dataset.coords if n not in dataset.dims]
    hidden = mappings | _named(dataset, "bounds") | _named(dataset, "climatology")
    for field in dataset.data_vars.values():
        near = sorted(n for n in auxiliary if n not in hidden and set(dataset[n].dims) <= set(field.dims))
        if near:
            field.attrs["coordinates"] = " ".join(near)
    _say_units(dataset)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ours = {"title": title, "source": f"cubecast {version('cubecast')}", "history": f"{now} written by cubecast"}
    given = {str(k): _attribute(v) for k, v in dataset.attrs.items()}
    return dataset.reset_coords(auxiliary).assign_attrs({**ours, **given, "Conventions": CONVENTIONS})


def restore(dataset: xr.Dataset, *, fields: list[Hashable]) -> xr.Dataset:
    """The inverse of `describe` after decoding: ``fields`` are data, all else coordinates; no encoding is kept."""
    dataset = dataset.set_coords([n for n in dataset.data_vars if n not in fields]).drop_encoding()
    for coordinate in dataset.coords.values():
        if coordinate.dtype.kind == "M":
            coordinate.attrs.pop("units_metadata", None)
    coords = {n: v.load() for n, v in dataset.coords.items()}
    texts = {n: np.array(v.values.tolist(), dtype=str) for n, v in coords.items() if v.dtype.kind in "OST"}
    dataset = dataset.assign_coords(coords | {n: coords[n].copy(data=text) for n, text in texts.items()})
    for name in [n for n, v in dataset.coords.items() if _LABELS in v.attrs]:
        attrs = dict(dataset[name].attrs)
        dim = attrs.pop(_LABELS)
        dataset = dataset.assign_coords({dim: (dim, dataset[name].values, attrs)}).drop_vars([name])
    return dataset


def encodings(dataset: xr.Dataset, *, fields: list[Hashable], ones: tuple[str, ...], kind: Kind) -> dict[str, Any]:
    """How each variable is stored: whole numbers of the coarsest exact unit for times, a checksum on every chunk.

    Args:
        dataset: from `describe`.
        fields: variables whose missing values are NaN (``_FillValue``); no other variable may have any.
        ones: dims along which a chunk of a field is 1 long.
        kind: netcdf (zlib 4, shuffle, fletcher32) or zarr (zstd 3, crc32c).
    """
    unit = {kind: _time_unit(dataset, kind) for kind in "mM"}
    return {str(n): _encoding(v, n in fields, ones, unit, kind) for n, v in dataset.variables.items()}


def _encoding(
    variable: xr.Variable, field: bool, ones: tuple[str, ...], unit: dict[str, str], kind: Kind
) -> dict[str, Any]:
    sort = variable.dtype.kind
    out: dict[str, Any] = {"_FillValue": variable.dtype.type(np.nan) if field and sort == "f" else None}
    if sort in "mM":
        out |= {"dtype": "int64", "units": unit[sort]}
    if sort == "M":
        out["calendar"] = "standard"
    if sort in "OSUT" or not variable.ndim or not variable.size:
        return out
    tile = TILE if variable.ndim > 1 else variable.size
    lazy = variable.chunksizes
    sizes = [(dim, max(lazy[dim]) if dim in lazy else size) for dim, size in variable.sizes.items()]
    chunks = tuple(1 if field and dim in ones else _side(size, variable.sizes[dim], tile) for dim, size in sizes)
    if kind == "netcdf":
        return out | {"zlib": True, "complevel": 4, "shuffle": True, "fletcher32": True, "chunksizes": chunks}
    from zarr.codecs import Crc32cCodec, ZstdCodec  # here: those who write netCDF need not load zarr

    return out | {"chunks": chunks, "compressors": (ZstdCodec(level=3), Crc32cCodec())}


def _side(lazy: int, size: int, tile: int) -> int:
    """The side of a chunk on disk: a whole part of a lazy chunk, so that each is written at once."""
    if lazy == size or lazy <= tile:
        return min(lazy, tile)
    return max(d for d in range(1, tile + 1) if lazy % d == 0)


def _time_unit(dataset: xr.Dataset, sort: str) -> str:
    """The coarsest unit in which all times (sort M) or durations (m) of the dataset are whole numbers."""
    stamps = [v.values.astype(np.int64) for v in dataset.variables.values() if v.dtype.kind == sort]
    sizes = {"seconds": 10**9, "milliseconds": 10**6, "microseconds": 10**3, "nanoseconds": 1}
    word = next(unit for unit, size in sizes.items() if all((s % size == 0).all() for s in stamps))
    return f"{word} since 1970-01-01 00:00:00" if sort == "M" else word


def _plain(variable: xr.Variable) -> xr.Variable:
    """``variable`` with attributes and a type that both formats hold: times in ns, half precision as float32."""
    attrs = {str(k): _attribute(v) for k, v in variable.attrs.items() if k not in STORAGE}
    out = variable.copy(deep=False)
    if variable.dtype.kind in "mM":
        out = variable.astype(f"{variable.dtype.kind}8[ns]")
        attrs = {k: v for k, v in attrs.items() if k not in ("units", "calendar", "dtype", "units_metadata")}
    elif variable.dtype.kind == "f" and variable.dtype.itemsize not in (4, 8):
        out = variable.astype(np.float32)
    elif variable.dtype.kind == "U":
        out = variable.astype(object)  # zarr has no specification of fixed-width text
    out.attrs = attrs
    return out


def _attribute(value: Any) -> Any:
    """``value`` itself where netCDF can hold it (text, numbers, arrays of numbers), else its JSON text."""
    if isinstance(value, str | bytes | int | float | np.number) and not isinstance(value, bool):
        return value
    if isinstance(value, np.ndarray | list | tuple) and np.asarray(value).size:
        array = np.asarray(value) if all(np.isscalar(v) for v in value) else np.empty(0, object)
        if array.dtype.kind in "iuf" and array.ndim == 1:
            return array
    return json.dumps(value, default=lambda v: v.tolist() if hasattr(v, "tolist") else str(v))


# ----------------------------------------------------------------------------------------------------- CF attributes

_LATLON = "latitude_longitude"
_STANDARD_NAME = {"y": "projection_y_coordinate", "x": "projection_x_coordinate"}

_DEGREES = {
    f"{degree}{word}": name
    for degree in ("degree", "degrees")
    for words, name in ((("_north", "_n", "n"), "latitude"), (("_east", "_e", "e"), "longitude"))
    for word in words
}


_LABELS = "labels_of_dimension"


def _label_dims(dataset: xr.Dataset) -> xr.Dataset:
    """Text along a dim (station names) is a label beside it: a CF variable that has the name of its dim holds numbers.

    The attribute ``labels_of_dimension`` tells `restore`.
    """
    texts = [str(d) for d in dataset.dims if d in dataset.coords and dataset[d].dtype.kind in "OSUT"]
    for dim in texts:
        label = f"{dim}_label"
        while label in dataset.variables:
            label += "_"
        variable = dataset[dim].variable
        attrs = {**variable.attrs, _LABELS: dim}
        dataset = dataset.drop_vars(dim).assign_coords({label: (dim, variable.values, attrs)})
    return dataset


def _named(dataset: xr.Dataset, key: str) -> set[str]:
    """The names of variables that others refer to by the attribute ``key``."""
    return {str(v.attrs[key]) for v in dataset.variables.values() if key in v.attrs}


def _missing_mapping_attrs(attrs: dict[str, Any]) -> dict[str, Any]:
    """What CF and pyproj know of a grid mapping beyond ``attrs``; nothing where pyproj does not understand it.

    A few CRSs (pseudo-Mercator, some oblique ones) have no CF name: they stay described by ``crs_wkt`` alone.
    """
    try:
        crs = pyproj.CRS.from_cf(attrs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # what CF cannot say is in crs_wkt
            known = crs.to_cf()
    except (pyproj.exceptions.CRSError, KeyError, ValueError, TypeError):
        return {}
    name = attrs.get("grid_mapping_name", known.get("grid_mapping_name"))
    if name != known.get("grid_mapping_name"):
        return {"crs_wkt": known["crs_wkt"]} if "crs_wkt" not in attrs else {}
    if name == "polar_stereographic" and "latitude_of_projection_origin" not in known:
        known["latitude_of_projection_origin"] = 90.0 if known["standard_parallel"] > 0 else -90.0
    if "standard_parallel" in known and known.get("scale_factor_at_projection_origin") == 1.0:
        del known["scale_factor_at_projection_origin"]  # CF wants one of the two
    alternatives = {"standard_parallel", "scale_factor_at_projection_origin"}
    if alternatives & set(attrs):
        known = {k: v for k, v in known.items() if k not in alternatives}
    return {k: v for k, v in known.items() if k not in attrs}


def _name_axes(dataset: xr.Dataset, *, projected: bool) -> None:
    """Give the space coordinates of fields the standard names that CF asks for, where they have none."""
    for field in dataset.data_vars.values():
        for dim, axis in zip(field.dims[-2:], "yx", strict=False):
            attrs = dataset[dim].attrs if dim in dataset.coords else {}
            unit = str(attrs.get("units", ""))
            name = _DEGREES.get(unit.lower())
            if name is None and projected and units.canonical(unit) in ("m", "km"):
                name = _STANDARD_NAME[axis]
            if name is not None:
                attrs.setdefault("standard_name", name)
    if "time" in dataset.dims and "time" in dataset.coords:
        dataset["time"].attrs.setdefault("standard_name", "time")


def _say_units(dataset: xr.Dataset) -> None:
    """What CF-1.11 wants to know beyond ``units``: of time, that every day has 86400 s; of temperature, its zero."""
    for variable in dataset.variables.values():
        name = str(variable.attrs.get("standard_name", ""))
        if name == "time" and variable.dtype.kind == "M":
            variable.attrs["units_metadata"] = "leap_seconds: none"
        elif name.endswith("temperature"):
            variable.attrs.setdefault("units_metadata", "temperature: on_scale")
