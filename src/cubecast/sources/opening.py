"""`open_cube` and `open_cubes`: from files, stores and xarray objects to lazy cubes that keep the contract."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import netCDF4
import xarray as xr

from cubecast.cube import CHANNEL, between, check_cube, cube_step, sequence_dim
from cubecast.errors import CubecastError, InputError, UsageError
from cubecast.progress import Progress, follow
from cubecast.sources import classic, knmi, netcdf, odim
from cubecast.sources.axes import no_variable
from cubecast.sources.blocks import LOCK, READ_ERRORS, damaged, keep_frames, stored_frames
from cubecast.sources.files import Source, expand, file_kind
from cubecast.sources.joining import Part, describe_part, is_regular, join, stack_channels
from cubecast.sources.layout import Found, Layout, split_steps, stack
from cubecast.sources.objects import from_object
from cubecast.sources.remote import local_copy
from cubecast.sources.times import shown

Refused = Callable[[str, InputError], None]
"""``refused(path, error)``: told of a file that cannot be read."""


def open_cube(
    source: Source | Iterable[Source],
    *,
    variable: str | Sequence[str] | None = None,
    start: Any = None,
    end: Any = None,
    chunks: Mapping[str, int] | None = None,
    refused: Refused | None = None,
    progress: Progress | None = None,
) -> xr.DataArray:
    """One lazy cube (see `cubecast.cube`) from files, a Zarr store or xarray objects.

    Frames are sorted by time, of equal times the first is kept; sentinels, values outside of the declared valid
    range and values that cannot be (negative rain) are NaN; amounts of rain become rates in mm h-1 by the file's own
    times. The coordinates, their units and the CRS stay as they are. Values are read when they are computed; a file
    that turns out to be damaged then raises `InputError` too.

    Args:
        source: path, glob, fsspec URL of a Zarr store, Dataset, DataArray, or a list of these. Files: netCDF-4 and
            classic netCDF, ODIM and KNMI HDF5, FMI PGM, GRIB2 (with the extra ``radar``).
        variable: its name; a list of names makes a cube ``(time, channel, y, x)``; None: the only one there is.
        start, end: first and last time, inclusive; ``"2016"`` or ``"2017-01"`` mean the whole period.
        chunks: sizes of dask chunks by dim, -1 for a whole dim; None: whole stored chunks, some small frames together.
        refused: called with each file that cannot be read and the error, and the others make the cube; a helper process
            opens each file first (`cubecast.sources.probe`). None: the error is raised.
        progress: shows how many files have been opened.

    Raises:
        InputError: the source is not there, damaged, on more than one grid, or does not keep the contract of a cube.
        UsageError: a wrong argument.
    """
    parts = _open(source, variable, chunks, progress, refused)
    if len(parts) > 1:
        raise InputError(
            "more than one grid or variable",
            found=" and ".join(describe_part(p) for p in parts[:3]) + (" and more" if len(parts) > 3 else ""),
            remedy="name files of one grid, or use cubecast.open_cubes",
        )
    return _finish(parts[0], start, end)


def open_cubes(
    source: Source | Iterable[Source],
    *,
    variable: str | Sequence[str] | None = None,
    start: Any = None,
    end: Any = None,
    chunks: Mapping[str, int] | None = None,
    progress: Progress | None = None,
) -> list[xr.DataArray]:
    """As `open_cube`, but a list: one cube for each grid (and variable, and units) that is found.

    Files of different grids become different cubes; those of one grid become one cube, with gaps.
    """
    parts = _open(source, variable, chunks, progress)
    for part in parts if len(parts) > 1 else []:
        try:
            cube_step(part.cube)  # a lone frame beside others is a mistake: which file is it?
        except InputError as error:
            raise InputError(f"{part.origin}: {error}") from error
    return [_finish(p, start, end) for p in parts]


def open_static(source: Source) -> xr.Dataset:
    """Fields without time (land mask, height), loaded: every numeric variable with two dims of a file or Dataset.

    Raises:
        InputError: the file cannot be read, or holds no such field.
    """
    if not isinstance(source, xr.Dataset | xr.DataArray):
        (path, *_) = expand(source)
        source = _load_static(local_copy(str(path)))
    ds = source.to_dataset(name=source.name or "static") if isinstance(source, xr.DataArray) else source
    ds = ds.squeeze(drop=True)
    fields = [n for n, v in ds.data_vars.items() if v.ndim == 2 and v.dtype.kind in "iufb"]
    if not fields:
        raise InputError("no static fields", found=f"variables {', '.join(map(str, ds))}", allowed="fields (y, x)")
    return ds[fields].load()


def _load_static(path: str) -> xr.Dataset:
    kind = file_kind(path)
    if kind == "classic":
        classic.check_length(path)
    try:
        if kind == "zarr":
            return xr.open_dataset(path, engine="zarr", chunks=None).load()
        with xr.open_dataset(path, engine="netcdf4") as ds:
            return ds.load()
    except READ_ERRORS as error:
        raise damaged(path, error) from error


def _open(
    source: Any,
    variable: str | Sequence[str] | None,
    chunks: Mapping[str, int] | None,
    progress: Progress | None,
    refused: Refused | None = None,
) -> list[Part]:
    """Everything in ``source``, joined by grid and variable."""
    names: tuple[str | None, ...] = (variable,) if isinstance(variable, str) or variable is None else tuple(variable)
    if not names or not all(n is None or isinstance(n, str) for n in names):
        raise UsageError("variable", found=repr(variable), allowed="a name, a list of names or None")
    items = expand(source)
    parts: list[Part] = []
    files: dict[Layout, list[Found]] = {}
    known: list[netcdf.Known] = []
    renamed: dict[str | None, str] = {}
    for item in follow(items, "opening files", len(items), progress if len(items) > 1 else None):
        if isinstance(item, xr.Dataset | xr.DataArray):
            for asked, cube in from_object(item, names, chunks=chunks):
                renamed[asked] = str(cube.name)
                parts.append(Part(cube, ["an xarray object"]))
            continue
        for found in _scan_or_refuse(item, names, known, refused):
            renamed[found.asked] = found.layout.meaning.name
            files.setdefault(found.layout, []).append(found)
    if not files and not parts:
        raise InputError("nothing to read", found=f"{len(items)} files, all refused")
    for members in files.values():
        parts += _stacked(members, chunks)
    parts = join(parts)
    if isinstance(variable, str) or variable is None or parts[0].cube.dims[1:2] == (CHANNEL,):
        return parts
    absent = [n for n in variable if n not in renamed]
    if absent:
        raise no_variable(absent, [str(p.cube.name) for p in parts], parts[0].origin)
    return stack_channels(parts, [renamed[n] for n in variable])


def _stacked(found: list[Found], chunks: Mapping[str, int] | None) -> list[Part]:
    """The frames of one layout as one cube, or, where their steps differ from file to file, as one for each step."""
    whole = stack(found, chunks=chunks)
    groups = [found] if is_regular(whole) else split_steps(found)
    cubes = [whole] if len(groups) == 1 else [stack(g, chunks=chunks) for g in groups]
    return [Part(c, [str(f.file) for f in g]) for c, g in zip(cubes, groups, strict=True)]


def _finish(part: Part, start: Any, end: Any) -> xr.DataArray:
    """The selected part of a cube, checked; errors say which file it came from."""
    try:
        cube = check_cube(select(part.cube, start, end))
    except InputError as error:
        raise InputError(f"{part.origin}: {error}") from error
    more = f" and {len(part.files) - 1} more" if len(part.files) > 1 else ""
    frames = stored_frames(part.cube)
    cube.encoding = {"source": part.origin + more}
    if frames is None:
        return cube
    dim = sequence_dim(cube)
    first = int(part.cube.indexes[dim].get_loc(cube.indexes[dim][0]))
    return keep_frames(cube, frames if len(cube) == len(part.cube) else frames.part(slice(first, first + len(cube))))


def select(cube: xr.DataArray, start: Any, end: Any) -> xr.DataArray:
    """The frames from ``start`` to ``end``, both inclusive (None: no limit; "2016": the whole year).

    Raises:
        UsageError: not a time (or a number, for other sequences).
        InputError: there is no frame between them.
    """
    if start is None and end is None:
        return cube
    out, dim = between(cube, start, end), sequence_dim(cube)
    values = cube[dim].values
    if not out.sizes[dim]:
        raise InputError(
            f"no frames from {start or 'the first'} to {end or 'the last'}",
            found=f"{dim} from {shown(values[0])} to {shown(values[-1])}",
        )
    return out


def _scan_or_refuse(
    path: str, names: tuple[str | None, ...], known: list[netcdf.Known], refused: Refused | None
) -> list[Found]:
    """`_scan`; with ``refused``, which is handed the error, a helper opens each file first: one may crash it."""
    if refused is None:
        return _scan(path, names, known)
    from cubecast.sources.probe import SHARED  # here: the helper itself opens files by this module

    try:
        local = local_copy(path)
        SHARED.check(local, variable=names, frames=0)
        return _scan(local, names, known)
    except InputError as error:
        refused(path, error)
        return []


def try_scan(path: str, names: Sequence[str | None], known: list[netcdf.Known]) -> None:
    """Open a file as `open_cube` does and find some variables in it (None: the only one); no value is read.

    ``known``, of the files before, makes it fast.

    Raises:
        InputError: it is not there, damaged, of no known kind, or has no such variable.
    """
    _scan(path, tuple(names), known)


def _scan(path: str, names: tuple[str | None, ...], known: list[netcdf.Known]) -> list[Found]:
    """What is asked for in one file."""
    path = local_copy(path)
    kind = file_kind(path)
    if kind == "zarr":
        from cubecast.sources import zarr

        return zarr.scan(path, names)
    if kind == "grib":
        from cubecast.sources import grib

        return grib.scan(path, names)
    if kind == "pgm":
        from cubecast.sources import pgm

        return pgm.scan(path, names)
    if kind == "classic":
        classic.check_length(path)
    try:
        with LOCK, netCDF4.Dataset(path) as file:
            file.set_auto_maskandscale(False)
            if odim.is_odim(file):
                return odim.scan(file, path, names)
            if knmi.is_knmi(file):
                return knmi.scan(file, path, names)
            return netcdf.scan(file, path, names, known)
    except CubecastError:
        raise
    except READ_ERRORS as error:
        raise damaged(path, error) from error
