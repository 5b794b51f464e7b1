"""Chunks of a local Zarr array that are plain files of zstd or of nothing else, decoded without zarr's event loop.

This takes two thirds of the time of zarr-python's own read; what is stored in any other way is left to that.
"""

from __future__ import annotations

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numcodecs import Zstd
from zarr.codecs import BytesCodec, Endian, ZstdCodec
from zarr.storage import LocalStore

Array = np.ndarray[Any, Any]

THREADS = min(4, os.cpu_count() or 1)
"""That decode the chunks of one read."""


@dataclass(frozen=True, slots=True)
class PlainChunks:
    """An array of chunk files: ``self[key]`` for a tuple of slices without step and of integers, one for each dim."""

    folder: Path
    metadata: Any
    """Of zarr: it names the chunks."""
    compressed: bool

    @classmethod
    def of(cls, array: zarr.Array[Any]) -> PlainChunks | None:
        """The chunks of an array, or None when they are not plain."""
        if not isinstance(array.store, LocalStore) or array.shards is not None or array.filters:
            return None
        little = array.dtype.itemsize == 1 or array.dtype.newbyteorder("=").str[0] == array.dtype.str[0] == "<"
        if array.metadata.zarr_format == 3:
            if not isinstance(array.serializer, BytesCodec):
                return None
            little = array.serializer.endian in (None, Endian.little)
        compressors = array.compressors
        zstd = len(compressors) == 1 and isinstance(compressors[0], Zstd | ZstdCodec)
        if not little or array.dtype.kind not in "iuf" or array.order != "C" or not (zstd or not compressors):
            return None
        return cls(Path(array.store.root) / array.path, array.metadata, zstd)

    def __getitem__(self, key: tuple[int | slice, ...]) -> Array:
        """The numbers at ``key``.

        Raises:
            ValueError: a chunk is not of its size.
            OSError, RuntimeError: a chunk cannot be read, or not be decoded.
        """
        sizes = self.metadata.chunks if self.metadata.zarr_format == 2 else self.metadata.chunk_grid.chunk_shape
        spans = [k if isinstance(k, slice) else slice(k, k + 1) for k in key]
        spans = [slice(*s.indices(n)[:2]) for s, n in zip(spans, self.metadata.shape, strict=True)]
        out = np.empty([max(0, s.stop - s.start) for s in spans], self.metadata.dtype.to_native_dtype())
        grid = [range(s.start // n, -(-s.stop // n)) for s, n in zip(spans, sizes, strict=True)]

        def fill(place: tuple[int, ...]) -> None:
            chunk = self._chunk(place, sizes, out.dtype)
            inside, outside = [], []
            for i, n, s in zip(place, sizes, spans, strict=True):
                start, stop = max(s.start, i * n), min(s.stop, (i + 1) * n)
                inside.append(slice(start - i * n, stop - i * n))
                outside.append(slice(start - s.start, stop - s.start))
            out[tuple(outside)] = chunk if chunk.ndim == 0 else chunk[tuple(inside)]

        places = list(itertools.product(*grid)) if out.size else []
        with ThreadPoolExecutor(THREADS) as pool:  # of this read alone: it outlives no fork
            for _ in pool.map(fill, places):
                pass
        return out.squeeze(axis=tuple(i for i, k in enumerate(key) if not isinstance(k, slice)))

    def _chunk(self, place: tuple[int, ...], sizes: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """One chunk; the fill value where there is no file."""
        try:
            content = (self.folder / self.metadata.encode_chunk_key(place)).read_bytes()
        except FileNotFoundError:
            return np.asarray(self.metadata.fill_value if self.metadata.fill_value is not None else 0, dtype)
        numbers = np.frombuffer(Zstd().decode(content) if self.compressed else content, dtype)
        if numbers.size != np.prod(sizes):
            raise ValueError(f"chunk {place} has {numbers.size} numbers where {sizes} was announced")
        return numbers.reshape(sizes)
