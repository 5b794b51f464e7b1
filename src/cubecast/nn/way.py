"""How the fused engine computes a sequence."""

from __future__ import annotations

from dataclasses import dataclass

import torch


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
        """Of the memory and of all arithmetic in gates."""
        return torch.float32 if self.dtype.itemsize < 4 else self.dtype
