"""The convolutional LSTM of Shi et al. (2015)."""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import nn

from cubecast.errors import UsageError
from cubecast.nn.cell import Cell, initialise, padding_of
from cubecast.shapes import Hidden, Instant, State


@final
class ConvLSTMCell(Cell):
    """ConvLSTM cell for fields ``(batch, channel, y, x)``; ``*`` is a convolution, zero outside the grid.

        i_t = sigmoid(W_i * [x_t, h_{t-1}] + V_i c_{t-1} + b_i)          input gate
        f_t = sigmoid(W_f * [x_t, h_{t-1}] + V_f c_{t-1} + b_f)          forget gate
        g_t = tanh(W_g * [x_t, h_{t-1}] + b_g)                           cell gate
        c_t = f_t c_{t-1} + i_t g_t
        o_t = sigmoid(W_o * [x_t, h_{t-1}] + V_o c_t + b_o)              output gate
        h_t = o_t tanh(c_t)

    The four gates are stacked in the order i, f, g, o in one convolution. The peepholes V (in the order i, f, o in
    ``peepholes``) are learned weights that multiply element by element: one a channel, one a channel and pixel (as
    in the paper; such a cell works on ``grid`` only), or none. They start at zero, that is without effect. b_f
    starts at 1 as in `cubecast.nn.lstm.LSTMCell`, which this cell equals on a 1 x 1 grid with a 1 x 1 kernel.

    Source: Shi et al. (2015), DOI 10.48550/arXiv.1506.04214.
    """

    state_size = 2

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        *,
        kernel_size: int = 3,
        peephole: Literal["none", "channel", "pixel"] = "none",
        grid: tuple[int, int] | None = None,
        forget_bias: float = 1.0,
    ) -> None:
        super().__init__(in_channels, hidden_channels)
        if (peephole == "pixel") != (grid is not None):
            raise UsageError(
                "grid of ConvLSTMCell",
                found=f"{grid} with peephole={peephole!r}",
                remedy="give grid=(y, x) exactly when peephole is 'pixel'",
            )
        self.grid = grid
        self.conv = nn.Conv2d(
            in_channels + hidden_channels, 4 * hidden_channels, kernel_size, padding=padding_of(kernel_size)
        )
        initialise(self.conv.weight, in_channels=in_channels, gates=4)
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)
        nn.init.constant_(self.conv.bias[hidden_channels : 2 * hidden_channels], forget_bias)
        self.peepholes: nn.Parameter | None = None
        if peephole != "none":
            self.peepholes = nn.Parameter(torch.zeros(3, hidden_channels, *(grid or (1, 1))))

    @property
    def reach(self) -> int:
        """See `Cell.reach`."""
        return self.conv.kernel_size[0] // 2

    def forward(self, x: Instant | None, state: State) -> tuple[Hidden, State]:
        """One step; ``state`` is (h, c).

        Raises:
            UsageError: another number of channels, or another grid than that of per-pixel peepholes.
        """
        hidden, cell = state
        i, f, g, o = self.conv(self.join(x, hidden)).chunk(4, dim=1)
        if self.peepholes is not None:
            self.check_grid(cell.shape[2:])
            i, f = i + self.peepholes[0] * cell, f + self.peepholes[1] * cell
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        if self.peepholes is not None:
            o = o + self.peepholes[2] * cell
        hidden = torch.sigmoid(o) * torch.tanh(cell)
        return hidden, (hidden, cell)

    def check_grid(self, grid: torch.Size) -> None:
        """Refuse another grid than that of per-pixel peepholes.

        Raises:
            UsageError: another size.
        """
        if self.grid is not None and grid != self.grid:
            raise UsageError("per-pixel peepholes", found=f"grid {tuple(grid)}", allowed=f"{self.grid}")
