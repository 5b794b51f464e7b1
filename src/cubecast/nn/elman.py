"""The simple recurrent cell of Elman (1990)."""

from typing import final

import torch
from torch import nn

from cubecast.nn.cell import Cell, initialise
from cubecast.shapes import Hidden, Instant, State


@final
class ElmanCell(Cell):
    """Elman cell for vectors ``(batch, channel)``.

        h_t = tanh(W [x_t, h_{t-1}] + b)

    Source: Elman (1990), Finding structure in time, DOI 10.1207/s15516709cog1402_1.

    ``torch.nn.RNN`` weights: ``linear.weight = cat([weight_ih, weight_hh], 1)``, ``linear.bias = bias_ih + bias_hh``.
    """

    state_size = 1

    def __init__(self, in_channels: int, hidden_channels: int) -> None:
        super().__init__(in_channels, hidden_channels)
        self.linear = nn.Linear(in_channels + hidden_channels, hidden_channels)
        initialise(self.linear.weight, in_channels=in_channels, gates=1)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Instant | None, state: State) -> tuple[Hidden, State]:
        """One step; ``state`` is (h,)."""
        hidden = torch.tanh(self.linear(self.join(x, state[0])))
        return hidden, (hidden,)
