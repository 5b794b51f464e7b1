"""Rows of a cube, read for training: whole stored chunks of some frames, packed as they are stored where possible.

A cube of `cubecast.open_cube` whose numbers are packed in one or two bytes is kept so: a table with the model-space
value of every possible number, made by the scaling itself, unpacks whole batches later. All other cubes are decoded and
brought into model space row by row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from cubecast.channels import Array, Channels
from cubecast.cube import CHANNEL, sequence_dim, space_dims
from cubecast.scaling.base import Pointwise
from cubecast.sources.blocks import Frames, stored_frames
from cubecast.sources.coding import Coding

ROW_BYTES = 4 * 2**20
"""Small chunks in time are taken together until a row holds as much."""
TILE = 256
"""Side of the tiles, in pixels, in which a cube without chunks is brought into model space."""


@dataclass(frozen=True, slots=True)
class Box:
    """Values (time, channel, y, x) of a part of the field; ``y`` and ``x`` are its first pixel."""

    y: int
    x: int
    values: Array


@dataclass(frozen=True, slots=True)
class Slab:
    """What was read of a row, from frame ``start`` on: model-space values (float32), or packed numbers (unsigned)."""

    start: int
    stop: int
    boxes: list[Box]

    @property
    def packed(self) -> bool:
        """Whether it holds packed numbers."""
        return all(box.values.dtype.kind == "u" for box in self.boxes)

    def copy_into(self, out: Array, first: tuple[int, int, int], *, table: Array | None) -> None:
        """Fill the part of ``out`` (time, channel, y, x) that was read here.

        Args:
            first: frame, y and x of the first pixel of ``out``.
            table: unpacks packed numbers; None leaves them packed.
        """
        time, y, x = first
        t0, t1 = max(self.start, time), min(self.stop, time + out.shape[0])
        for box in self.boxes:
            y0, y1 = max(box.y, y), min(box.y + box.values.shape[2], y + out.shape[2])
            x0, x1 = max(box.x, x), min(box.x + box.values.shape[3], x + out.shape[3])
            if y0 >= y1 or x0 >= x1:
                continue
            part = box.values[t0 - self.start : t1 - self.start, :, y0 - box.y : y1 - box.y, x0 - box.x : x1 - box.x]
            if table is not None and part.dtype.kind == "u":
                part = table.take(part)
            out[t0 - time : t1 - time, :, y0 - y : y1 - y, x0 - x : x1 - x] = part


class CubeRows:
    """A cube as a sequence of rows, each of them some whole chunks in time, and of tiles, its chunks in space.

    Args:
        cube: what to read.
        channels: order and scaling of its variables.
    """

    def __init__(self, cube: xr.DataArray, channels: Channels) -> None:
        self.cube, self.channels = cube, channels
        self._tables: dict[tuple[Coding, str], Array] = {}
        packed = _packed_frames(cube, channels)
        self._frames = None if packed is None else packed[0]
        self.table: Array | None = None
        """Model-space values of packed numbers, by their bits; None: rows are in model space when they are read."""
        chunks: Sequence[Sequence[int]]
        size = 4
        if packed is not None:
            frames, dtype, coding = packed
            size, self.table = dtype.itemsize, self._table(dtype, coding)
            chunks = _stored_chunks(cube, frames)
        elif cube.chunks is not None:
            chunks = cube.chunks
        else:
            chunks = tuple((1 if i == 0 else TILE,) * n for i, n in enumerate(cube.shape))
        frame = size * max(1, math.prod(cube.shape[1:]))
        self.edges = _edges(chunks[0], len(cube), -(-ROW_BYTES // frame))
        space = [(cube.sizes[d], chunks[cube.dims.index(d)]) for d in space_dims(cube)]
        y, x = [n for n, _ in space] + [1] * (2 - len(space))
        self.shape = (y, x)
        """Sizes of y and x; a series lies along y."""
        self.tiles = [_edges(c, n, 1) for n, c in space] + [np.array([0, 1])] * (2 - len(space))
        self.row_bytes = frame * int(np.diff(self.edges).max())

    def share_table(self, other: CubeRows) -> None:
        """Use the table of another cube when it is equal."""
        if self.table is None or other.table is None or not np.array_equal(self.table, other.table, equal_nan=True):
            return
        self._tables = {k: other.table if t is self.table else t for k, t in self._tables.items()}
        self.table = other.table

    def row(self, frames: Array) -> Array:
        """The row that each of some frames lies in."""
        return np.searchsorted(self.edges, frames, side="right") - 1

    def read(self, row: int, boxes: Sequence[tuple[slice, slice]]) -> Slab:
        """The tiles of a row that any of ``boxes`` (in y and x) touches."""
        wanted = np.zeros([len(t) - 1 for t in self.tiles], bool)
        for y, x in boxes:
            spans = (
                np.searchsorted(t, (s.start, s.stop - 1), "right") for t, s in zip(self.tiles, (y, x), strict=True)
            )
            (y0, y1), (x0, x1) = spans
            wanted[y0 - 1 : y1, x0 - 1 : x1] = True
        start, stop = int(self.edges[row]), int(self.edges[row + 1])
        read = []
        for rows, columns in rectangles(wanted):
            y, x = (slice(int(t[s.start]), int(t[s.stop])) for t, s in zip(self.tiles, (rows, columns), strict=True))
            read.append(Box(y.start, x.start, self._read(start, stop, y, x)))
        return Slab(start, stop, read)

    def _read(self, start: int, stop: int, y: slice, x: slice) -> Array:
        """Packed numbers or model-space values (time, channel, y, x)."""
        space = (y, x)[: len(space_dims(self.cube))]
        if self._frames is None:
            where = dict(zip(space_dims(self.cube), space, strict=True))
            encoded = self.channels.encode(
                self.cube.isel({sequence_dim(self.cube): slice(start, stop), **where}).load()
            )
            return np.where(np.isfinite(encoded), encoded, np.float32(np.nan)) if np.isinf(encoded).any() else encoded
        found = self._frames.numbers(start, stop, space)
        if all(n.dtype.itemsize <= 2 and self._table(n.dtype, coding) is self.table for n, coding in found):
            parts = [_bits(n) for n, _ in found]
        else:  # a file that is packed otherwise
            parts = [self._in_model_space(n, coding) for n, coding in found]
        values = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return values.reshape(len(values), 1, y.stop - y.start, x.stop - x.start)

    def _table(self, dtype: np.dtype[Any], coding: Coding) -> Array:
        """The model-space value of each number of ``dtype``, by its bits; NaN where missing."""
        key = (coding, dtype.str)
        if key not in self._tables and self._frames is not None:
            numbers = np.arange(2 ** (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}").view(dtype.newbyteorder("="))
            self._tables[key] = self._encoded(numbers, coding)
        return self._tables[key]

    def _in_model_space(self, numbers: Array, coding: Coding) -> Array:
        if numbers.dtype.itemsize > 2:  # too many for a table
            return self._encoded(numbers.ravel(), coding).reshape(numbers.shape)
        return self._table(numbers.dtype, coding).take(_bits(numbers))

    def _encoded(self, numbers: Array, coding: Coding) -> Array:
        """Stored numbers, one after the other, in model space; NaN where missing."""
        assert self._frames is not None
        factor = None if self._frames.factor is None else self._frames.factor[0].astype(self._frames.dtype)
        values, _ = self._frames.decode(numbers, coding, factor)
        (name,) = self.channels.inputs
        units = {"units": self.cube.attrs["units"]}
        encoded = self.channels.scalings[name].encode(xr.DataArray(values, dims="number", attrs=units)).values
        return np.where(np.isfinite(encoded), encoded, np.float32(np.nan))


def rectangles(wanted: Array) -> Iterator[tuple[slice, slice]]:
    """The True cells of a table as few rectangles that do not overlap: equal runs of neighbouring lines together."""
    open_runs: dict[tuple[int, int], int] = {}
    for line in range(len(wanted) + 1):
        cells = np.zeros(wanted.shape[1] + 2, np.int8)
        if line < len(wanted):
            cells[1:-1] = wanted[line]
        change = np.diff(cells)
        runs = set(zip(np.flatnonzero(change == 1).tolist(), np.flatnonzero(change == -1).tolist(), strict=True))
        for run in [r for r in open_runs if r not in runs]:
            yield slice(open_runs.pop(run), line), slice(*run)
        for run in sorted(runs):
            open_runs.setdefault(run, line)


def _packed_frames(cube: xr.DataArray, channels: Channels) -> tuple[Frames, np.dtype[Any], Coding] | None:
    """The frames behind a cube and how its first number is stored, where such numbers fit into a table; else None."""
    frames = stored_frames(cube)
    if frames is None or CHANNEL in cube.dims or not isinstance(channels.scalings[channels.inputs[0]], Pointwise):
        return None
    if frames.factor is not None and np.ptp(frames.factor):
        return None
    ((numbers, coding),) = frames.numbers(0, 1, (slice(0, 1),) * (cube.ndim - 1))
    if numbers.dtype.kind not in "iu" or numbers.dtype.itemsize > 2:
        return None
    return frames, numbers.dtype, coding


def _stored_chunks(cube: xr.DataArray, frames: Frames) -> Sequence[Sequence[int]]:
    """Sizes of the stored chunks, counted from the first frame of a cube from one file; else the dask chunks."""
    chunks, whole = frames.stored.chunks, cube.chunks
    if chunks is None or whole is None or frames.index[0, 0] != frames.index[-1, 0]:
        return whole or ()
    first = chunks[0] - int(frames.index[0, 1]) % chunks[0]
    space = [[c] * -(-n // c) for c, n in zip(chunks[1:], cube.shape[1:], strict=True)]
    return [[first, *[chunks[0]] * (len(cube) // chunks[0])], *space]


def _edges(chunks: Sequence[int], size: int, least: int) -> Array:
    """Where whole chunks end that are taken together until they have ``least`` members: 0 ... ``size``."""
    edges = [0]
    for end in np.cumsum(chunks).tolist():
        if end - edges[-1] >= least and end < size:
            edges.append(end)
    return np.array([*edges, size])


def _bits(numbers: Array) -> Array:
    """Integers as unsigned ones of the machine's byte order with the same bits."""
    native = numbers.astype(numbers.dtype.newbyteorder("="), copy=False)
    return native.view(f"u{native.dtype.itemsize}")
