"""GRIB2 through cfgrib, an optional extra."""

from __future__ import annotations

import importlib

import xarray as xr

from cubecast.errors import CubecastError, InputError
from cubecast.sources.axes import choose_variables
from cubecast.sources.blocks import Opened, damaged, read_opened
from cubecast.sources.coding import cf_coding
from cubecast.sources.layout import Found, learn

_KEYS = ("discipline", "parameterCategory", "parameterNumber")
_MRMS_RATE = (209, 6, 1)
"""PrecipRate of NOAA's Multi-Radar Multi-Sensor system, which ecCodes has no name for."""


def scan(path: str, names: tuple[str | None, ...]) -> list[Found]:
    """The variables ``names`` (None: the only one) of a GRIB file.

    Raises:
        InputError: cfgrib is not installed, the file cannot be read, or has no such variable.
    """
    try:
        importlib.import_module("cfgrib")
    except (ImportError, RuntimeError) as error:
        raise InputError(
            f"cannot read {path}", found="a GRIB file, and no cfgrib", remedy="pip install 'cubecast[radar]'"
        ) from error
    try:
        ds = xr.open_dataset(
            path,
            engine="cfgrib",
            backend_kwargs={"indexpath": "", "errors": "raise", "read_keys": list(_KEYS)},
            cache=False,
        )
        ds, found = _named(ds), []
        for asked, variable in choose_variables(ds, names, where=path):
            learnt = learn(ds, variable, read=read_opened, chunks=None, where=path)
            stored = ds.variables[variable]
            file = Opened(path, stored, cf_coding(stored.attrs, stored.dtype))
            found.append(Found(learnt.layout, file, learnt.times, asked))
    except CubecastError:
        raise
    except Exception as error:  # ecCodes has its own tree of errors
        raise damaged(path, error) from error
    return found


def _named(ds: xr.Dataset) -> xr.Dataset:
    """MRMS rain rates under the name and units that ecCodes does not know; negative numbers mean no coverage."""
    names = {}
    for name, variable in ds.data_vars.items():
        if tuple(variable.attrs.get(f"GRIB_{k}") for k in _KEYS) == _MRMS_RATE:
            variable.attrs |= {"standard_name": "rainfall_rate", "units": "mm h-1", "valid_min": 0.0}
            variable.attrs["long_name"] = "rainfall rate"
            names[name] = "rainfall_rate"
    return ds.rename(names)
