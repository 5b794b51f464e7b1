"""Gates of the recurrent cells and their gradients: pure arithmetic on rows, to be compiled into one kernel each.

A row is one pixel (or one point) of one sample, with its channels side by side: a field in channels-last memory is
``(batch * y * x, channel)`` without a copy. With per-pixel peepholes rows are ``(batch, y * x, channel)``. Arithmetic
is in the dtype of the states (float32 under autocast); ``before``, h_t and the gradients of what the
maps gave have the dtype of the maps.
"""

from __future__ import annotations

import torch
from torch import Tensor


def lstm(before: Tensor, cell: Tensor, peepholes: Tensor | None) -> tuple[Tensor, Tensor]:
    """One step of `cubecast.nn.lstm.LSTMCell` and `cubecast.nn.conv_lstm.ConvLSTMCell` after the map.

    Args:
        before: what the map gave, i, f, g and o side by side.
        cell: c_{t-1}.
        peepholes: (i, f, o), each with the shape of a row (or of all rows of a sample).

    Returns:
        h_t and c_t.
    """
    dtype = before.dtype
    i, f, g, o = before.to(cell.dtype).chunk(4, dim=-1)
    if peepholes is not None:
        i, f = i + peepholes[0] * cell, f + peepholes[1] * cell
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    if peepholes is not None:
        o = o + peepholes[2] * cell
    return (torch.sigmoid(o) * torch.tanh(cell)).to(dtype), cell


def lstm_gradient(
    before: Tensor, cells: tuple[Tensor, Tensor], peepholes: Tensor | None, dh: Tensor, d_cell: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradient of `lstm`; with s' = s (1 - s) for a sigmoid s and 1 - g^2 for the tanh g

        do = dh tanh(c_t) o'                     dc = dc_t + dh o (1 - tanh(c_t)^2) + V_o do
        di = dc g i',  df = dc c_{t-1} f',  dg = dc i g'
        dc_{t-1} = dc f + V_i di + V_f df

    Args:
        before: as in `lstm`.
        cells: (c_{t-1}, c_t).
        peepholes: as in `lstm`.
        dh: dh_t.
        d_cell: dc_t.

    Returns:
        di, df, dg and do side by side, and dc_{t-1}.
    """
    old, new = cells
    i, f, g, o = before.to(new.dtype).chunk(4, dim=-1)
    if peepholes is not None:
        i, f, o = i + peepholes[0] * old, f + peepholes[1] * old, o + peepholes[2] * new
    i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
    bent = torch.tanh(new)
    do = dh * bent * o * (1 - o)
    dc = d_cell + dh * o * (1 - bent * bent)
    if peepholes is not None:
        dc = dc + peepholes[2] * do
    di, df, dg = dc * g * i * (1 - i), dc * old * f * (1 - f), dc * i * (1 - g * g)
    dc = dc * f
    if peepholes is not None:
        dc = dc + peepholes[0] * di + peepholes[1] * df
    return torch.cat([di, df, dg, do], dim=-1).to(before.dtype), dc
