"""A batch: as it is put together, packed if its cubes are, and as the network takes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cubecast.shapes import Frames, Mask, Target

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Batch:
    """Samples as tensors in model space."""

    inputs: Frames
    """(batch, history, channel, y, x) without NaN"""
    targets: Target
    """(batch, horizon, output, y, x), 0 where missing"""
    observed: Mask
    """(batch, horizon, output, y, x), True where a target was observed"""


@dataclass(frozen=True)
class Packed:
    """Samples as they are put together: NumPy arrays, so that a reader thread starts none of torch's; or tensors."""

    values: Any
    """(batch, time, channel, y, x): model space with NaN where missing; or unsigned numbers that ``table`` unpacks."""
    table: Any
    """The model-space value of every number, or None."""
    sign: Any
    """(batch, 1, 1, 1, 1) factors of all values, or None."""
    static: Any
    """(batch, 1, field, y, x), or None."""
    season: Any
    """(batch, history, 2, 1, 1), or None."""
    history: int
    outputs: int
    mask_channel: bool

    def batch(self) -> Batch:
        """What the network takes, on the device where the arrays are.

        Input channels: the values with 0 where missing, then (``mask_channel``) where they were observed, then the
        static planes, then the season.
        """
        values, history = self._unpacked(), self.history
        observed = values == values  # a NaN is not
        if isinstance(values, np.ndarray):
            np.copyto(values, 0, where=~observed)
        else:
            values.masked_fill_(~observed, 0)
        if self.sign is not None:
            values *= self.sign
        parts = [values[:, :history], *([observed[:, :history]] if self.mask_channel else [])]
        parts += [p for p in (self.static, self.season) if p is not None]
        shape = (len(values), history, sum(p.shape[2] for p in parts), *values.shape[3:])
        inputs = np.empty(shape, np.float32) if isinstance(values, np.ndarray) else values.new_empty(shape)
        channel = 0
        for part in parts:
            inputs[:, :, channel : channel + part.shape[2]] = part
            channel += part.shape[2]
        targets = (a[:, history:, : self.outputs] for a in (values, observed))
        return Batch(*(torch.as_tensor(a) for a in (inputs, *targets)))

    def _unpacked(self) -> Any:
        if self.table is None:
            return self.values
        if isinstance(self.values, np.ndarray):
            return self.table.take(self.values, mode="clip")  # no number lies outside: not checked again
        return self.table[self.values.int() & (len(self.table) - 1)]

    def pinned(self) -> Packed:
        """As tensors in pinned memory, from which a copy to the device runs beside the computation."""
        # Signed numbers have the same bits, and torch knows few operations of unsigned ones.
        signed = self.values.view(np.int16) if self.values.dtype == np.uint16 else self.values
        return replace(self, values=signed)._each(lambda a: torch.from_numpy(a).pin_memory())

    def to(self, device: torch.device) -> Packed:
        """On a device; the copy is not waited for."""
        return self._each(lambda t: t.to(device, non_blocking=True))

    def _each(self, function: Any) -> Packed:
        arrays = {f.name: getattr(self, f.name) for f in fields(self)[:5]}
        return replace(self, **{name: function(a) for name, a in arrays.items() if a is not None})


def moved(batches: Iterator[Packed], device: torch.device) -> Iterator[Batch]:
    """Pinned batches unpacked on a CUDA device, each copied on another stream while the one before is computed on."""
    stream, ahead = torch.cuda.Stream(device), None
    for packed in batches:
        with torch.cuda.stream(stream):
            following = packed.to(device).batch()
            event = stream.record_event()
        if ahead is not None:
            yield _handed_over(*ahead)
        ahead = following, event
    if ahead is not None:
        yield _handed_over(*ahead)


def _handed_over(batch: Batch, event: torch.cuda.Event) -> Batch:
    """A batch for use on the current stream, once ``event`` has come to pass."""
    current = torch.cuda.current_stream(batch.inputs.device)
    current.wait_event(event)
    for tensor in (batch.inputs, batch.targets, batch.observed):
        tensor.record_stream(current)
    return batch
