"""The LSTM of Hochreiter & Schmidhuber (1997) with the forget gate of Gers et al. (2000)."""

from typing import final

import torch
from torch import nn

from cubecast.nn.cell import Cell, initialise
from cubecast.shapes import Hidden, Instant, State


@final
class LSTMCell(Cell):
    """LSTM cell for vectors ``(batch, channel)``.

        i_t = sigmoid(W_i [x_t, h_{t-1}] + b_i)          input gate
        f_t = sigmoid(W_f [x_t, h_{t-1}] + b_f)          forget gate
        g_t = tanh(W_g [x_t, h_{t-1}] + b_g)             cell gate
        o_t = sigmoid(W_o [x_t, h_{t-1}] + b_o)          output gate
        c_t = f_t c_{t-1} + i_t g_t
        h_t = o_t tanh(c_t)

    The four gates are stacked in this order in one linear map. b_f starts at ``forget_bias``: a new cell remembers
    (Jozefowicz et al. 2015, https://proceedings.mlr.press/v37/jozefowicz15.html). It is a start value in the bias
    itself, not a constant added at each step, so weights carry over from ``torch.nn.LSTM`` unchanged:
    ``linear.weight = cat([weight_ih, weight_hh], 1)``, ``linear.bias = bias_ih + bias_hh``.

    Sources: Hochreiter & Schmidhuber (1997), DOI 10.1162/neco.1997.9.8.1735; Gers, Schmidhuber & Cummins (2000),
    DOI 10.1162/089976600300015015.
    """

    state_size = 2

    def __init__(self, in_channels: int, hidden_channels: int, *, forget_bias: float = 1.0) -> None:
        super().__init__(in_channels, hidden_channels)
        self.linear = nn.Linear(in_channels + hidden_channels, 4 * hidden_channels)
        initialise(self.linear.weight, in_channels=in_channels, gates=4)
        nn.init.zeros_(self.linear.bias)
        nn.init.constant_(self.linear.bias[hidden_channels : 2 * hidden_channels], forget_bias)

    def forward(self, x: Instant | None, state: State) -> tuple[Hidden, State]:
        """One step; ``state`` is (h, c)."""
        hidden, cell = state
        i, f, g, o = self.linear(self.join(x, hidden)).chunk(4, dim=1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        hidden = torch.sigmoid(o) * torch.tanh(cell)
        return hidden, (hidden, cell)
