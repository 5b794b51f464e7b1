"""What all fused sequences share: the loops over steps, forward and backward, in buffers that suit maps and kernels.

A member (`cubecast.nn.lstm_sequence`, `cubecast.nn.gru_sequence`) adds the mathematics of its cell. No autograd here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cubecast.nn import maps
from cubecast.nn.cell import Cell
from cubecast.nn.compiled import Kernel
from cubecast.nn.way import Way

CHUNK = 24 * 2**20
"""Bytes of the buffers of a few steps on a CPU: each fresh page of a larger one costs a page fault."""
TILE = 2**17
"""Elements of the state in one piece when gates run uncompiled: what stays in the cache between operators."""


@dataclass
class Saved:
    """What the forward pass leaves for the backward pass.

    Attributes:
        outputs: h_t ``(time, batch, channel, *space)``.
        memories: the memory before the first step and, where it is not the output itself, after each step; as rows.
            That of a GRU the backward pass takes from the outputs, under autocast rounded as they are.
        kept: what the gradient of each step's gates wants to know. The backward pass gives it back on its way; what is
            missing is computed once more.
    """

    outputs: Tensor
    memories: list[Tensor]
    kept: list[Tensor | None]


class FusedSequence(ABC):
    """Abstract: one pass over a sequence, forward or backward.

    From step to step go h_t, in the dtype of the maps, and the memory, in the dtype of states: c_t of an LSTM, and of a
    GRU h_t itself. Fields are channels-last and time is outermost, so that several steps are one batch without a copy.

    Args:
        way: how.
        cell: whose steps; the weights are those given.
        x: the input ``(batch, time, channel, *space)``; None: no input.
        states: the state before the first step, (h,) or (h, c); each None: zeros.
        weights: by their names in the cell.

    Attributes:
        of_input: the map of x alone, set by the member where there is an input.
        samples: rows of kernels are ``(samples, pixel, channel)``; 0: ``(row, channel)``.
        whole: an argument of kernels that all rows share.
        wanted, d_weights: in the backward pass, which gradients by name, and those of weights.
    """

    of_input: maps.Map

    def __init__(
        self,
        way: Way,
        cell: Cell,
        x: Tensor | None,
        states: tuple[Tensor | None, ...],
        weights: Mapping[str, Tensor],
    ) -> None:
        self.way, self.channels, self.width = way, cell.hidden_channels, cell.in_channels
        self.x = None if x is None else x.detach()
        self.states, self.weights = states, weights
        self.start = None if states[0] is None else maps.cast(states[0], way.dtype)
        like = x[:, 0] if x is not None else states[0]
        assert like is not None
        self.batch, self.space, self.device = like.shape[0], like.shape[2:], like.device
        self.size = self.batch * self.space.numel() * self.channels
        self.memory_is_output = len(states) == 1
        self.samples = 0
        self.whole: Tensor | None = None
        self.wanted: set[str] = set()
        self.d_weights: dict[str, Tensor] = {}
        self.prepare(cell)

    @abstractmethod
    def prepare(self, cell: Cell) -> None:
        """Make the maps of the cell, and what else its steps need, from `weights`."""

    @abstractmethod
    def step(
        self, step: int, mapped: Tensor | None, h: Tensor | None, memory: Tensor, *, keep: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """One step.

        Args:
            step: which.
            mapped: what `of_input` gave for this step; None: it was not computed ahead.
            h: h_{t-1}, a field; None: zeros.
            memory: that before the step, as rows.
            keep: whether the last result is wanted.

        Returns:
            h_t and the new memory, both as rows, and what `step_back` wants to know.
        """

    def keep_again(self, step: int, h: Tensor | None, memory: Tensor) -> Tensor | None:
        """What `step` kept, computed once more."""
        return self.step(step, None, h, memory, keep=True)[2]

    @abstractmethod
    def step_back(
        self, step: int, kept: Tensor, saved: Saved, dh: Tensor, d_memory: Tensor, *, further: bool
    ) -> tuple[tuple[Tensor, ...], Tensor | None, Tensor]:
        """The gradient of one step.

        Args:
            step, kept, saved: which, what `step` kept, and everything else (see `memory`).
            dh: the gradient of h_t as it goes out and into the maps of the next step, as rows.
            d_memory: the gradient of the new memory, as rows.
            further: whether the second result is wanted.

        Returns:
            What `weigh` wants to know of this step, as fields; the gradient of h_{t-1} as it went into the maps, a
            field; the gradient of the memory before the step, as rows.
        """

    @abstractmethod
    def weigh(self, chunk: range, parts: list[Tensor], outputs: Tensor) -> Tensor | None:
        """Add the gradients of weights over a chunk to those that are wanted (`wants`, `add`).

        Args:
            chunk: the steps.
            parts: what `step_back` gave first, the steps one after the other along the batch.
            outputs: h_t of all steps.

        Returns:
            The gradient of what `of_input` gave; None without an input.
        """

    def forward(self, *, keep: bool) -> tuple[Saved, Tensor]:
        """Run all steps; gives what the backward pass needs (outputs alone without ``keep``) and the last memory."""
        saved = Saved(self.buffer(self.way.steps, self.channels), [self.rows_of_state(self.states[-1])], [])
        memory, h = saved.memories[0], self.start
        for chunk in self.chunks():
            mapped = self.of_input(self.frames(chunk).flatten(0, 1)) if self.way.hoist and self.x is not None else None
            for k, step in enumerate(chunk):
                ahead = None if mapped is None else mapped[k * self.batch : (k + 1) * self.batch]
                rows, memory, kept = self.step(step, ahead, h, memory, keep=keep and not self.way.recompute)
                h = saved.outputs[step].copy_(self.field(rows))
                if keep:
                    saved.kept.append(kept)
                if keep and not self.memory_is_output:
                    saved.memories.append(memory)
        return saved, memory

    def backward(
        self, saved: Saved, d_outputs: Tensor | None, d_states: tuple[Tensor | None, ...], wanted: set[str]
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """The gradients of x and of the states before the first step; those of weights are left in `d_weights`.

        Args:
            saved: what `forward` gave.
            d_outputs, d_states: the gradients of what went out, each None or in the shape of `torch.autograd`.
            wanted: which gradients: ``x``, ``states`` (all or none), and weights by name.
        """
        self.wanted, self.d_weights = wanted, {}
        d_memory = self.rows_of_state(d_states[-1])
        from_next = d_states[0] if len(d_states) == 2 else None
        d_x = self.buffer(self.way.steps, self.width) if self.wants("x") else None
        for chunk in reversed(self.chunks()):
            parts = []
            for step in reversed(chunk):
                dh = self._sum_of(None if d_outputs is None else d_outputs[:, step], from_next)
                kept = saved.kept[step]
                if kept is None:
                    kept = self.keep_again(step, self._h(saved, step), self.memory(saved, step))
                assert kept is not None
                saved.kept[step], further = None, step > 0 or self.wants("states")
                part, from_next, d_memory = self.step_back(step, kept, saved, dh, d_memory, further=further)
                parts.append(part)
            columns = [c[0] if len(c) == 1 else torch.cat(c[::-1]) for c in zip(*parts, strict=True)]
            del parts
            d_mapped = self.weigh(chunk, columns, saved.outputs)
            if d_x is not None and d_mapped is not None:
                d_x[chunk.start : chunk.stop].flatten(0, 1).copy_(self.of_input.back(d_mapped))
        if len(d_states) == 2:
            d_first = [from_next, self.field(d_memory)]
        else:
            d_first = [self.field(self._sum_of(from_next, None).add_(d_memory))]
        return None if d_x is None else d_x.transpose(0, 1), d_first

    def wants(self, *names: str) -> bool:
        """Whether the gradient of one of these is wanted."""
        return not self.wanted.isdisjoint(names)

    def wants_map(self, *names: str) -> bool:
        """Whether the gradient of the weight or bias of one of these maps is wanted."""
        return self.wants(*(f"{n}.weight" for n in names), *(f"{n}.bias" for n in names))

    def add(self, name: str, part: Tensor) -> None:
        """Add to the gradient of a weight, if it is wanted."""
        if name in self.wanted:
            part = part.to(self.way.state_dtype)
            self.d_weights[name] = self.d_weights[name].add_(part) if name in self.d_weights else part

    def add_map(self, map_: maps.Map, x: Tensor, d: Tensor, *names: str) -> None:
        """Add to the gradients of the weight and bias of ``names``, which are stacked in ``map_``."""
        if not self.wants_map(*names):
            return
        d_weight, d_bias = map_.gradients(x, d)
        sizes = [self.weights[f"{n}.weight"].shape[0] for n in names]
        for name, of_weight, of_bias in zip(names, d_weight.split(sizes), d_bias.split(sizes), strict=True):
            self.add(f"{name}.weight", of_weight)
            self.add(f"{name}.bias", of_bias)

    def memory(self, saved: Saved, step: int) -> Tensor:
        """The memory before a step, as rows."""
        if step and self.memory_is_output:
            return self.rows_of_state(saved.outputs[step - 1])
        return saved.memories[step]

    def rows_of_state(self, state: Tensor | None) -> Tensor:
        """A field as rows in the dtype of states, copied (kernels want memory that starts at 0); None: zeros."""
        field = self.buffer(1, self.channels, self.way.state_dtype)[0]
        return self.rows(field.zero_() if state is None else field.copy_(state.detach()))

    def rows(self, field: Tensor) -> Tensor:
        """A field as rows for kernels; a view where memory is channels-last."""
        rows = maps.rows(field)
        return rows.unflatten(0, (self.samples, -1)) if self.samples else rows

    def field(self, rows: Tensor) -> Tensor:
        """Rows as a field ``(batch, channel, *space)``."""
        return rows.reshape(self.batch, *self.space, rows.shape[-1]).movedim(-1, 1)

    def buffer(self, steps: int, channels: int, dtype: torch.dtype | None = None) -> Tensor:
        """Memory for fields ``(steps, batch, channel, *space)``: time outermost, channels innermost."""
        shape = (steps, self.batch, *self.space, channels)
        return torch.empty(shape, dtype=dtype or self.way.dtype, device=self.device).movedim(-1, 2)

    def chunks(self) -> list[range]:
        """The steps in pieces, each with what goes into its gates below `CHUNK` bytes; on a GPU all in one."""
        size = steps = self.way.steps
        if self.device.type == "cpu":
            size = max(1, min(size, CHUNK // (4 * self.size * self.way.dtype.itemsize)))
        return [range(first, min(first + size, steps)) for first in range(0, steps, size)]

    def frames(self, chunk: range) -> Tensor:
        """x_t for all steps of a chunk, ``(time, batch, channel, *space)``."""
        assert self.x is not None
        x = self.x[:, chunk.start : chunk.stop].transpose(0, 1)
        return self.buffer(len(chunk), self.width).copy_(x)

    def before(self, chunk: range, outputs: Tensor) -> Tensor:
        """h_{t-1} for all steps of a chunk, ``(time, batch, channel, *space)``."""
        if chunk.start:
            return outputs[chunk.start - 1 : chunk.stop - 1]
        h = self.buffer(len(chunk), self.channels)
        h[0].zero_() if self.start is None else h[0].copy_(self.start)
        h[1:].copy_(outputs[: chunk.stop - 1])
        return h

    def gates(self, kernel: Kernel, *arguments: Any) -> tuple[Any, ...]:
        """``kernel`` of rows: compiled, or operator by operator on one tile after the other."""
        if self.way.compiled:
            return tuple(kernel.compiled(*arguments))
        if self.device.type != "cpu":
            return tuple(kernel.plain(*arguments))
        rows = self.samples or self.size // self.channels
        return kernel.tiled(max(1, TILE * rows // self.size), rows, *arguments, whole=self.whole)

    def _h(self, saved: Saved, step: int) -> Tensor | None:
        return saved.outputs[step - 1] if step else self.start

    def _sum_of(self, *parts: Tensor | None) -> Tensor:
        """The sum of fields as rows in the dtype of states, in memory of its own."""
        total = self.rows_of_state(parts[0])
        return total if parts[1] is None else total.add_(self.rows(parts[1]))
