"""A sequence of (Conv)GRU steps: x has a map of its own, h one or two; the memory is h in the dtype of states."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from cubecast.nn.cell import Cell
from cubecast.nn.compiled import Kernel
from cubecast.nn.gates import (
    gru_after,
    gru_after_gradient,
    gru_before,
    gru_before_gradient,
    gru_candidate_gradient,
    gru_reset,
)
from cubecast.nn.maps import Map, cast
from cubecast.nn.sequence import FusedSequence, Saved

_AFTER, _AFTER_GRADIENT = Kernel(gru_after), Kernel(gru_after_gradient)
_RESET, _BEFORE = Kernel(gru_reset), Kernel(gru_before)
_CANDIDATE_GRADIENT, _BEFORE_GRADIENT = Kernel(gru_candidate_gradient), Kernel(gru_before_gradient)


@final
class GRUSequence(FusedSequence):
    """`cubecast.nn.conv_gru.ConvGRUCell` and `cubecast.nn.gru.GRUCell`; kept are the values of the gates.

    With ``reset="after"`` no map waits for a gate: U_r, U_z and U_n are one. With ``before`` U_n waits for r.
    """

    def prepare(self, cell: Cell) -> None:
        """See `FusedSequence.prepare`."""
        if self.x is not None:
            self.of_input = Map(self.weights["input.weight"], self.weights.get("input.bias"), self.way.dtype)
        self.reset_before = cell.reset == "before"
        self.stacked = ("gates",) if self.reset_before else ("gates", "candidate")
        self.of_hidden = self._stack(*self.stacked)
        self.of_reset = self._stack("candidate")

    def step(
        self, step: int, mapped: Tensor | None, h: Tensor | None, memory: Tensor, *, keep: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """See `FusedSequence.step`."""
        if mapped is None and self.x is not None:
            mapped = self.of_input(cast(self.x[:, step], self.way.dtype))
        x = None if mapped is None else self.rows(mapped)
        of_h = self._rows_of(self.of_hidden, h)
        if self.reset_before:
            (reset,) = self.gates(_RESET, x, of_h, memory)
            of_reset = self._rows_of(self.of_reset, None if h is None else self.field(reset))
            new, kept = self.gates(_BEFORE, x, of_h, of_reset, memory, keep)
        else:
            new, kept = self.gates(_AFTER, x, of_h, memory, keep)
        return new, new, kept

    def step_back(
        self, step: int, kept: Tensor, saved: Saved, dh: Tensor, d_memory: Tensor, *, further: bool
    ) -> tuple[tuple[Tensor, ...], Tensor | None, Tensor]:
        """See `FusedSequence.step_back`; `weigh` gets (dr, dz, du) and dn, or (dr, dz), dn and r h."""
        h = self.memory(saved, step)
        if self.reset_before:
            (dn,) = self.gates(_CANDIDATE_GRADIENT, kept, dh, d_memory)
            d_reset = self.rows(self.of_reset.back(self.field(dn)))
            d_maps, reset, d_memory = self.gates(_BEFORE_GRADIENT, kept, h, d_reset, dh, d_memory)
            parts = tuple(self.field(rows) for rows in (d_maps, dn, reset))
        else:
            d_maps, dn, d_memory = self.gates(_AFTER_GRADIENT, kept, h, dh, d_memory)
            parts = (self.field(d_maps), self.field(dn))
        return parts, self.of_hidden.back(parts[0]) if further else None, d_memory

    def weigh(self, chunk: range, parts: list[Tensor], outputs: Tensor) -> Tensor | None:
        """See `FusedSequence.weigh`."""
        d_maps, dn, *reset = parts
        if self.wants_map(*self.stacked):
            self.add_map(self.of_hidden, self.before(chunk, outputs).flatten(0, 1), d_maps, *self.stacked)
        if reset:
            self.add_map(self.of_reset, reset[0], dn, "candidate")
        if self.x is None or not (self.wants("x") or self.wants_map("input")):
            return None
        d = self.buffer(len(chunk), 3 * self.channels).flatten(0, 1)
        d[:, : 2 * self.channels].copy_(d_maps[:, : 2 * self.channels])
        d[:, 2 * self.channels :].copy_(dn)
        if self.wants_map("input"):
            self.add_map(self.of_input, self.frames(chunk).flatten(0, 1), d, "input")
        return d

    def _stack(self, *names: str) -> Map:
        """Maps of the same input as one."""
        weights = [self.weights[f"{n}.weight"] for n in names]
        biases = [self.weights.get(f"{n}.bias") for n in names]
        if all(b is None for b in biases):
            return Map(torch.cat(weights), None, self.way.dtype)
        filled = [w.new_zeros(w.shape[0]) if b is None else b for w, b in zip(weights, biases, strict=True)]
        return Map(torch.cat(weights), torch.cat(filled), self.way.dtype)

    def _rows_of(self, map_: Map, h: Tensor | None) -> Tensor:
        """What ``map_`` makes of a field (None: of zeros), as rows."""
        if h is not None:
            return self.rows(map_(h))
        rows = self.rows(self.buffer(1, map_.weight.shape[0])[0])
        return rows.zero_() if map_.bias is None else rows.copy_(map_.bias)
