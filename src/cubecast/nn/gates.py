"""Gates of the recurrent cells and their gradients: pure arithmetic on rows, to be compiled into one kernel each.

A row is one pixel (or one point) of one sample, with its channels side by side: a field in channels-last memory is
``(batch * y * x, channel)`` without a copy. With per-pixel peepholes rows are ``(batch, y * x, channel)``. Arithmetic
is in the dtype of the states (float32 under autocast); ``before``, h_t and the gradients of what the
maps gave have the dtype of the maps. tanh x is computed as 2 sigmoid(2 x) - 1: in float32 right to 2e-7, and in a third
of the time that torch takes for it on a CPU. (No function of its own: Dynamo warns where it inlines one.)
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
    i, f, g, o = (part.to(cell.dtype) for part in before.chunk(4, dim=-1))  # each contiguous, where dtypes differ
    if peepholes is not None:
        i, f = i + peepholes[0] * cell, f + peepholes[1] * cell
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * (2 * torch.sigmoid(2 * g) - 1)
    if peepholes is not None:
        o = o + peepholes[2] * cell
    return (torch.sigmoid(o) * (2 * torch.sigmoid(2 * cell) - 1)).to(dtype), cell


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
    i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), 2 * torch.sigmoid(2 * g) - 1, torch.sigmoid(o)
    bent = 2 * torch.sigmoid(2 * new) - 1
    do = dh * bent * o * (1 - o)
    dc = d_cell + dh * o * (1 - bent * bent)
    if peepholes is not None:
        dc = dc + peepholes[2] * do
    di, df, dg = dc * g * i * (1 - i), dc * old * f * (1 - f), dc * i * (1 - g * g)
    dc = dc * f
    if peepholes is not None:
        dc = dc + peepholes[0] * di + peepholes[1] * df
    return torch.cat([di, df, dg, do], dim=-1).to(before.dtype), dc


def gru_after(x: Tensor | None, h: Tensor, hidden: Tensor, keep: bool) -> tuple[Tensor, Tensor | None]:
    """One step of `cubecast.nn.gru.GRUCell` and `cubecast.nn.conv_gru.ConvGRUCell` with ``reset="after"``

        r = sigmoid(x_r + h_r),  z = sigmoid(x_z + h_z),  n = tanh(x_n + r u),  h_t = (1 - z) n + z h_{t-1}

    Args:
        x: what the map of x_t gave, x_r, x_z and x_n side by side; None: no input.
        h: what the maps of h_{t-1} gave, h_r, h_z and u.
        hidden: h_{t-1}.
        keep: whether the second result is wanted.

    Returns:
        h_t, and r, z, n and u side by side.
    """
    r, z, u = h.to(hidden.dtype).chunk(3, dim=-1)
    n = None
    if x is not None:
        x_r, x_z, n = x.to(hidden.dtype).chunk(3, dim=-1)
        r, z = r + x_r, z + x_z
    r, z = torch.sigmoid(r), torch.sigmoid(z)
    n = 2 * torch.sigmoid(2 * (r * u if n is None else n + r * u)) - 1
    kept = torch.cat([r, z, n, u], dim=-1).to(h.dtype) if keep else None
    return (1 - z) * n + z * hidden, kept


def gru_after_gradient(kept: Tensor, hidden: Tensor, dh: Tensor, d_hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of `gru_after`; with d the whole gradient of h_t

        dn = d (1 - z) (1 - n^2)          du = dn r
        dr = dn u r (1 - r)               dz = d (h_{t-1} - n) z (1 - z)
        dh_{t-1} = d z + the maps of h taken back from (dr, dz, du)

    (dr, dz, dn) are what the map of x is taken back from: dr stands for the gradient of x_r + h_r, and so on.

    Args:
        kept: as `gru_after` gave it.
        hidden: h_{t-1}.
        dh, d_hidden: two parts of d.

    Returns:
        dr, dz and du side by side, dn, and d z.
    """
    dtype = kept.dtype
    r, z, n, u = kept.to(hidden.dtype).chunk(4, dim=-1)
    d = dh + d_hidden
    dn, dz = d * (1 - z) * (1 - n * n), d * (hidden - n) * z * (1 - z)
    dr = dn * u * r * (1 - r)
    return torch.cat([dr, dz, dn * r], dim=-1).to(dtype), dn.to(dtype), d * z


