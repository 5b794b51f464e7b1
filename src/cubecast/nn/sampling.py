"""Fields between their pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sample(fields: Tensor, points: Tensor, *, beyond: str = "zeros") -> Tensor:
    """Fields (batch, channel, y, x) at points (batch, to_y, to_x, 2), bilinear; ``beyond`` the grid 0, its "border", or
    its "reflection".

    Threads of a CPU share out the samples of a batch, and here the rows of a single one.
    """
    rows, threads = points.shape[1], torch.get_num_threads() if fields.device.type == "cpu" else 1
    if len(fields) > 1 or not 1 < threads <= rows:
        return F.grid_sample(fields, points, padding_mode=beyond, align_corners=True)
    step = rows // threads
    # Pieces of the same size, so that all but the last may know some rows of the next.
    pieces = points[0].unfold(0, rows - step * (threads - 1), step).movedim(-1, 1)
    found = F.grid_sample(fields.expand(threads, -1, -1, -1), pieces, padding_mode=beyond, align_corners=True)
    return torch.cat([*found[:-1, :, :step], found[-1]], dim=1)[None]
