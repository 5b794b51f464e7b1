"""The convolutional GRU of Ballas et al. (2016) and Shi et al. (2017), in both conventions of the reset gate."""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import nn

from cubecast.nn.cell import Cell, initialise, padding_of
from cubecast.shapes import Hidden, Instant, State


@final
class ConvGRUCell(Cell):
    """ConvGRU cell for fields ``(batch, channel, y, x)``; ``*`` is a convolution, zero outside the grid.

        r_t = sigmoid(W_r * x_t + U_r * h_{t-1} + b_r)                   reset gate
        z_t = sigmoid(W_z * x_t + U_z * h_{t-1} + b_z)                   update gate
        n_t = tanh(W_n * x_t + b_n + U_n * (r_t h_{t-1}))                ``reset="before"`` (Ballas et al. 2016)
        n_t = tanh(W_n * x_t + b_n + r_t (U_n * h_{t-1} + b_u))          ``reset="after"`` (Shi et al. 2017)
        h_t = (1 - z_t) n_t + z_t h_{t-1}

    ``input`` holds W_r, W_z, W_n in one convolution, ``gates`` U_r and U_z, ``candidate`` U_n. Without an input
    (``in_channels=0``) there is no ``input``, and the two others carry the biases. Shi et al. use a leaky ReLU
    where this cell has the tanh. On a 1 x 1 grid with a 1 x 1 kernel it equals `cubecast.nn.gru.GRUCell`.

    Sources: Ballas et al. (2016), DOI 10.48550/arXiv.1511.06432; Shi et al. (2017), DOI 10.48550/arXiv.1706.03458.
    """

    state_size = 1

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        *,
        kernel_size: int = 3,
        reset: Literal["after", "before"] = "after",
    ) -> None:
        super().__init__(in_channels, hidden_channels)
        self.reset = reset
        pad = padding_of(kernel_size)
        alone = in_channels == 0
        self.input = None if alone else nn.Conv2d(in_channels, 3 * hidden_channels, kernel_size, padding=pad)
        self.gates = nn.Conv2d(hidden_channels, 2 * hidden_channels, kernel_size, padding=pad, bias=alone)
        self.candidate = nn.Conv2d(
            hidden_channels, hidden_channels, kernel_size, padding=pad, bias=alone or reset == "after"
        )
        for conv, gates in ((self.input, 3), (self.gates, 2), (self.candidate, 1)):
            if conv is not None:
                initialise(conv.weight, in_channels=in_channels if conv is self.input else 0, gates=gates)
                if conv.bias is not None:
                    nn.init.zeros_(conv.bias)

    @property
    def reach(self) -> int:
        """See `Cell.reach`; a reset gate that comes before a convolution looks once more."""
        return self.candidate.kernel_size[0] // 2 * (2 if self.reset == "before" else 1)

    def forward(self, x: Instant | None, state: State) -> tuple[Hidden, State]:
        """One step; ``state`` is (h,)."""
        self.check(x)
        (hidden,) = state
        gates, x_n = self.gates(hidden), None
        if self.input is not None:
            x_gates, x_n = self.input(x).tensor_split([2 * self.hidden_channels], dim=1)
            gates = gates + x_gates
        r, z = torch.sigmoid(gates).chunk(2, dim=1)
        n = self.candidate(r * hidden) if self.reset == "before" else r * self.candidate(hidden)
        n = torch.tanh(n if x_n is None else n + x_n)
        hidden = (1 - z) * n + z * hidden
        return hidden, (hidden,)
