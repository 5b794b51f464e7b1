"""From what a user names (paths, globs, URLs, xarray objects) to single sources, and what kind of file each is."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import xarray as xr

from cubecast.errors import InputError, UsageError
from cubecast.sources.remote import expand_url, is_remote_file, is_url

Source = str | os.PathLike[str] | xr.Dataset | xr.DataArray
Kind = Literal["hdf5", "classic", "grib", "pgm", "zarr"]

_ALLOWED = "netCDF, ODIM or KNMI HDF5, GRIB2, FMI PGM, or a Zarr store"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_HDF5_OFFSETS = (0, 512, 1024, 2048)  # a user block may stand before the signature


def expand(source: Any) -> list[str | xr.Dataset | xr.DataArray]:
    """Every path, URL and xarray object in ``source``, in the order given; globs are expanded and sorted.

    Raises:
        InputError: a file is not there, or a glob or the list is empty.
        UsageError: something that is no source.
    """
    if isinstance(source, xr.Dataset | xr.DataArray):
        return [source]
    if isinstance(source, str | os.PathLike):
        return list(_paths(os.fspath(source)))
    if isinstance(source, bytes) or not isinstance(source, Iterable):
        raise UsageError(
            "cannot open a cube", found=type(source).__name__, allowed="a path, a glob, an xarray object or a list"
        )
    items = [item for one in source for item in expand(one)]
    if not items:
        raise InputError("no files", found="an empty list")
    return items


def absolute(path: str) -> str:
    """A path or pattern that means the same in a process that runs in another folder."""
    return path if is_url(path) else os.path.abspath(os.path.expanduser(path))


def _paths(path: str) -> list[str]:
    path = path.removeprefix("file://")
    if is_url(path):
        return expand_url(path) if is_remote_file(path) else [path]
    path = os.path.expanduser(path)
    if os.path.exists(path):
        return [path]
    if not glob.has_magic(path):
        raise InputError(f"no such file: {path}")
    found = sorted(glob.glob(path, recursive=True))
    if not found:
        raise InputError(f"no files match {path}")
    return found


def file_kind(path: str) -> Kind:
    """What the first bytes say that a file is, whatever its name.

    Raises:
        InputError: it cannot be read, or is of no kind that can be opened here.
    """
    if is_url(path):
        return "zarr"
    if os.path.isdir(path):
        if any((Path(path) / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray", ".zmetadata")):
            return "zarr"
        raise InputError(
            f"cannot open the folder {path}",
            found="no Zarr metadata in it",
            allowed=_ALLOWED,
            remedy=f"name its files, for example '{os.path.join(path, '*.nc')}'",
        )
    try:
        with open(path, "rb") as file:
            head = file.read(_HDF5_OFFSETS[-1] + 8)
    except OSError as error:
        raise InputError(f"cannot read {path}", found=error.strerror or str(error)) from error
    if any(head[i : i + 8] == _HDF5 for i in _HDF5_OFFSETS):
        return "hdf5"
    if head[:3] == b"CDF" and head[3:4] in (b"\x01", b"\x02", b"\x05"):
        return "classic"
    if head[:4] == b"GRIB":
        return "grib"
    if head[:2] == b"P5" or (head[:2] == b"\x1f\x8b" and ".pgm" in os.path.basename(path)):
        return "pgm"
    raise InputError(f"cannot open {path}", found=_looks_like(head), allowed=_ALLOWED)


def _looks_like(head: bytes) -> str:
    if not head:
        return "an empty file"
    if head[:2] == b"\x1f\x8b":
        return "a gzip file (unpack it first)"
    text: Any = head[:40]
    try:
        text = text.decode("ascii")
    except UnicodeDecodeError:
        return f"a file that begins with {text[:8]!r}"
    return f"text: {text.splitlines()[0]!r}"
