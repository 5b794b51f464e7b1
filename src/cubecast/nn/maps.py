"""The linear maps inside recurrent cells (convolutions of odd size and stride 1, or dense) and their gradients."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def apply(weight: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """``weight * x + bias`` for fields ``(batch, channel, y, x)``, ``weight x + bias`` for vectors."""
    if weight.ndim == 2:
        return F.linear(x, weight, bias)
    return F.conv2d(x, weight, bias, padding=(weight.shape[2] // 2, weight.shape[3] // 2))


def transposed(weight: Tensor) -> Tensor:
    """The weight of the map that takes gradients back: ``apply(transposed(weight), d)`` is the gradient of x."""
    if weight.ndim == 2:
        return weight.t()
    return weight.transpose(0, 1).flip(2, 3).contiguous(memory_format=torch.channels_last)


def weight_gradient(weight: Tensor, x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of weight and bias, summed over the batch; ``d``: the gradient of what `apply` gave."""
    if weight.ndim == 2:
        return d.t() @ x, d.sum(0)
    padding = [weight.shape[2] // 2, weight.shape[3] // 2]
    _, d_weight, d_bias = torch.ops.aten.convolution_backward(
        d, x, weight, [weight.shape[0]], [1, 1], padding, [1, 1], False, [0, 0], 1, [False, True, True]
    )
    return d_weight, d_bias


def cast(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """``weight`` in ``dtype``, and in the memory order that convolutions of channels-last fields want."""
    weight = weight.detach()
    return weight.to(dtype, memory_format=torch.channels_last) if weight.ndim == 4 else weight.to(dtype)


def rows(field: Tensor) -> Tensor:
    """``(batch, channel, *space)`` as ``(batch * space, channel)``; a view where memory is channels-last."""
    return field.movedim(1, -1).reshape(-1, field.shape[1])
