"""netCDF files (netCDF-4 and classic), one or many: scanned once for times and grid, read frame by frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import netCDF4
import numpy as np
import xarray as xr

from cubecast.sources.axes import choose_variables
from cubecast.sources.blocks import LOCK, Key
from cubecast.sources.coding import Coding, cf_coding
from cubecast.sources.layout import Found, Learnt, learn
from cubecast.sources.times import Times, read_times

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False, slots=True)
class Known:
    """A layout that was met, and what a further file must have to be of that layout."""

    learnt: Learnt
    asked: str | None
    names: tuple[str, ...]
    """The variables that the signature is made of: the field, then its space coordinates and CRS."""
    signature: tuple[Any, ...]

    def times(self, file: netCDF4.Dataset) -> Times | None:
        """The times of ``file``; None when it has another layout."""
        sequence, period = self.learnt.sequence, self.learnt.period
        if any(n not in file.variables for n in (*self.names, sequence, *period)):
            return None
        if _signature(file, self.names, sequence) != self.signature:
            return None
        return read_times(lambda n: (file[n][...], file[n].__dict__), sequence, period)


def scan(file: netCDF4.Dataset, path: str, names: tuple[str | None, ...], known: list[Known]) -> list[Found]:
    """The variables ``names`` (None: the only one) of an open file; new layouts are added to ``known``.

    Of several names, those that are not in the file are passed over. The caller holds the lock.

    Raises:
        InputError: none of the names is there, or what `cubecast.sources.layout.learn` refuses.
    """
    file.set_auto_maskandscale(False)
    out: list[Found] = []
    new: list[str | None] = []
    for name in names:
        met = next(((k, t) for k in reversed(known) if k.asked == name and (t := k.times(file)) is not None), None)
        if met is not None:
            out.append(Found(met[0].learnt.layout, path, met[1], name))
        elif name in file.variables or name in (None, "rainfall_rate"):
            new.append(name)
    if new or not out:
        ds = _raw_dataset(file)
        for asked, name in choose_variables(ds, tuple(new or names), where=path):
            known.append(_learn(ds, file, path, asked, name))
            out.append(Found(known[-1].learnt.layout, path, known[-1].learnt.times, asked))
    return out


def read(path: str, name: str, key: Key) -> tuple[Array, Coding]:
    """Stored numbers of one variable, and the coding that its attributes declare."""
    with LOCK, netCDF4.Dataset(path) as file:
        file.set_auto_maskandscale(False)
        variable = file[name]
        return variable[key], cf_coding(variable.__dict__, variable.dtype)


def _learn(ds: xr.Dataset, file: netCDF4.Dataset, path: str, asked: str | None, name: str) -> Known:
    chunking = file[name].chunking()
    chunks = chunking if isinstance(chunking, list) else None
    learnt = learn(ds, name, read=read, chunks=chunks, where=path)
    coords = learnt.layout.coords
    # two-dimensional latitudes and longitudes only count where there are no others: they are slow to compare
    flat = all(d in coords for d in learnt.layout.dims[1:])
    names = (name, *(n for n, v in coords.items() if n in file.variables and (v.ndim < 2 or not flat)))
    return Known(learnt, asked, names, _signature(file, names, learnt.sequence))


def _raw_dataset(file: netCDF4.Dataset) -> xr.Dataset:
    """The open file as a Dataset of stored numbers; valid while the file is open and the lock is held."""
    store = xr.backends.NetCDF4DataStore(file, lock=False)
    return xr.open_dataset(store, mask_and_scale=False, decode_times=False, cache=False)


def _signature(file: netCDF4.Dataset, names: tuple[str, ...], sequence: str) -> tuple[Any, ...]:
    """What must agree between files of one layout: dims and units of the field, values of its coordinates."""
    field, along = file[names[0]], file[sequence].dimensions
    sizes = tuple((d, len(file.dimensions[d])) for d in field.dimensions if d not in along)
    attrs = field.__dict__
    parts: list[Any] = [field.dtype, field.dimensions, sizes]
    parts += [str(attrs.get(k, "")) for k in ("units", "standard_name", "grid_mapping")]
    for name in names[1:]:
        variable = file[name]
        parts.append(variable[...].tobytes() if variable.ndim else _plain(variable.__dict__))
    return tuple(parts)


def _plain(attrs: Mapping[str, Any]) -> tuple[Any, ...]:
    """Attributes as something that can be compared."""
    return tuple((k, v.tobytes() if isinstance(v, np.ndarray) else v) for k, v in attrs.items())
