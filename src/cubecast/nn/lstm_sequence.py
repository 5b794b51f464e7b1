"""A sequence of (Conv)LSTM steps: one map of [x, h] a step gives all four gates; the memory is c."""

from __future__ import annotations

from functools import cached_property
from typing import final

import torch
from torch import Tensor

from cubecast.nn.cell import Cell
from cubecast.nn.compiled import Kernel
from cubecast.nn.gates import lstm, lstm_gradient
from cubecast.nn.maps import Map
from cubecast.nn.sequence import FusedSequence, Saved

_STEP, _GRADIENT = Kernel(lstm), Kernel(lstm_gradient)


@final
class LSTMSequence(FusedSequence):
    """`cubecast.nn.conv_lstm.ConvLSTMCell` and `cubecast.nn.lstm.LSTMCell`; kept is what went into the gates."""

    def prepare(self, cell: Cell) -> None:
        """See `FusedSequence.prepare`."""
        self.name = "conv" if "conv.weight" in self.weights else "linear"
        weight, bias = self.weights[f"{self.name}.weight"], self.weights.get(f"{self.name}.bias")
        self.map = Map(weight, bias, self.way.dtype)
        self.of_hidden = Map(weight[:, self.width :], None, self.way.dtype)
        if self.x is not None:
            self.of_input = Map(weight[:, : self.width], bias, self.way.dtype)
        if "peepholes" in self.weights:
            rows = (
                self.weights["peepholes"].detach().to(self.way.state_dtype).movedim(1, -1).reshape(3, -1, self.channels)
            )
            self.samples = self.batch if rows.shape[1] > 1 else 0
            self.whole = (rows if self.samples else rows[:, 0]).clone()

    def step(
        self, step: int, mapped: Tensor | None, h: Tensor | None, memory: Tensor, *, keep: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """See `FusedSequence.step`."""
        into = self.rows(self._map(step, mapped, h))
        rows, cell = self.gates(_STEP, into, memory, self.whole)
        return rows, cell, into if keep else None

    def keep_again(self, step: int, h: Tensor | None, memory: Tensor) -> Tensor:
        """See `FusedSequence.keep_again`: the map alone."""
        return self.rows(self._map(step, None, h))

    def step_back(
        self, step: int, kept: Tensor, saved: Saved, dh: Tensor, d_memory: Tensor, *, further: bool
    ) -> tuple[tuple[Tensor, ...], Tensor | None, Tensor]:
        """See `FusedSequence.step_back`; `weigh` gets di, df, dg and do side by side."""
        cells = (self.memory(saved, step), self.memory(saved, step + 1))
        rows, d_memory = self.gates(_GRADIENT, kept, cells, self.whole, dh, d_memory)
        if self.wants("peepholes"):
            self.add("peepholes", self._of_peepholes(rows, cells))
        d = self.field(rows)
        return (d,), self.of_hidden.back(d) if further else None, d_memory

    def weigh(self, chunk: range, parts: list[Tensor], outputs: Tensor) -> Tensor:
        """See `FusedSequence.weigh`."""
        (d,) = parts
        if self.wants_map(self.name):
            self.add_map(self.map, self._joined(chunk, outputs).flatten(0, 1), d, self.name)
        return d

    def _map(self, step: int, mapped: Tensor | None, h: Tensor | None) -> Tensor:
        """What goes into the gates of one step, from h_{t-1} (None: zeros)."""
        if mapped is not None:
            return mapped.clone() if h is None else mapped + self.of_hidden(h)
        if self.x is None:
            assert h is not None
            return self.map(h)
        x, of_h = self._pair.tensor_split([self.width], dim=1)
        x.copy_(self.x[:, step])
        if h is None:
            return self.of_input(x)
        of_h.copy_(h)
        return self.map(self._pair)

    @cached_property
    def _pair(self) -> Tensor:
        """Where [x, h] of one step are laid side by side."""
        return self.buffer(1, self.width + self.channels)[0]

    def _joined(self, chunk: range, outputs: Tensor) -> Tensor:
        """[x_t, h_{t-1}] for all steps of a chunk."""
        if self.x is None:
            return self.before(chunk, outputs)
        joined = self.buffer(len(chunk), self.width + self.channels)
        x, h = joined.tensor_split([self.width], dim=2)
        x.copy_(self.x[:, chunk.start : chunk.stop].transpose(0, 1))
        h.copy_(self.before(chunk, outputs))
        return joined

    def _of_peepholes(self, d: Tensor, cells: tuple[Tensor, Tensor]) -> Tensor:
        """The gradient of one step, in the shape of the parameter."""
        i, f, _, o = d.to(self.way.state_dtype).chunk(4, dim=-1)
        parts = torch.stack([(a * c).sum(0) for a, c in zip((i, f, o), (cells[0], *cells), strict=True)])
        space = self.space if self.samples else (1,) * len(self.space)
        return parts.reshape(3, *space, self.channels).movedim(-1, 1)