def gru_reset(x: Tensor | None, h: Tensor, hidden: Tensor) -> tuple[Tensor]:
    """What U_n takes with ``reset="before"``: r h_{t-1}, with r = sigmoid(x_r + h_r); arguments as in `gru_before`."""
    r = h.to(hidden.dtype).chunk(2, dim=-1)[0]
    if x is not None:
        r = r + x.to(hidden.dtype).chunk(3, dim=-1)[0]
    return ((torch.sigmoid(r) * hidden).to(h.dtype),)


def gru_before(x: Tensor | None, h: Tensor, reset: Tensor, hidden: Tensor, keep: bool) -> tuple[Tensor, Tensor | None]:
    """One step of `cubecast.nn.gru.GRUCell` and `cubecast.nn.conv_gru.ConvGRUCell` with ``reset="before"``

        r = sigmoid(x_r + h_r),  z = sigmoid(x_z + h_z),  n = tanh(x_n + u),  h_t = (1 - z) n + z h_{t-1}

    Args:
        x: what the map of x_t gave, x_r, x_z and x_n side by side; None: no input.
        h: what the map of h_{t-1} gave, h_r and h_z.
        reset: u, what the map of r h_{t-1} gave.
        hidden: h_{t-1}.
        keep: whether the second result is wanted.

    Returns:
        h_t, and r, z and n side by side.
    """
    r, z = h.to(hidden.dtype).chunk(2, dim=-1)
    n = reset.to(hidden.dtype)
    if x is not None:
        x_r, x_z, x_n = x.to(hidden.dtype).chunk(3, dim=-1)
        r, z, n = r + x_r, z + x_z, n + x_n
    z, n = torch.sigmoid(z), 2 * torch.sigmoid(2 * n) - 1
    kept = torch.cat([torch.sigmoid(r), z, n], dim=-1).to(h.dtype) if keep else None
    return (1 - z) * n + z * hidden, kept


def gru_candidate_gradient(kept: Tensor, dh: Tensor, d_hidden: Tensor) -> tuple[Tensor]:
    """dn = d (1 - z) (1 - n^2) of `gru_before`, from which U_n is taken back first; arguments as in the next."""
    _, z, n = kept.to(dh.dtype).chunk(3, dim=-1)
    return (((dh + d_hidden) * (1 - z) * (1 - n * n)).to(kept.dtype),)


def gru_before_gradient(
    kept: Tensor, hidden: Tensor, d_reset: Tensor, dh: Tensor, d_hidden: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of `gru_before` and `gru_reset` but dn; with d the whole gradient of h_t

        dr = d_reset h_{t-1} r (1 - r)    dz = d (h_{t-1} - n) z (1 - z)
        dh_{t-1} = d z + d_reset r + the map of h taken back from (dr, dz)

    Args:
        kept: as `gru_before` gave it.
        hidden: h_{t-1}.
        d_reset: the gradient of r h_{t-1}: U_n taken back from dn.
        dh, d_hidden: two parts of d.

    Returns:
        dr and dz side by side, r h_{t-1}, and d z + d_reset r.
    """
    dtype = kept.dtype
    r, z, n = kept.to(hidden.dtype).chunk(3, dim=-1)
    d, d_reset = dh + d_hidden, d_reset.to(hidden.dtype)
    dr, dz = d_reset * hidden * r * (1 - r), d * (hidden - n) * z * (1 - z)
    return torch.cat([dr, dz], dim=-1).to(dtype), (r * hidden).to(dtype), d * z + d_reset * r
