"""A sequence of (Conv)LSTM steps forward and backward, in buffers that suit the maps. No autograd here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cubecast.nn import maps
from cubecast.nn.compiled import Kernel
from cubecast.nn.gates import lstm, lstm_gradient

CHUNK = 24 * 2**20
"""Bytes of the buffers of a few steps on a CPU: each fresh page of a larger one costs a page fault."""
TILE = 2**17
"""Elements of the state in one piece when gates run uncompiled: what stays in the cache between operators."""

_STEP, _GRADIENT = Kernel(lstm), Kernel(lstm_gradient)

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]
"""With respect to (outputs, h_T, c_T)."""


@dataclass(frozen=True)
class Way:
    """How a sequence is computed; all ways give the same values.

    Attributes:
        steps: how many.
        dtype: of the maps: that of autocast, or of the weights.
        compiled: compile the gates.
        hoist: take the map of the input out of the loop.
        recompute: keep nothing of the maps for the backward pass; it runs them once more (less memory, slower).
        differentiable: keep what the backward pass needs; without, only the last state stays.
    """

    steps: int
    dtype: torch.dtype
    compiled: bool = False
    hoist: bool = False
    recompute: bool = False
    differentiable: bool = True

    @property
    def state_dtype(self) -> torch.dtype:
        """Of the cell state and of all arithmetic in gates."""
        return torch.float32 if self.dtype.itemsize < 4 else self.dtype


class LSTMSequence:
    """One pass over a sequence, forward or backward.

    Args:
        way: how.
        x: the input ``(batch, time, channel, *space)``; None: no input.
        hidden: h_0, or None: zeros.
        weight, bias: of the one map of all gates, of [x, h].
        peepholes: ``(3, hidden, y, x)``, ``(3, hidden, 1, 1)`` or None.
    """

    def __init__(
        self,
        way: Way,
        x: Tensor | None,
        hidden: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        peepholes: Tensor | None,
    ) -> None:
        self.way, self.channels = way, weight.shape[0] // 4
        self.width = weight.shape[1] - self.channels
        self.x = None if x is None else x.detach()
        self.start = None if hidden is None else maps.cast(hidden, way.dtype)
        self.weight = maps.cast(weight, way.dtype)
        self.bias = None if bias is None else bias.detach().to(way.dtype)
        self.of_input, self.of_hidden = (maps.cast(w, way.dtype) for w in weight.tensor_split([self.width], dim=1))
        like = x[:, 0] if x is not None else hidden
        assert like is not None
        self.batch, self.space, self.device = like.shape[0], like.shape[2:], like.device
        self.size = self.batch * self.space.numel() * self.channels
        self.peepholes, self.samples = None, 0
        if peepholes is not None:
            rows = peepholes.detach().to(way.state_dtype).movedim(1, -1).reshape(3, -1, self.channels)
            self.samples = self.batch if rows.shape[1] > 1 else 0
            self.peepholes = (rows if self.samples else rows[:, 0]).clone()

    def forward(self, cell: Tensor | None, *, keep: bool) -> tuple[Tensor, list[Tensor], list[Tensor | None]]:
        """Run all steps from c_0 (None: zeros).

        Returns:
            h_t ``(time, batch, channel, *space)``; c_0 ... c_T as rows and what went into the gates at each step (both
            only with ``keep``, else the last c alone).
        """
        outputs = self._buffer(self.way.steps, self.channels, self.way.dtype)
        cells: list[Tensor] = [self.rows_of_state(cell)]
        kept: list[Tensor | None] = []
        joined = None if self.way.hoist or not self.width else self._buffer(1, self.width + self.channels)[0]
        h = self.start
        for chunk in self._chunks():
            hoisted = self._of_inputs(chunk) if self.way.hoist and self.width else None
            for k, step in enumerate(chunk):
                before = self._rows(self._map(step, h, joined, None if hoisted is None else hoisted[k]))
                rows, new = self._gates(_STEP, before, cells[-1], self.peepholes)
                h = outputs[step].copy_(self.field(rows))
                cells.append(new)
                if keep:
                    kept.append(None if self.way.recompute else before)
                else:
                    cells = cells[-1:]
        return outputs, cells, kept

    def backward(
        self,
        outputs: Tensor,
        cells: list[Tensor],
        before: list[Tensor | None],
        d: Gradients,
        wanted: tuple[bool, ...],
    ) -> list[Tensor | None]:
        """The gradients of (x, h_0, c_0, weight, bias, peepholes); None where not ``wanted``.

        Args:
            outputs, cells, before: what `forward` gave. ``before`` is given back to memory on the way; what is missing
                of it is computed once more.
            d: the gradients of (outputs, h_T, c_T), each None or in the shape of `torch.autograd`.
            wanted: one for each of the six.
        """
        for_x, for_h, for_c, for_weight, for_bias, for_peepholes = wanted
        d_outputs, d_hidden, d_last = d
        d_cell = self.rows_of_state(d_last)
        from_next = d_hidden
        d_x = self._buffer(self.way.steps, self.width) if for_x else None
        back, back_x = maps.transposed(self.of_hidden), maps.transposed(self.of_input)
        d_weight, d_bias, d_peepholes = _Sum(), _Sum(), _Sum()
        for chunk in reversed(self._chunks()):
            missing = before[chunk[-1]] is None
            inputs = self._joined(chunk, outputs) if missing or for_weight or for_bias else None
            parts = []
            for step in reversed(chunk):
                if missing and inputs is not None:
                    before[step] = self._rows(maps.apply(self.weight, inputs[step - chunk.start], self.bias))
                states = (cells[step], cells[step + 1])
                dh = self._sum_of(None if d_outputs is None else d_outputs[:, step], from_next)
                part, d_cell = self._gates(_GRADIENT, before[step], states, self.peepholes, dh, d_cell)
                before[step] = None
                if for_peepholes:
                    d_peepholes.add(self._of_peepholes(part, states))
                parts.append(self.field(part))
                from_next = maps.apply(back, parts[-1]) if step or for_h else None
            d_before = parts[0] if len(parts) == 1 else torch.cat(parts[::-1])
            del parts
            if inputs is not None and (for_weight or for_bias):
                for total, part in zip(
                    (d_weight, d_bias), maps.weight_gradient(self.weight, inputs.flatten(0, 1), d_before), strict=True
                ):
                    total.add(part.to(self.way.state_dtype))
            if d_x is not None:
                d_x[chunk.start : chunk.stop].flatten(0, 1).copy_(maps.apply(back_x, d_before))
        return [
            None if d_x is None else d_x.transpose(0, 1),
            from_next if for_h else None,
            self.field(d_cell) if for_c else None,
            d_weight.value,
            d_bias.value,
            d_peepholes.value,
        ]

    def rows_of_state(self, state: Tensor | None) -> Tensor:
        """A field as rows in the dtype of states, copied (kernels want memory that starts at 0); None: zeros."""
        if state is None:
            return self._rows(self._buffer(1, self.channels, self.way.state_dtype)[0].zero_())
        rows = self._buffer(1, self.channels, self.way.state_dtype)[0].copy_(state.detach())
        return self._rows(rows)

    def field(self, rows: Tensor) -> Tensor:
        """Rows as a field ``(batch, channel, *space)``."""
        return rows.reshape(self.batch, *self.space, rows.shape[-1]).movedim(-1, 1)

    def _rows(self, field: Tensor) -> Tensor:
        rows = maps.rows(field)
        return rows.unflatten(0, (self.samples, -1)) if self.samples else rows

    def _buffer(self, steps: int, channels: int, dtype: torch.dtype | None = None) -> Tensor:
        """Memory for fields ``(steps, batch, channel, *space)``: time outermost, channels innermost."""
        shape = (steps, self.batch, *self.space, channels)
        return torch.empty(shape, dtype=dtype or self.way.dtype, device=self.device).movedim(-1, 2)

    def _chunks(self) -> list[range]:
        """The steps in pieces, each with what goes into its gates below `CHUNK` bytes; on a GPU all in one."""
        size = steps = self.way.steps
        if self.device.type == "cpu":
            size = max(1, min(size, CHUNK // (4 * self.size * self.way.dtype.itemsize)))
        return [range(first, min(first + size, steps)) for first in range(0, steps, size)]

    def _of_inputs(self, chunk: range) -> Tensor:
        """The map of the input for all steps of a chunk."""
        assert self.x is not None
        x = self._buffer(len(chunk), self.width)
        x.copy_(self.x[:, chunk.start : chunk.stop].transpose(0, 1))
        return maps.apply(self.of_input, x.flatten(0, 1), self.bias).unflatten(0, x.shape[:2])

    def _map(self, step: int, h: Tensor | None, joined: Tensor | None, hoisted: Tensor | None) -> Tensor:
        """What goes into the gates of one step, from h_{t-1} (None: zeros)."""
        if hoisted is not None:
            return hoisted.clone() if h is None else hoisted + maps.apply(self.of_hidden, h)
        if self.x is None or joined is None:
            assert h is not None
            return maps.apply(self.weight, h, self.bias)
        if h is None:
            return maps.apply(self.of_input, maps.cast(self.x[:, step], self.way.dtype), self.bias)
        joined[:, : self.width].copy_(self.x[:, step])
        joined[:, self.width :].copy_(h)
        return maps.apply(self.weight, joined, self.bias)

    def _joined(self, chunk: range, outputs: Tensor) -> Tensor:
        """[x_t, h_{t-1}] for all steps of a chunk."""
        joined = self._buffer(len(chunk), self.width + self.channels)
        x, h = joined.tensor_split([self.width], dim=2)
        if self.x is not None:
            x.copy_(self.x[:, chunk.start : chunk.stop].transpose(0, 1))
        if chunk.start:
            h.copy_(outputs[chunk.start - 1 : chunk.stop - 1])
        else:
            h[0].zero_() if self.start is None else h[0].copy_(self.start)
            h[1:].copy_(outputs[: chunk.stop - 1])
        return joined

    def _sum_of(self, *parts: Tensor | None) -> Tensor:
        """The sum of fields as rows in the dtype of states, in memory of its own."""
        total = self.rows_of_state(parts[0])
        return total if parts[1] is None else total.add_(self._rows(parts[1]))

    def _of_peepholes(self, d: Tensor, cells: tuple[Tensor, Tensor]) -> Tensor:
        """The gradient of one step, in the shape of the parameter."""
        i, f, _, o = d.to(self.way.state_dtype).chunk(4, dim=-1)
        parts = torch.stack([(a * c).sum(0) for a, c in zip((i, f, o), (cells[0], *cells), strict=True)])
        space = self.space if self.samples else (1,) * len(self.space)
        return parts.reshape(3, *space, self.channels).movedim(-1, 1)

    def _gates(self, kernel: Kernel, *arguments: Any) -> tuple[Tensor, Tensor]:
        """``kernel`` of rows: compiled, or operator by operator on one tile after the other."""
        if self.way.compiled:
            first, second = kernel.compiled(*arguments)
            return first, second
        total = arguments[0].shape[0]
        size = total if self.device.type != "cpu" else max(1, TILE * total // max(1, self.size))
        pieces = [
            kernel.plain(*(_tile(a, slice(first, first + size), self.peepholes) for a in arguments))
            for first in range(0, total, size)
        ]
        first, second = pieces[0] if len(pieces) == 1 else (torch.cat(p) for p in zip(*pieces, strict=True))
        return first, second


class _Sum:
    """A sum that starts with its first part."""

    def __init__(self) -> None:
        self.value: Tensor | None = None

    def add(self, part: Tensor) -> None:
        self.value = part if self.value is None else self.value.add_(part)


def _tile(argument: Any, tile: slice, whole: Tensor | None) -> Any:
    """The rows ``tile`` of every tensor but ``whole``."""
    if isinstance(argument, tuple):
        return tuple(_tile(a, tile, whole) for a in argument)
    return argument if argument is None or argument is whole else argument[tile]
