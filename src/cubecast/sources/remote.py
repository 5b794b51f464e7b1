"""Files at fsspec URLs: the libraries of netCDF, HDF5 and GRIB read local files only, so copies are kept in a cache."""

from __future__ import annotations

import glob
import hashlib
from pathlib import Path

from cubecast.atomic import atomic_path, cache_folder, make_folder
from cubecast.errors import InputError

SUFFIXES = (".nc", ".nc4", ".cdf", ".h5", ".hdf", ".hdf5", ".grib", ".grib2", ".grb2", ".pgm", ".gz")
"""A URL that ends so is one of files; any other is a Zarr store, which is read chunk by chunk."""
_VERSION = ("size", "created", "ETag", "LastModified", "Last-Modified", "mtime", "updated", "last_modified")


def is_url(path: str) -> bool:
    """Whether ``path`` is an fsspec URL."""
    return "://" in path or "::" in path


def is_remote_file(path: str) -> bool:
    """Whether ``path`` is a URL of a file, or a pattern of such."""
    return is_url(path) and path.lower().endswith(SUFFIXES)


def expand_url(url: str) -> list[str]:
    """The URLs of the files that match, sorted.

    Raises:
        InputError: there is none, or the server cannot be asked.
    """
    if not glob.has_magic(url):
        return [url]
    from fsspec.core import url_to_fs  # here: those who read local files need not load it

    try:
        system, path = url_to_fs(url)
        found = [system.unstrip_protocol(one) for one in sorted(system.glob(path))]
    except Exception as error:  # whatever the package for a protocol raises
        raise _unread(url, error) from error
    if not found:
        raise InputError(f"no files match {url}")
    return found


def local_copy(path: str) -> str:
    """``path``, or, where it is a URL of a file, a copy of its present version under `cache_folder`.

    Raises:
        InputError: it cannot be fetched.
        OutputError: the copy cannot be written.
    """
    if not is_remote_file(path):
        return path
    from fsspec.core import url_to_fs

    try:
        system, name = url_to_fs(path)
        about = system.info(name)
    except Exception as error:
        raise _unread(path, error) from error
    version = hashlib.sha256(repr([path, *(str(about.get(k)) for k in _VERSION)]).encode()).hexdigest()
    copy = cache_folder("files") / version[:16] / Path(name).name
    if not copy.is_file():
        make_folder(copy.parent)
        with atomic_path(copy) as temporary:
            try:
                system.get_file(name, str(temporary))
            except Exception as error:
                raise _unread(path, error) from error
    return str(copy)


def _unread(url: str, error: Exception) -> InputError:
    return InputError(f"cannot read {url}", found=f"{type(error).__name__}: {error}", remedy="check the URL and access")
