"""What every recurrent cell is: one step, ``cell(x, state) -> (output, state)``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from cubecast.errors import UsageError
from cubecast.shapes import Hidden, Instant, Outputs, Sequence, State


class Cell(nn.Module, ABC):
    """Abstract: one step of a recurrent layer.

    A cell holds its weights and knows nothing of time: `cubecast.nn.recurrent.RecurrentLayer` runs it over a
    sequence. With ``in_channels=0`` it has no input at all and ``x`` is None (nothing is convolved with zeros).
    """

    state_size: ClassVar[int]
    """How many tensors the state has: 1 (hidden,) or 2 (hidden, cell)."""

    def __init__(self, in_channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.hidden_channels = hidden_channels

    def zero_state(self, like: Instant) -> State:
        """The state before the first step: zeros with the batch, space, dtype and device of ``like``."""
        shape = (like.shape[0], self.hidden_channels, *like.shape[2:])
        return tuple(like.new_zeros(shape) for _ in range(self.state_size))

    def join(self, x: Instant | None, hidden: Hidden) -> Tensor:
        """``[x, hidden]`` along channels; ``hidden`` alone for a cell without input."""
        self.check(x)
        return hidden if x is None else torch.cat([x, hidden], dim=1)

    def check(self, x: Instant | None) -> None:
        """Refuse an input that the weights were not made for.

        Raises:
            UsageError: another number of channels.
        """
        found = 0 if x is None else x.shape[1]
        if found != self.in_channels:
            raise UsageError(
                f"input of {type(self).__name__}", found=f"{found} channels", allowed=f"{self.in_channels} channels"
            )

    def run(self, frames: Sequence | None, steps: int, state: State | None = None) -> tuple[Outputs, State]:
        """All steps of a sequence, one after the other: the reference that faster engines are compared with.

        Arguments and results are those of `cubecast.nn.recurrent.RecurrentLayer`, which checks them.
        """
        if state is None:
            assert frames is not None
            state = self.zero_state(frames[:, 0])
        outputs = []
        for step in range(steps):
            output, state = self(None if frames is None else frames[:, step], state)
            outputs.append(output)
        return torch.stack(outputs, dim=1), state

    @property
    def reach(self) -> int | None:
        """How far one step looks, in points of its grid; 0: every point is on its own; None: as far as it learned."""
        return 0

    @abstractmethod
    def forward(self, x: Instant | None, state: State) -> tuple[Hidden, State]:
        """One step: the output (the new hidden state) and the new state."""


def padding_of(kernel_size: int) -> int:
    """Half the width of a convolution's kernel: the padding that keeps the size of the grid.

    Raises:
        UsageError: an even size, which has no middle.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise UsageError("kernel_size", found=kernel_size, allowed="1, 3, 5, ...: an odd number of pixels")
    return kernel_size // 2


def initialise(weight: Tensor, *, in_channels: int, gates: int) -> None:
    """Fill the weight ``(gates * hidden, in_channels + hidden, ...)`` of stacked gates in place.

    For each gate on its own the part that sees the input is uniform after Glorot & Bengio (2010)
    (https://proceedings.mlr.press/v9/glorot10a.html) and the part that sees the hidden state is orthogonal after
    Saxe et al. (2014) (DOI 10.48550/arXiv.1312.6120), so that the state neither dies nor explodes at the start.
    """
    with torch.no_grad():
        for gate in weight.chunk(gates):
            if in_channels:
                nn.init.xavier_uniform_(gate[:, :in_channels])
            if gate.shape[1] > in_channels:
                part = torch.empty_like(gate[:, in_channels:])
                gate[:, in_channels:] = nn.init.orthogonal_(part)
