"""Between the layers of a forecaster: to the grid of the coarser one, and back; in the end to the head."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def downscale(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """A strided convolution and a leaky ReLU; nothing with stride 1."""
    if stride == 1:
        return nn.Identity()
    half = stride // 2
    conv = nn.Conv2d(in_channels, out_channels, 2 * half + 1, stride=stride, padding=half)
    return nn.Sequential(conv, nn.LeakyReLU(0.2))


def upscale(channels: int, stride: int) -> nn.Module:
    """Its counterpart: nearest-neighbour resize, a convolution and a leaky ReLU; nothing with stride 1."""
    if stride == 1:
        return nn.Identity()
    conv = nn.Conv2d(channels, channels, 3, padding=1)
    return nn.Sequential(nn.Upsample(scale_factor=stride, mode="nearest"), conv, nn.LeakyReLU(0.2))


def each_frame(function: Callable[[Tensor], Tensor], sequence: Tensor) -> Tensor:
    """``function`` of fields, applied to all times at once, in the order in which they lie in memory."""
    if isinstance(function, nn.Identity):
        return sequence
    if sequence.stride(0) < sequence.stride(1):  # the fused engine has time outermost: no copy
        return each_frame(function, sequence.transpose(0, 1)).transpose(0, 1)
    return function(sequence.flatten(0, 1)).unflatten(0, sequence.shape[:2])


def of_points(head: nn.Module, states: Tensor) -> Tensor:
    """What a head says of each point: each field on its own in memory, in float32 or more."""
    said = head(states.contiguous(memory_format=torch.channels_last))  # several times as fast on a CPU
    return said.to(torch.promote_types(said.dtype, torch.float32), memory_format=torch.contiguous_format)
