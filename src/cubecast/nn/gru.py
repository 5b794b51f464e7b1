"""The gated recurrent unit of Cho et al. (2014), in both conventions of the reset gate."""

from typing import Literal, final

import torch
from torch import nn

from cubecast.nn.cell import Cell, initialise
from cubecast.shapes import Hidden, Instant, State


@final
class GRUCell(Cell):
    """GRU cell for vectors ``(batch, channel)``.

        r_t = sigmoid(W_r x_t + U_r h_{t-1} + b_r)                       reset gate
        z_t = sigmoid(W_z x_t + U_z h_{t-1} + b_z)                       update gate
        n_t = tanh(W_n x_t + b_n + U_n (r_t h_{t-1}))                    ``reset="before"`` (Cho et al. 2014)
        n_t = tanh(W_n x_t + b_n + r_t (U_n h_{t-1} + b_u))              ``reset="after"`` (cuDNN, torch.nn)
        h_t = (1 - z_t) n_t + z_t h_{t-1}

    b_r starts at ``gate_bias`` and b_z at minus that: a new cell passes its whole state through U_n, which starts
    orthogonal, and forgets gently; with open update gates it would average over time, which trains less well on
    short noisy series. These are start values, so weights carry over from ``torch.nn.GRU`` unchanged.

    ``input`` holds W_r, W_z, W_n in one map, ``gates`` U_r and U_z, ``candidate`` U_n (and b_u).
    ``torch.nn.GRU`` weights, with n rows a gate: ``input.weight = weight_ih``,
    ``input.bias = bias_ih + cat([bias_hh[:2n], 0])``, ``gates.weight = weight_hh[:2n]``,
    ``candidate.weight = weight_hh[2n:]``, ``candidate.bias = bias_hh[2n:]``.

    Source: Cho et al. (2014), DOI 10.3115/v1/D14-1179.
    """

    state_size = 1

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        *,
        reset: Literal["after", "before"] = "after",
        gate_bias: float = 2.0,
    ) -> None:
        super().__init__(in_channels, hidden_channels)
        self.reset = reset
        self.input = nn.Linear(in_channels, 3 * hidden_channels)
        self.gates = nn.Linear(hidden_channels, 2 * hidden_channels, bias=False)
        self.candidate = nn.Linear(hidden_channels, hidden_channels, bias=reset == "after")
        initialise(self.input.weight, in_channels=in_channels, gates=3)
        initialise(self.gates.weight, in_channels=0, gates=2)
        initialise(self.candidate.weight, in_channels=0, gates=1)
        for bias in (self.input.bias, self.candidate.bias):
            if bias is not None:
                nn.init.zeros_(bias)
        nn.init.constant_(self.input.bias[:hidden_channels], gate_bias)
        nn.init.constant_(self.input.bias[hidden_channels : 2 * hidden_channels], -gate_bias)

    def forward(self, x: Instant | None, state: State) -> tuple[Hidden, State]:
        """One step; ``state`` is (h,)."""
        self.check(x)
        (hidden,) = state
        x_r, x_z, x_n = self.input(x).chunk(3, dim=1)
        h_r, h_z = self.gates(hidden).chunk(2, dim=1)
        r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
        if self.reset == "before":
            n = torch.tanh(x_n + self.candidate(r * hidden))
        else:
            n = torch.tanh(x_n + r * self.candidate(hidden))
        hidden = (1 - z) * n + z * hidden
        return hidden, (hidden,)
