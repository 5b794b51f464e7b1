"""How large a network is, and how much it computes."""

from __future__ import annotations

import copy
import weakref
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from cubecast.nn.members import draw_noise
from cubecast.nn.recurrent import choose_engine


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


def count_bytes(
    network: nn.Module, frames_shape: tuple[int, int, int, int, int], horizon: int, *, members: int, **how: Any
) -> int:
    """The most bytes of tensors that are alive at one time in a forecast, its input included.

    Weights are not counted, nor what a convolution needs for itself. The forecast is made, on the CPU by the reference
    engine: bytes grow with the pixels, so a few of them will do.

    Args:
        network, frames_shape, horizon: as in `count_multiply_adds`.
        members: of a network with noise.
        how: further arguments of its ``draw_noise``.
    """
    twin = copy.deepcopy(network).cpu()
    choose_engine(twin, "reference")
    with torch.no_grad(), _Alive() as alive:
        frames = torch.zeros(frames_shape)
        noise = draw_noise(twin, frames, horizon, members=members, seed=0, **how)
        twin(frames, horizon, *([] if noise is None else [noise]))
    return alive.most


class _Alive(TorchDispatchMode):
    """How many bytes the tensors that operators made occupy."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and (storage := tensor.untyped_storage()) not in self._known:
                self._known.add(storage)
                self._count(storage.nbytes())
                weakref.finalize(storage, self._count, -storage.nbytes())
        return out

    def _count(self, size: int) -> None:
        self.now += size
        self.most = max(self.most, self.now)
