"""Lazy values: frames that lie in many files as one array, read block by block when dask asks for them."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import dask.threaded
import numpy as np
import xarray as xr
from xarray.backends.netCDF4_ import NETCDF4_PYTHON_LOCK

from cubecast.errors import CubecastError, InputError, UsageError
from cubecast.sources.coding import Coding
from cubecast.sources.values import Limits, warn_removed

LOCK = NETCDF4_PYTHON_LOCK
"""Held around every call of netCDF4, which crashes when two threads use it; the lock that xarray itself takes."""
READ_ERRORS = (OSError, RuntimeError, ValueError, IndexError, KeyError, TypeError, AttributeError, MemoryError)
"""What the libraries raise for a damaged file."""
BLOCK_BYTES = 4 * 2**20
"""Values of a default block: small frames are read some at a time."""
BLOCK_FILES = 16
"""Most files in a default block."""


def _forget_threads() -> None:
    """In a forked process dask's pool of threads is there and its threads are not: without this it waits for ever."""
    dask.threaded.default_pool = None
    dask.threaded.pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)

Array = np.ndarray[Any, Any]
Key = tuple[int | slice, ...]
Reader = Callable[[Any, str, Key], tuple[Array, Coding]]
"""``read(file, variable, key)``: stored numbers of a variable and their coding."""


@dataclass(frozen=True, slots=True)
class Stored:
    """How one variable is stored in all files of one layout.

    ``order`` says for each stored dim which dim of the cube it is: 0 the sequence, 1 and 2 space, None: size 1, to be
    dropped.
    """

    read: Reader
    variable: str
    order: tuple[int | None, ...]
    dtype: np.dtype[Any]
    limits: Limits
    name: str
    chunks: tuple[int, ...] | None = None
    """Sizes of the stored chunks, for all dims of the cube."""


class Frames:
    """A read-only array ``(sequence, *space)`` of frames from files; what dask slices. Picklable, opens per read.

    Args:
        stored: the layout of the files.
        files: what ``stored.read`` takes: paths, or open stores.
        index: for each frame, its file and its place in that file, (frames, 2).
        factor: for each frame, what its values are multiplied by (amounts to rates), or None.
        space: sizes of the space dims.
    """

    def __init__(
        self, stored: Stored, files: Sequence[Any], *, index: Array, factor: Array | None, space: tuple[int, ...]
    ) -> None:
        self.stored, self.files, self.index, self.factor = stored, tuple(files), index, factor
        self.shape = (len(index), *space)
        self.dtype, self.ndim = stored.dtype, len(self.shape)
        self._warned = False

    def __getitem__(self, key: Any) -> Array:
        """Values at ``key``: for each dim an integer, a slice or an array of indices (orthogonal, as in dask)."""
        keys = key if isinstance(key, tuple) else (key,)
        keys = (*keys, *(slice(None),) * (self.ndim - len(keys)))
        at = [np.arange(n)[k] for n, k in zip(self.shape, keys, strict=True)]
        frames, *places = (np.atleast_1d(a) for a in at)
        window = tuple(slice(int(p.min()), int(p.max()) + 1) if p.size else slice(0, 0) for p in places)
        out = np.empty((len(frames), *(k.stop - k.start for k in window)), self.dtype)
        done = 0
        for file, run in self._runs(frames) if out.size else ():
            out[done : done + len(run)] = self._read(file, run, window, (len(run), *out.shape[1:]))
            done += len(run)
        for axis, (place, part) in enumerate(zip(places, window, strict=True), start=1):
            if not np.array_equal(place, np.arange(part.start, part.stop)):
                out = out.take(place - part.start, axis=axis)
        return out.squeeze(axis=tuple(i for i, a in enumerate(at) if not a.ndim))

    def _runs(self, frames: Array) -> Iterator[tuple[int, Array]]:
        """Frames that one read can get: neighbours in one file."""
        file, place = self.index[frames, 0], self.index[frames, 1]
        cuts = np.flatnonzero((np.diff(file) != 0) | (np.diff(place) != 1)) + 1
        for run in np.split(np.arange(len(frames)), cuts):
            if len(run):
                yield int(file[run[0]]), frames[run]

    def __deepcopy__(self, memo: dict[int, Any]) -> Frames:
        """The same object: it does not change, and a deep copy of a cube must not read its values."""
        return self

    def numbers(self, start: int, stop: int, window: tuple[slice, ...]) -> list[tuple[Array, Coding]]:
        """Stored numbers ``(frames, *window)`` of the frames from ``start`` to ``stop``, file by file, not decoded."""
        shape = tuple(k.stop - k.start for k in window)
        return [
            self._numbers(file, run, window, (len(run), *shape)) for file, run in self._runs(np.arange(start, stop))
        ]

    def decode(self, numbers: Array, coding: Coding, factor: Any = None) -> tuple[Array, list[float]]:
        """Values of stored numbers times ``factor``, and the distinct values that were removed as impossible."""
        values = coding.decode(numbers, self.dtype)
        if factor is not None:
            values *= factor
        return self.stored.limits.apply(values)

    def part(self, which: slice | Array) -> Frames:
        """Some of the frames, and no files but theirs."""
        factor = None if self.factor is None else self.factor[which]
        used, file = np.unique(self.index[which, 0], return_inverse=True)
        index = np.column_stack([file, self.index[which, 1]])
        files = [self.files[i] for i in used]
        return Frames(self.stored, files, index=index, factor=factor, space=self.shape[1:])

    def _read(self, file: int, frames: Array, window: tuple[slice, ...], shape: tuple[int, ...]) -> Array:
        numbers, coding = self._numbers(file, frames, window, shape)
        factor = None
        if self.factor is not None:
            factor = self.factor[frames].astype(self.dtype).reshape(-1, *(1,) * (len(shape) - 1))
        values, removed = self.decode(numbers, coding, factor)
        if removed and not self._warned:
            self._warned = True
            warn_removed(removed, self.stored.name, str(self.files[file]))
        return values

    def _numbers(
        self, file: int, frames: Array, window: tuple[slice, ...], shape: tuple[int, ...]
    ) -> tuple[Array, Coding]:
        """What one file stores for neighbouring frames, in the order of the cube's dims, and how it is coded."""
        first = int(self.index[frames[0], 1])
        full: tuple[slice, ...] = (slice(first, first + len(frames)), *window)
        key = tuple(0 if axis is None else full[axis] for axis in self.stored.order)
        try:
            found, coding = self.stored.read(self.files[file], self.stored.variable, key)
            kept = [axis for axis in self.stored.order if axis is not None]
            numbers = np.asarray(found).transpose(np.argsort(kept))
            if numbers.shape != (shape if 0 in kept else shape[1:]):
                raise ValueError(f"shape {numbers.shape} where {shape} was announced")
            return numbers.reshape(shape), coding
        except CubecastError:
            raise
        except READ_ERRORS as error:
            raise damaged(str(self.files[file]), error) from error


