"""Forecasts and cubes on disk: CF netCDF-4 or Zarr v3, compressed, with checksums, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr

from cubecast import units
from cubecast.atomic import atomic_path, free_space, output_error, sync_tree
from cubecast.cf import Kind, describe, encodings, restore
from cubecast.cube import CHANNEL, channel_names, check_cube, select_channel, sequence_dim
from cubecast.errors import CubecastError, InputError, OutputError, UsageError
from cubecast.product import REALIZATION, forecast_dim, names

__all__ = [
    "atomic_path",
    "create_store",
    "name_for_pysteps",
    "read_forecast",
    "write_cube",
    "write_forecast",
    "write_region",
]

FINGERPRINT = "fingerprint"
"""In a store that is written by region: a number for each reference time, 0 until its forecast is complete."""
POLAR = "polar_stereographic"


def write_forecast(forecast: xr.Dataset, path: str | os.PathLike[str]) -> None:
    """Write a forecast (see `cubecast.product`) as CF-1.11 netCDF-4 (``.nc``) or Zarr v3 (``.zarr``), atomically.

    Values keep their type (nothing is packed); one chunk a reference time and lead (tiles of 1024 on larger grids),
    compressed, with a checksum. Lazy (dask) values are computed chunk by chunk. Times are stored as int64 in the
    coarsest unit that is exact and come back in nanoseconds; text comes back as ``str``.

    Writing adds, where absent, the global attributes ``title``, ``source`` and ``history`` and what CF wants on
    space coordinates and grid mappings, and sets ``Conventions``; ``institution``, ``references`` and the rest are
    the caller's (``forecast.attrs``). See `cubecast.cf.describe`.

    Args:
        forecast: dims (forecast_reference_time, [realization,] lead_time, *space).
        path: ends in .nc or .zarr; an existing file or store of that name is replaced.

    Raises:
        UsageError: another suffix.
        InputError: not a forecast.
        OutputError: it cannot be written; ``path`` then is what it was before.
    """
    dim, fields = _forecast_parts(forecast, "not a forecast")
    if len(fields) < len(forecast.data_vars):
        extra = sorted(str(n) for n in forecast.data_vars if n not in fields)
        raise InputError("not a forecast", found=f"variables {extra} without leads", remedy="make them coordinates")
    title = f"Forecast of {', '.join(map(str, fields))}"
    with dask.config.set(num_workers=2):  # one forecasts a tile, one writes another: more would only hold more memory
        _write(forecast, path, ones=(*names(dim)[:2], REALIZATION), title=title)


def create_store(blank: xr.Dataset, path: str | os.PathLike[str]) -> None:
    """Make a Zarr store for forecasts that `write_region` will write: everything but their values, atomically.

    Args:
        blank: a lazy forecast of all reference times; its values are not looked at.
        path: ends in .zarr.

    Raises:
        UsageError, InputError, OutputError: as `write_forecast`.
    """
    if Path(path).suffix != ".zarr":
        raise UsageError(f"cannot make the store {path}", found=f"suffix {Path(path).suffix!r}", allowed=".zarr")
    dim, fields = _forecast_parts(blank, "not a forecast")
    title = f"Forecast of {', '.join(map(str, fields))}"
    _write(blank, path, ones=(*names(dim)[:2], REALIZATION), title=title, compute=False)


def write_region(forecast: xr.Dataset, path: str | os.PathLike[str], place: int, fingerprint: int) -> None:
    """Write a forecast of one reference time into a store that `create_store` made; any process may, beside others.

    Its fingerprint is 0 while it is written, and is set when all its chunks are on the disk.

    Args:
        forecast: lazy values are computed chunk by chunk.
        path: the store.
        place: of the reference time in the store.
        fingerprint: not 0.

    Raises:
        InputError: not a forecast.
        OutputError: it cannot be written; its fingerprint then is 0.
    """
    target, (_, fields) = Path(path), _forecast_parts(forecast, "not a forecast")
    with _as_output_errors(target):
        group: Any = _open_store(target)
        flag, region = group[FINGERPRINT], (slice(place, place + 1),)
        flag[place] = 0
        for name in map(str, fields):
            source = da.asarray(forecast[name].variable.data).rechunk(group[name].chunks)
            da.store(source, group[name], regions=region, lock=False)
            sync_tree(target / name / "c" / str(place))
        flag[place] = fingerprint
        sync_tree(target / FINGERPRINT / "c" / str(place))


def write_cube(cube: xr.DataArray, path: str | os.PathLike[str]) -> None:
    """Write a cube as `write_forecast` writes a forecast, one chunk a frame; each channel is a variable of its own.

    Args:
        cube: dims (time, [channel,] *space), see `cubecast.cube`.
        path: ends in .nc or .zarr; an existing file or store of that name is replaced.

    Raises:
        UsageError, InputError, OutputError: as `write_forecast`.
    """
    check_cube(cube)
    fields = {name: select_channel(cube, name) for name in channel_names(cube)}
    dataset = xr.Dataset(fields).drop_vars([CHANNEL, "channel_units", "channel_standard_name"], errors="ignore")
    _write(dataset, path, ones=(sequence_dim(cube),), title=", ".join(fields))


def name_for_pysteps(forecast: xr.Dataset) -> xr.Dataset:
    """``forecast`` as ``pysteps.io.import_netcdf_pysteps`` reads it when `write_forecast` has written it (as ``.nc``).

    That importer goes by names: the field is ``precip_intensity`` in mm h-1, on coordinates ``y`` and ``x`` with the
    first row in the north, at a 1-D ``time`` in seconds since the start. It knows a polar stereographic grid mapping
    by that name, and no other. CF leaves names free: the file stays CF, and a forecast for `read_forecast`.

    Args:
        forecast: one variable, of rain, after one reference time, on a grid.

    Raises:
        InputError: anything else.
    """
    dim, fields = _forecast_parts(forecast, "not a forecast")
    reference, lead, _ = names(dim)
    first = forecast[fields[0]]
    space = [str(d) for d in first.dims if d not in (reference, REALIZATION, lead)]
    if len(fields) > 1 or forecast.sizes[reference] > 1 or dim != "time" or len(space) != 2 or not units.is_rain(first):
        raise InputError(
            "a forecast for pysteps",
            found=f"{', '.join(map(str, fields))} ({first.attrs.get('units')}), {dict(first.sizes)}",
            allowed="one variable, of rain, after one reference time, on a grid",
        )
    rain = units.convert_units(first, "mm h-1")
    if space[0] in rain.coords and rain[space[0]][0] < rain[space[0]][-1]:
        rain = rain.isel({space[0]: slice(None, None, -1)})
    new = {old: name for old, name in zip(space, "yx", strict=True) if old != name}
    mapping = str(rain.attrs.get("grid_mapping", ""))
    if mapping in rain.coords and rain[mapping].attrs.get("grid_mapping_name") == POLAR != mapping:
        new[mapping] = rain.attrs["grid_mapping"] = POLAR
    rain = rain.rename(new)
    start = np.datetime_as_string(forecast[reference].values[0], unit="s").replace("T", " ")
    seconds = (forecast[lead].values / np.timedelta64(1, "s")).astype("int64")
    told = {"standard_name": "time", "units": f"seconds since {start}", "calendar": "standard"}
    rain = rain.assign_coords(time=(lead, seconds, {**told, "units_metadata": "leap_seconds: none"}))
    return rain.to_dataset(name="precip_intensity").assign_attrs(forecast.attrs)


def read_forecast(path: str | os.PathLike[str]) -> xr.Dataset:
    """The forecast that `write_forecast` wrote: the same variables, coordinates and attributes, lazy (dask) fields.

    Args:
        path: a netCDF-4 file or a Zarr store.

    Raises:
        InputError: it does not exist, cannot be read or is not a forecast.
    """
    path = Path(path)
    coder = xr.coders.CFDatetimeCoder(time_unit="ns")
    try:
        if path.is_dir():
            dataset = xr.open_zarr(path, consolidated=False, decode_times=coder)
        else:
            _check_magic(path)
            dataset = xr.open_dataset(path, engine="netcdf4", chunks={}, decode_times=coder)
    except CubecastError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"cannot read {path}", found="no such file") from error
    except Exception as error:  # the libraries under xarray raise nearly anything for a broken file
        raise InputError(f"cannot read {path}", found=str(error) or type(error).__name__) from error
    _, fields = _forecast_parts(dataset, f"{path} is not a forecast")
    return restore(dataset, fields=fields)


def _check_magic(path: Path) -> None:
    """Refuse all but HDF5: the library opens a truncated classic netCDF without a word."""
    with open(path, "rb") as file:
        if file.read(4) != b"\x89HDF":
            raise InputError(
                f"cannot read {path}", found="not a netCDF-4 file", allowed="a forecast in netCDF-4 or Zarr"
            )


def _forecast_parts(forecast: Any, what: str) -> tuple[str, list[Hashable]]:
    """The sequence dim and the names of the fields of a forecast."""
    found = type(forecast).__name__
    if isinstance(forecast, xr.Dataset):
        found = f"dims {tuple(forecast.sizes)}"
        dim = next((forecast_dim(forecast) for d in forecast.dims if str(d).startswith(names("")[0])), "")
        reference, lead, valid = names(dim)
        fields = [n for n, v in forecast.data_vars.items() if n != valid and {reference, lead} <= set(v.dims)]
        if fields and {reference, lead, valid} <= set(forecast.variables):
            return dim, fields
    raise InputError(
        what,
        found=found,
        allowed="a Dataset of variables with dims (forecast_reference_time, [realization,] lead_time, *space)",
    )


def _write(
    dataset: xr.Dataset, path: str | os.PathLike[str], *, ones: tuple[str, ...], title: str, compute: bool = True
) -> None:
    target, fields = Path(path), list(dataset.data_vars)
    kinds: dict[str, Kind] = {".nc": "netcdf", ".zarr": "zarr"}
    kind = kinds.get(target.suffix)
    if kind is None:
        raise UsageError(f"cannot write {target}", found=f"suffix {target.suffix!r}", allowed=".nc or .zarr")
    dataset = describe(dataset, title=title)
    encoding = encodings(dataset, fields=fields, ones=ones, kind=kind)
    is_store = (target / "zarr.json").is_file() or (target / ".zgroup").is_file()
    with atomic_path(target, replace_folder=is_store) as temporary, _as_output_errors(target):
        if kind == "netcdf":
            # an unlimited first dim: records can be appended, and CF asks dims other than T, Z, Y, X to stand left
            dataset.to_netcdf(temporary, engine="netcdf4", format="NETCDF4", encoding=encoding, unlimited_dims=ones[:1])
            return
        chunked = _rechunk(dataset, encoding) if compute else dataset
        options: Any = {"consolidated": False, "compute": compute}
        chunked.to_zarr(temporary, mode="w", zarr_format=3, encoding=encoding, **options)
        if not compute:
            _add_fingerprints(temporary, ones[0], dataset.sizes[ones[0]])


@contextmanager
def _as_output_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except CubecastError:
        raise
    except OSError as error:
        raise output_error(target, error) from error
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        # netCDF-C says "NetCDF: HDF error" when the disk is full: so the free space is part of the message
        found = f"{error or type(error).__name__} ({free_space(target)})"
        raise OutputError(f"cannot write {target}", found=found) from error


def _open_store(path: Path) -> Any:
    import zarr  # here: those who write netCDF need not load it

    return zarr.open_group(path, mode="r+")


def _add_fingerprints(store: Path, dim: str, count: int) -> None:
    """No fingerprint for any forecast yet; one chunk each, so that no two workers write into the same file."""
    _open_store(store).create_array(
        FINGERPRINT,
        shape=(count,),
        chunks=(1,),
        dtype="int64",
        fill_value=0,
        dimension_names=[dim],
        attributes={"long_name": "what each forecast was made of, as a number; 0 where it is not complete"},
    )


def _rechunk(dataset: xr.Dataset, encoding: dict[str, Any]) -> xr.Dataset:
    """``dataset`` with one dask task a stored chunk.

    Two tasks that write into one chunk would lose data; and zarr, given several chunks at once, goes on writing in
    the background when one of them has failed.
    """
    chunks = {str(n): encoding[str(n)].get("chunks") for n in dataset.data_vars}
    return dataset.assign(
        {n: dataset[n].chunk(dict(zip(dataset[n].dims, c, strict=True))) for n, c in chunks.items() if c}
    )
