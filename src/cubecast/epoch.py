"""One epoch: the order of its samples, the rows that are being read for them, and the batches cut out of these."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import xarray as xr

from cubecast.ahead import read_ahead
from cubecast.batch import Packed
from cubecast.channels import Array, Channels, season_of
from cubecast.config import DataConfig, TaskConfig
from cubecast.cube import sequence_dim
from cubecast.progress import Progress
from cubecast.reading import CubeRows, Slab
from cubecast.sharing import Share
from cubecast.shuffling import mixed_order, rank_share
from cubecast.windows import Window, draw_crops, wet_map

BUFFER_BYTES = 448 * 2**20
"""What the rows that are mixed may hold together; two places of a cube are mixed in any case."""
AHEAD = 128
"""Samples whose rows are read ahead: about those of one more row, as rows are read in jerks."""
WET_TILE = 16
"""Smallest side of the tiles, in grid cells, on which wetness is known when crops are drawn."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One crop of a window, and how it is turned: flipped along y, flipped along x, transposed; and its sign."""

    window: Window
    turned: tuple[bool, bool, bool]
    negated: bool

    def turn(self, out: Array) -> Array:
        """A view of ``out`` (.., y, x): what is written into it as it lies in the cube lies turned in ``out``."""
        flip_y, flip_x, transposed = self.turned
        view = out.swapaxes(-1, -2) if transposed else out
        return view[..., :: -1 if flip_y else 1, :: -1 if flip_x else 1]


