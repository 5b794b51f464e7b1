"""The bridge from cubes to tensors: windows are read block by block, shuffled, and stacked into batches.

One epoch reads every block once. A block is a run of neighbouring windows of one cube; `shuffle_blocks` blocks, in
random order, make a pool whose samples are mixed. Order, crops, flips and signs depend on ``(seed, epoch)`` alone.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from cubecast.channels import Array, Channels
from cubecast.config import DataConfig, TaskConfig
from cubecast.cube import select_channel, sequence_dim, space_dims
from cubecast.progress import Progress
from cubecast.shapes import Forecast, Frames, Mask
from cubecast.windows import Window, draw_crop, wet_map

BLOCK_BYTES = 32 * 2**20
"""Decoded size that a block of several windows may reach; a single larger window is a block of its own."""

Piece = tuple[Array, Array, Array | None]
"""Encoded values (time, channel, y, x), their times, and static planes (field, y, x), of one window."""
Sample = tuple[Array, Array]
"""Inputs and targets."""

WET_TILE = 16
"""Side of the tiles, in grid cells, on which wetness is known when crops are drawn."""


@dataclass(frozen=True)
class Batch:
    """Samples as tensors in model space."""

    inputs: Frames
    """(batch, history, channel, y, x) without NaN"""
    targets: Forecast
    """(batch, horizon, output, y, x), 0 where missing"""
    observed: Mask
    """(batch, horizon, output, y, x), True where a target was observed"""

    def to(self, device: torch.device) -> Batch:
        """The batch on a device; from pinned memory the copy runs beside the computation."""
        if device.type == "cuda":
            return Batch(*(t.pin_memory().to(device, non_blocking=True) for t in self._tensors()))
        return Batch(*(t.to(device) for t in self._tensors()))

    def _tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.inputs, self.targets, self.observed


class Batches:
    """Batches of the windows of some cubes; iterate over `epoch`.

    Args:
        cubes: the cubes that the windows index.
        windows: which slices are samples (`cubecast.windows`).
        channels: order and scaling of the variables.
        task: history and horizon.
        data: crops, batch size and shuffling.
        static: static planes (field, y, x) of every cube, or None.
        wet_bias: as in `DataConfig`; 0 for fields that are not rain.
        seed: seed of order, crops, flips and signs.
        train: False keeps the order and draws the same crops in every epoch.
    """

    def __init__(
        self,
        cubes: Sequence[xr.DataArray],
        windows: Sequence[Window],
        channels: Channels,
        *,
        task: TaskConfig,
        data: DataConfig,
        static: Sequence[Array | None],
        wet_bias: float,
        seed: int,
        train: bool,
        progress: Progress | None = None,
    ) -> None:
        self.cubes, self.channels, self.task, self.data = cubes, channels, task, data
        self.static, self.seed, self.train, self.wet_bias = static, seed, train, wet_bias
        self._blocks = _blocks(cubes, windows)
        whole = len(space_dims(cubes[0])) < 2 or (data.validate_whole and not train)
        self._crop = None if whole else data.crop
        self._wet: dict[int, Array] = {}
        if self._crop and wet_bias:
            for index in {w.cube for w in windows}:
                field = select_channel(cubes[index], channels.outputs[0])
                self._wet[index] = wet_map(field, threshold=data.wet_threshold, block=WET_TILE, progress=progress)
        shapes: dict[tuple[int, ...], int] = {}
        for window in windows:
            shape = self._shape(self._place(window, np.random.default_rng(0)))
            shapes[shape] = shapes.get(shape, 0) + (data.crops_per_window if self._crop else 1)
        self._length = sum(-(-count // data.batch_size) for count in shapes.values())

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self._length

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of one epoch, read ahead in a thread; the same seed and number give the same batches."""
        return _ahead(self._batches(number if self.train else 0), self.data.prefetch)

    def _batches(self, epoch: int) -> Iterator[Batch]:
        rng = np.random.default_rng([self.seed, int(self.train), epoch])
        order = rng.permutation(len(self._blocks)) if self.train else np.arange(len(self._blocks))
        waiting: dict[tuple[int, ...], list[Sample]] = {}
        for first in range(0, len(order), self.data.shuffle_blocks):
            blocks = [self._blocks[b] for b in order[first : first + self.data.shuffle_blocks]]
            pool = [cut for block in blocks for cut in self._read(block, rng)]
            for index in rng.permutation(len(pool)) if self.train else range(len(pool)):
                inputs, targets = self._sample(*pool[index], rng)
                bucket = waiting.setdefault(inputs.shape, [])
                bucket.append((inputs, targets))
                if len(bucket) == self.data.batch_size:
                    yield _stack(waiting.pop(inputs.shape))
        for bucket in waiting.values():
            yield _stack(bucket)

    def _read(self, block: Sequence[Window], rng: np.random.Generator) -> list[Piece]:
        """The pieces of a block's samples: views of one box of the cube that holds them all, read and encoded once."""
        cube, static = self.cubes[block[0].cube], self.static[block[0].cube]
        count = self.data.crops_per_window if self._crop else 1
        boxes = [self._place(window, rng).indexers(cube) for window in block for _ in range(count)]
        outer = {d: slice(min(b[d].start for b in boxes), max(b[d].stop for b in boxes)) for d in boxes[0]}
        loaded = cube.isel(outer).load()
        encoded, times = self.channels.encode(loaded), loaded[sequence_dim(cube)].values
        pieces = []
        for box in boxes:
            time, *corner = (slice(s.start - outer[d].start, s.stop - outer[d].start) for d, s in box.items())
            space = (box.get(d, slice(None)) for d in space_dims(cube))
            planes = None if static is None else static[:, *space]
            pieces.append((encoded[time, :, *corner], times[time], planes))
        return pieces

    def _sample(self, encoded: Array, times: Array, static: Array | None, rng: np.random.Generator) -> Sample:
        inputs = self.channels.frames(encoded[: self.task.history], static, times[: self.task.history])
        targets = encoded[self.task.history :, : len(self.channels.outputs)]
        if self.train and self.data.flips:
            for axis in (-1, -2):
                if rng.random() < 0.5:
                    inputs, targets = np.flip(inputs, axis), np.flip(targets, axis)
            if rng.random() < 0.5 and inputs.shape[-1] == inputs.shape[-2]:
                inputs, targets = inputs.swapaxes(-1, -2), targets.swapaxes(-1, -2)
        if self.train and self.data.negate and rng.random() < 0.5:
            values = np.arange(inputs.shape[1]) < len(self.channels.inputs)  # neither masks nor known fields
            inputs, targets = np.where(values[:, None, None], -inputs, inputs), -targets
        return inputs, targets

    def _place(self, window: Window, rng: np.random.Generator) -> Window:
        """The window with a crop drawn, where crops are wanted."""
        cube = self.cubes[window.cube]
        if self._crop is None:
            return window
        y, x = (cube.sizes[d] for d in space_dims(cube))
        wet = self._wet.get(window.cube, np.zeros((cube.shape[0], -(-y // WET_TILE), -(-x // WET_TILE)), np.float32))
        return draw_crop(window, wet, grid=(y, x), crop=self._crop, block=WET_TILE, wet_bias=self.wet_bias, rng=rng)

    def _shape(self, window: Window) -> tuple[int, ...]:
        cube = self.cubes[window.cube]
        box = window.indexers(cube)
        return tuple(box[d].stop - box[d].start if d in box else cube.sizes[d] for d in space_dims(cube))


def _blocks(cubes: Sequence[xr.DataArray], windows: Sequence[Window]) -> list[list[Window]]:
    """Runs of neighbouring windows of one cube, as long as the frames that they span stay below BLOCK_BYTES."""
    blocks: list[list[Window]] = []
    for window in sorted(windows, key=lambda w: (w.cube, w.start)):
        cube = cubes[window.cube]
        frames = max(1, BLOCK_BYTES // max(1, 4 * cube.size // cube.sizes[sequence_dim(cube)]))
        last = blocks[-1] if blocks else None
        if last and last[0].cube == window.cube and window.start + window.length - last[0].start <= frames:
            last.append(window)
        else:
            blocks.append([window])
    return blocks


def _stack(samples: Sequence[Sample]) -> Batch:
    inputs = torch.from_numpy(np.stack([s[0] for s in samples]))
    targets = np.stack([s[1] for s in samples])
    observed = np.isfinite(targets)
    filled = np.where(observed, targets, np.float32(0))
    return Batch(inputs, torch.from_numpy(filled), torch.from_numpy(observed))


def _ahead(batches: Iterator[Batch], depth: int) -> Iterator[Batch]:
    """``batches`` made by a thread up to ``depth`` ahead; its errors are raised here, and it ends with the reader."""
    if depth == 0:
        yield from batches
        return
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: Batch | BaseException | None) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return

    def work() -> None:
        try:
            for batch in batches:
                put(batch)
                if stop.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=work, name="cubecast-batches", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()