def keep_frames(cube: xr.DataArray, frames: Frames) -> xr.DataArray:
    """Let ``cube``, whose values are ``frames`` and nothing else, say so."""
    cube.encoding["frames"] = (cube.data.name, frames)
    return cube


def stored_frames(cube: xr.DataArray) -> Frames | None:
    """The `Frames` that a cube's values are; None when they are anything else, or have been changed since.

    xarray keeps ``encoding`` when it changes values, so the name of the dask array, which is its content's, decides.
    """
    name, frames = cube.encoding.get("frames", (None, None))
    return frames if cube.chunks is not None and cube.data.name == name else None


def read_frame(cube: xr.DataArray, index: int) -> Array:
    """The values of one frame; past dask, which remembers the name of every array that it ever computed, if it can."""
    frames = stored_frames(cube)
    values: Array = cube[index].values if frames is None else frames[index : index + 1][0]
    return values


def damaged(where: str, error: BaseException) -> InputError:
    """The error for a file that its library cannot read."""
    return InputError(
        f"cannot read {where}",
        found=str(error) or type(error).__name__,
        remedy="the file is damaged or incomplete: get it again",
    )


def dask_array(frames: Frames, chunks: tuple[tuple[int, ...], ...]) -> da.Array:
    """The lazy array of `Frames`; slices of it are pushed down into the reads."""
    meta = np.empty((0,) * frames.ndim, frames.dtype)
    return da.from_array(frames, chunks=chunks, name=False, asarray=False, meta=meta)


def block_sizes(
    dims: Sequence[str],
    shape: Sequence[int],
    *,
    stored: Sequence[int] | None,
    itemsize: int,
    asked: Mapping[str, int] | None,
    frames_per_file: int | None = None,
) -> tuple[tuple[int, ...], ...]:
    """Dask chunks: whole stored chunks, whole planes where these are below 64 MB, some small frames together.

    Raises:
        UsageError: ``asked`` names a dim that is not there, or a size that is not positive (-1: the whole dim).
    """
    asked = dict(asked or {})
    for name, size in asked.items():
        if name not in dims or not (isinstance(size, int) and (size >= 1 or size == -1)):
            raise UsageError("chunks", found=f"{name}: {size}", allowed=f"a size for one of {', '.join(dims)}")
    base = [min(c, n) or 1 for c, n in zip(stored or (1, *shape[1:]), shape, strict=True)]
    if math.prod([base[0], *shape[1:]]) * itemsize <= 16 * BLOCK_BYTES:
        base[1:] = shape[1:]
    more = max(1, BLOCK_BYTES // (max(1, math.prod(base)) * itemsize))
    if frames_per_file is not None:
        more = min(more, BLOCK_FILES * frames_per_file)
    base[0] *= more
    sizes = [n if asked.get(d, b) == -1 else asked.get(d, b) for d, b, n in zip(dims, base, shape, strict=True)]
    return tuple(
        (n,) if n <= s else (*itertools.repeat(s, n // s), *((n % s,) if n % s else ()))
        for s, n in zip(sizes, shape, strict=True)
    )


@dataclass(frozen=True, slots=True)
class Opened:
    """A variable that xarray opened but did not decode (Zarr, GRIB), in place of a path."""

    label: str
    variable: xr.Variable
    coding: Coding
    plain: Any = None
    """Something quicker to index than ``variable``, with the same numbers."""

    def __str__(self) -> str:
        return self.label


def read_opened(file: Opened, _name: str, key: Key) -> tuple[Array, Coding]:
    """The reader of `Opened`."""
    return (file.variable[key].values if file.plain is None else file.plain[key]), file.coding
