"""The trajectory GRU of Shi et al. (2017): a ConvGRU whose recurrent connections follow learned flow fields."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cubecast.nn.cell import Cell, initialise, padding_of
from cubecast.shapes import Hidden, Instant, State

FLOW_CHANNELS = 32
"""Of the hidden layer of gamma, as in the paper's appendix."""
FLOW_KERNEL = 5
"""Of both convolutions of gamma."""


@final
class TrajGRUCell(Cell):
    """TrajGRU cell for fields ``(batch, channel, y, x)``; ``*`` is a convolution, zero outside the grid.

        U_t, V_t = gamma(x_t, h_{t-1})                                   L flow fields, in points of the grid
        m_l = warp(h_{t-1}, U_{t,l}, V_{t,l})                            l = 1 ... L
        r_t = sigmoid(W_r * x_t + b_r + sum_l P_r^l m_l + c_r)           reset gate
        z_t = sigmoid(W_z * x_t + b_z + sum_l P_z^l m_l + c_z)           update gate
        n_t = tanh(W_n * x_t + b_n + r_t (sum_l P_n^l m_l + c_n))
        h_t = (1 - z_t) n_t + z_t h_{t-1}

    warp takes at point (i, j) the value at (i + V_ij, j + U_ij), bilinear, zero outside the grid (`warp`). The P are
    1 x 1 convolutions, one for each l. gamma is two convolutions of 5 x 5 with a leaky ReLU between them. A ConvGRU's
    state sees fixed neighbours; here the L places that it sees at each point are learned, and change from step to step.
    With flows of zero it is a `cubecast.nn.conv_gru.ConvGRUCell` (``reset="after"``) whose kernels U are the sum of
    the P in the middle and zero around it. Shi et al. use a leaky ReLU where this cell, as that one, has the tanh.

    ``input`` holds W_r, W_z, W_n in one convolution (there is none with ``in_channels=0``), ``project`` the P, ``flow``
    and ``flows`` are gamma. Positions are float32 at least, also under autocast: in bf16 they would be off by pixels.

    Source: Shi et al. (2017), DOI 10.48550/arXiv.1706.03458, section 3.2, equations 1 and 2.

    Args:
        in_channels, hidden_channels: of x and h; no input: 0.
        kernel_size: of the W.
        links: L.
    """

    state_size = 1

    def __init__(self, in_channels: int, hidden_channels: int, *, kernel_size: int = 3, links: int = 5) -> None:
        super().__init__(in_channels, hidden_channels)
        self.links = links
        gates, pad, half = 3 * hidden_channels, padding_of(kernel_size), padding_of(FLOW_KERNEL)
        self.input = nn.Conv2d(in_channels, gates, kernel_size, padding=pad) if in_channels else None
        self.flow = nn.Conv2d(in_channels + hidden_channels, FLOW_CHANNELS, FLOW_KERNEL, padding=half)
        self.flows = nn.Conv2d(FLOW_CHANNELS, 2 * links, FLOW_KERNEL, padding=half)
        self.project = nn.Conv2d(links * hidden_channels, gates, 1)
        if self.input is not None:
            initialise(self.input.weight, in_channels=in_channels, gates=3)
        initialise(self.project.weight, in_channels=0, gates=3)
        for conv in (self.flow, self.flows):
            nn.init.xavier_uniform_(conv.weight)
        for conv in filter(None, (self.input, self.flow, self.flows, self.project)):
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)

    @property
    def reach(self) -> None:
        """See `Cell.reach`; nothing bounds a flow."""
        return None

    def forward(self, x: Instant | None, state: State) -> tuple[Hidden, State]:
        """One step; ``state`` is (h,)."""
        (hidden,) = state
        flows = self.flows(F.leaky_relu(self.flow(self.join(x, hidden)), 0.2))
        from_state = self.project(warp(hidden, flows.unflatten(1, (self.links, 2))))
        split = [2 * self.hidden_channels]
        gates, n = from_state.tensor_split(split, dim=1)
        x_gates, x_n = (0.0, 0.0) if self.input is None else self.input(x).tensor_split(split, dim=1)
        r, z = torch.sigmoid(gates + x_gates).chunk(2, dim=1)
        hidden = (1 - z) * torch.tanh(r * n + x_n) + z * hidden
        return hidden, (hidden,)


def warp(field: Tensor, flows: Tensor) -> Tensor:
    """A field seen along each of L flow fields, bilinear and differentiable in both (Shi et al. 2017, equation 2).

        out_{l,c,i,j} = sum_mn field_{c,m,n} max(0, 1 - |i + V_{l,i,j} - m|) max(0, 1 - |j + U_{l,i,j} - n|)

    Args:
        field: (batch, channel, y, x).
        flows: (batch, L, 2, y, x), V (along y) before U (along x), in points of the grid.

    Returns:
        (batch, L * channel, y, x): all channels of the first flow, then of the second, and so on; float32 at least.
    """
    dtype = torch.promote_types(field.dtype, torch.float32)
    field, flows, links = field.to(dtype), flows.to(dtype), flows.shape[1]
    v, u = flows.unbind(dim=2)
    ny, nx = field.shape[2:]
    rows = torch.arange(ny, device=field.device, dtype=dtype)[:, None]
    columns = torch.arange(nx, device=field.device, dtype=dtype)
    # grid_sample counts from -1 to 1, from the outer side of the first pixel to that of the last.
    points = torch.stack([(2 * (columns + u) + 1) / nx - 1, (2 * (rows + v) + 1) / ny - 1], dim=-1)
    several = field.repeat_interleave(links, dim=0)
    seen = F.grid_sample(several, points.flatten(0, 1), mode="bilinear", padding_mode="zeros", align_corners=False)
    return seen.unflatten(0, (-1, links)).flatten(1, 2)
