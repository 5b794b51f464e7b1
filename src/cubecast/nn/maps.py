"""The linear maps inside recurrent cells (convolutions of odd size and stride 1, or dense) and their gradients."""

from __future__ import annotations

from functools import cached_property
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor


@final
class Map:
    """``weight * x + bias`` for fields ``(batch, channel, y, x)``, ``weight x + bias`` for vectors. No autograd.

    Args:
        weight: ``(out, in, *kernel)``.
        bias: ``(out,)`` or None.
        dtype: what to compute in; weights are cast once.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        self.weight = cast(weight, dtype)
        self.bias = None if bias is None else bias.detach().to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        return _apply(self.weight, x, self.bias)

    def back(self, d: Tensor) -> Tensor:
        """The gradient of x, from ``d``, the gradient of what the map gave: a map once more."""
        return _apply(self._transposed, d, None)

    def gradients(self, x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of weight and bias, summed over the batch."""
        if self.weight.ndim == 2:
            return d.t() @ x, d.sum(0)
        shape = self.weight.shape
        padding = [shape[2] // 2, shape[3] // 2]
        _, d_weight, d_bias = torch.ops.aten.convolution_backward(
            d, x, self.weight, [shape[0]], [1, 1], padding, [1, 1], False, [0, 0], 1, [False, True, True]
        )
        return d_weight, d_bias

    @cached_property
    def _transposed(self) -> Tensor:
        if self.weight.ndim == 2:
            return self.weight.t()
        return self.weight.transpose(0, 1).flip(2, 3).contiguous(memory_format=torch.channels_last)


def cast(field: Tensor, dtype: torch.dtype) -> Tensor:
    """A field or weight in ``dtype``, and in the memory order that convolutions of channels-last fields want."""
    field = field.detach()
    return field.to(dtype, memory_format=torch.channels_last) if field.ndim == 4 else field.to(dtype)


def rows(field: Tensor) -> Tensor:
    """``(batch, channel, *space)`` as ``(batch * space, channel)``; a view where memory is channels-last."""
    return field.movedim(1, -1).reshape(-1, field.shape[1])


def _apply(weight: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
    if weight.ndim == 2:
        return F.linear(x, weight, bias)
    return F.conv2d(x, weight, bias, padding=(weight.shape[2] // 2, weight.shape[3] // 2))
