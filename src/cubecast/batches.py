"""The bridge from cubes to tensors: samples are drawn, read row by row, and put together into batches.

All of an epoch is decided before a value is read: the crops of every window, their mirror images and signs, and the
order of all samples (`cubecast.shuffling`). A thread then reads the rows that the next samples need
(`cubecast.reading`), keeps those in use, and cuts batches out of them. All of it depends on ``(seed, epoch)`` alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import xarray as xr

from cubecast.ahead import read_ahead
from cubecast.batch import Batch, moved
from cubecast.channels import Array, Channels
from cubecast.config import DataConfig, TaskConfig
from cubecast.cube import select_channel, space_dims
from cubecast.epoch import Epoch, Samples
from cubecast.progress import Progress
from cubecast.reading import CubeRows
from cubecast.sharing import ALL, Share
from cubecast.windows import Window

__all__ = ["Batch", "Batches"]


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
        share: the processes that train together; each has batches of its own, and the same number of them, and reads
            its part when it is found out where it rains.
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
        share: Share = ALL,
        progress: Progress | None = None,
    ) -> None:
        used = sorted({w.cube for w in windows})
        rows: dict[int, CubeRows] = {}
        for index in used:
            rows[index] = CubeRows(cubes[index], channels)
            for other in rows.values():  # one table for all cubes that are packed alike: their samples share batches
                rows[index].share_table(other)
        whole = len(space_dims(cubes[0])) < 2 or (data.validate_whole and not train)
        crop = None if whole else data.crop
        self.data = data
        self._samples = Samples(
            windows=sorted(windows, key=lambda w: (w.cube, w.start)),
            rows=rows,
            wet={},
            static=static,
            channels=channels,
            task=task,
            data=data,
            crop=crop,
            wet_bias=wet_bias,
            seed=seed,
            train=train,
            share=share,
        )
        for index in used if crop and wet_bias else ():
            self._samples.map_wetness(index, select_channel(cubes[index], channels.outputs[0]), progress)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self._samples.batches

    def epoch(self, number: int, *, skip: int = 0, device: torch.device | str = "cpu") -> Iterator[Batch]:
        """The batches of one epoch on a device, made ahead by a thread; the same seed and number give the same ones.

        Args:
            number: of the epoch.
            skip: how many batches are left out at its start; what only they need is not read.
            device: where the batches are wanted. Packed ones are copied there packed, beside the computation.
        """
        device = torch.device(device)
        packed = Epoch(self._samples, number).packed(skip)
        if device.type == "cpu":
            return read_ahead((p.batch() for p in packed), self.data.prefetch)
        return moved(read_ahead((p.pinned() for p in packed), self.data.prefetch), device)