@dataclass(frozen=True)
class Samples:
    """What the samples of every epoch are drawn from; see `cubecast.batches.Batches`."""

    windows: Sequence[Window]
    """Sorted by cube and start."""
    rows: Mapping[int, CubeRows]
    wet: dict[int, Array]
    """`wet_map` of every cube; empty where crops do not favour rain."""
    static: Sequence[Array | None]
    channels: Channels
    task: TaskConfig
    data: DataConfig
    crop: int | None
    wet_bias: float
    seed: int
    train: bool
    share: Share

    @property
    def length(self) -> int:
        """Frames in a window."""
        return self.task.history + self.task.horizon

    @property
    def count(self) -> int:
        """Samples of each window."""
        return self.data.crops_per_window if self.crop else 1

    @property
    def groups(self) -> list[Array]:
        """The indices of the windows whose samples have one shape, for each shape."""
        shapes = {i: self.shape(i) for i in self.rows}
        cubes = np.array([w.cube for w in self.windows], np.int64)
        return [
            np.flatnonzero(np.isin(cubes, [i for i, s in shapes.items() if s == shape]))
            for shape in dict.fromkeys(shapes.values())
        ]

    @property
    def batches(self) -> int:
        """Batches in an epoch."""
        return sum(-(-(len(g) // self.share.count * self.count) // self.data.batch_size) for g in self.groups)

    def shape(self, cube: int) -> tuple[int, int]:
        """Size of the samples of a cube in y and x."""
        y, x = self.rows[cube].shape
        crop = self.crop or max(y, x)
        return min(y, crop), min(x, crop)

    @property
    def wet_tile(self) -> int:
        """Side of the tiles of ``wet``: a quarter of a crop, for the map of a long archive must be small."""
        return max(WET_TILE, (self.crop or 0) // 4)

    def map_wetness(self, cube: int, field: xr.DataArray, progress: Progress | None) -> None:
        """Find out where it rains in a cube; kept in steps of 1/255, never 0 where there is any rain."""
        found = wet_map(
            field, threshold=self.data.wet_threshold, block=self.wet_tile, progress=progress, share=self.share
        )
        self.wet[cube] = np.ceil(found * 255).astype(np.uint8)

    def draw(self, index: int, epoch: int) -> list[Sample]:
        """The samples of a window in an epoch."""
        window = self.windows[index]
        rng = np.random.default_rng([self.seed, int(self.train), epoch, window.cube, window.start])
        crops = [window] * self.count
        y, x = grid = self.rows[window.cube].shape
        if self.crop is not None:
            dry = np.broadcast_to(np.uint8(0), (1, -(-y // self.wet_tile), -(-x // self.wet_tile)))
            crops = draw_crops(
                window,
                self.wet.get(window.cube, dry),
                count=self.count,
                grid=grid,
                crop=self.crop,
                block=self.wet_tile,
                wet_bias=self.wet_bias if window.cube in self.wet else 0.0,
                rng=rng,
            )
        if not self.train or not (self.data.flips or self.data.negate):
            return [Sample(crop, (False, False, False), False) for crop in crops]
        height, width = self.shape(window.cube)
        dice = rng.random((self.count, 4)) < 0.5
        dice &= np.array([self.data.flips, self.data.flips, self.data.flips and height == width, self.data.negate])
        return [Sample(crop, (a, b, c), d) for crop, (a, b, c, d) in zip(crops, dice.tolist(), strict=True)]


class Epoch:
    """The batches of one epoch.

    Args:
        samples: what they are drawn from.
        number: of the epoch; one that does not train is always epoch 0.
    """

    def __init__(self, samples: Samples, number: int) -> None:
        self.samples = samples
        number = number if samples.train else 0
        rng = np.random.default_rng([samples.seed, int(samples.train), number])
        share = samples.share
        stretch = rank_share(samples.groups, rank=share.rank, ranks=share.count, rng=rng if samples.train else None)
        self._share: list[int] = stretch.tolist()
        """Indices of the windows of this rank; sample i is crop i % count of window i // count among them."""
        self._starts = {
            i: np.array([s.start for s in (samples.windows[w] for w in self._share) if s.cube == i], np.int64)
            for i in samples.rows
        }
        self._first = dict(zip(samples.rows, np.cumsum([0, *(len(s) for s in self._starts.values())]), strict=False))
        held, span, busiest = 0, 1, 1
        units = []
        for index, rows in samples.rows.items():
            starts = self._starts[index]
            first, last = rows.row(starts), rows.row(starts + samples.length - 1)
            units.append(np.repeat(first, samples.count))
            own = int((last - first).max(initial=0)) + 1
            held, span = max(held, own * rows.row_bytes), max(span, own)
            busiest = max(busiest, int(np.bincount(first, minlength=1).max()))
        lanes = int(np.clip(BUFFER_BYTES // max(1, held), 2, samples.data.shuffle_blocks)) if samples.train else 1
        self._slabs: OrderedDict[tuple[int, int], Slab] = OrderedDict()
        self._most = lanes * span + 2  # more than are in use: with none to spare a quarter of the rows is read again
        self._draw = lru_cache(maxsize=lanes * (2 * span + 1) * busiest)(lambda w: samples.draw(w, number))
        self.order = mixed_order(units, lanes=lanes, rng=rng) if samples.train else np.arange(sum(map(len, units)))

    def packed(self, skip: int = 0) -> Iterator[Packed]:
        """The batches after the first ``skip``, while a thread reads what the next ones need."""
        data = self.samples.data
        return (self._batch(*b) for b in read_ahead(self._read(skip), data.prefetch and AHEAD // data.batch_size + 1))

    def _read(self, skip: int) -> Iterator[tuple[list[Sample], list[list[Slab]]]]:
        """The samples of every batch, and the slabs that each of them lies in."""
        for numbers in self._grouped(skip):
            samples = [self._draw(self._share[n // self.samples.count])[n % self.samples.count] for n in numbers]
            yield samples, [self._needed(sample.window) for sample in samples]

    def _grouped(self, skip: int) -> Iterator[list[int]]:
        """The numbers of the samples of every batch after the first ``skip``; those of a batch have one shape."""
        waiting: dict[tuple[int, int], list[int]] = {}
        for number in self.order.tolist():
            window = self._share[number // self.samples.count]
            shape = self.samples.shape(self.samples.windows[window].cube)
            bucket = waiting.setdefault(shape, [])
            bucket.append(number)
            if len(bucket) == self.samples.data.batch_size:
                del waiting[shape]
                if skip <= 0:
                    yield bucket
                skip -= 1
        yield from list(waiting.values())[max(0, skip) :]

    def _batch(self, samples: Sequence[Sample], slabs: Sequence[Sequence[Slab]]) -> Packed:
        """The batch of some samples."""
        source = self.samples
        tables = [source.rows[s.window.cube].table for s in samples]
        table = tables[0]
        if any(t is not table for t in tables) or not all(s.packed for needed in slabs for s in needed):
            table = None
        kind = np.dtype(np.float32) if table is None else np.dtype(np.uint16 if len(table) > 256 else np.uint8)
        shape = source.shape(samples[0].window.cube)
        values = np.empty((len(samples), source.length, len(source.channels.inputs), *shape), kind)
        for out, sample, needed, own in zip(values, samples, slabs, tables, strict=True):
            window = sample.window
            for slab in needed:
                corner = (window.start, window.y or 0, window.x or 0)
                slab.copy_into(sample.turn(out), corner, table=own if table is None else None)
        negate = source.train and source.data.negate
        sign = np.array([1 - 2 * s.negated for s in samples], np.float32).reshape(-1, 1, 1, 1, 1) if negate else None
        return Packed(
            values,
            table,
            sign,
            static=self._static(samples, shape),
            season=self._season(samples),
            history=source.task.history,
            outputs=len(source.channels.outputs),
            mask_channel=source.channels.mask_channel,
        )

    def _static(self, samples: Sequence[Sample], shape: tuple[int, int]) -> Array | None:
        """(batch, 1, field, y, x): the static planes, cut and turned as the samples are."""
        planes = [self.samples.static[s.window.cube] for s in samples]
        if planes[0] is None:
            return None
        out = np.empty((len(samples), 1, len(planes[0]), *shape), np.float32)
        for one, sample, plane in zip(out, samples, planes, strict=True):
            assert plane is not None  # a model has static planes for all cubes or for none
            y, x = sample.window.y or 0, sample.window.x or 0
            view = sample.turn(one[0])
            view[:] = plane[:, y : y + view.shape[1], x : x + view.shape[2]]
        return out

    def _season(self, samples: Sequence[Sample]) -> Array | None:
        """(batch, history, 2, 1, 1): the time of year of the frames."""
        if not self.samples.channels.season:
            return None
        found = []
        for sample in samples:
            cube, start = self.samples.rows[sample.window.cube].cube, sample.window.start
            found.append(season_of(cube[sequence_dim(cube)].values[start : start + self.samples.task.history]))
        return np.stack(found)[..., None, None]

    def _needed(self, window: Window) -> list[Slab]:
        """The slabs that a window lies in."""
        rows = self.samples.rows[window.cube]
        first, last = rows.row(np.array([window.start, window.start + window.length - 1])).tolist()
        return [self._slab(window.cube, row) for row in range(first, last + 1)]

    def _slab(self, cube: int, row: int) -> Slab:
        """A row, for all samples of this epoch that touch it; those that were used least recently make room for it."""
        key = (cube, row)
        if key in self._slabs:
            self._slabs.move_to_end(key)
            return self._slabs[key]
        while len(self._slabs) >= self._most:
            self._slabs.popitem(last=False)
        rows, starts = self.samples.rows[cube], self._starts[cube]
        first, stop = rows.edges[row] - self.samples.length, rows.edges[row + 1]
        near = range(*np.searchsorted(starts, [first + 1, stop]).tolist())
        boxes = [(slice(0, rows.shape[0]), slice(0, rows.shape[1]))] * bool(near)
        if self.samples.crop is not None:
            offset = int(self._first[cube])
            size = self.samples.shape(cube)
            corners = {(s.window.y or 0, s.window.x or 0) for i in near for s in self._draw(self._share[offset + i])}
            boxes = [(slice(y, y + size[0]), slice(x, x + size[1])) for y, x in corners]
        self._slabs[key] = rows.read(row, boxes)
        return self._slabs[key]
