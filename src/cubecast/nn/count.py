"""How large a network is, and how much it computes."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(module: nn.Module) -> int:
    """How many numbers are trained: the elements of all parameters."""
    return sum(p.numel() for p in module.parameters())


def count_multiply_adds(network: nn.Module, frames_shape: tuple[int, int, int, int, int], horizon: int) -> int:
    """Multiply-adds of the convolutions and matrix products in one forward pass.

    A convolution to ``n`` output values with ``c`` input channels and ``k`` kernel elements takes ``n c k``, biases,
    gates and peepholes are not counted (they are below 1 % in all but tiny networks). Papers often call the same
    number "FLOPs"; a FLOP count proper is twice as large. Nothing is computed: the pass runs on a copy without data.

    Args:
        network: called as ``network(frames, horizon)``.
        frames_shape: (batch, time, channel, y, x) of the input.
        horizon: steps to forecast.
    """
    twin = copy.deepcopy(network).to("meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        twin(torch.zeros(frames_shape, device="meta"), horizon)
    return counter.get_total_flops() // 2
