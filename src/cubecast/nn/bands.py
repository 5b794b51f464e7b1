"""Fields as sums of bands of scale, in a space where means mean something."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from cubecast.shapes import Frames

REACH = 3
"""Where a Gaussian ends, in standard deviations."""


def split_bands(fields: Frames, bands: int) -> Tensor:
    """Fields as the sum of ``bands`` of scale, from the finest to the coarsest.

        b_s = G_s(x) - G_{s+1}(x)   for s = 0 ... bands - 2,      the last one G_s(x)

    G_0(x) = x and G_s is a Gaussian smoothing with a standard deviation of 2^(s-1) pixels. Beyond its edges a field
    goes on as it is there.

    Args:
        fields: of c channels.
        bands: 1 or more.

    Returns:
        ``bands`` * c channels: all of the finest band first.
    """
    smooth = [fields, *(_smoothed(fields, 2.0 ** (s - 1)) for s in range(1, bands))]
    return torch.cat([*(a - b for a, b in itertools.pairwise(smooth)), smooth[-1]], dim=2)


def reach(bands: int) -> int:
    """How many pixels away the bands of a pixel look."""
    return _radius(2.0 ** (bands - 2)) if bands > 1 else 0


def _radius(sigma: float) -> int:
    return round(REACH * sigma)


def _smoothed(fields: Tensor, sigma: float) -> Tensor:
    """A Gaussian smoothing, along x and then along y."""
    radius = _radius(sigma)
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=fields.device) / sigma) ** 2)
    weights = (weights / weights.sum()).to(fields)
    for axis in (-1, -2):
        lines = fields.movedim(axis, -1)
        padded = F.pad(lines.reshape(-1, 1, lines.shape[-1]), (radius, radius), mode="replicate")
        fields = F.conv1d(padded, weights.view(1, 1, -1)).view(lines.shape).movedim(-1, axis)
    return fields


def straighten(fields: Tensor, curvature: Tensor) -> Tensor:
    """u of fields z = log(1 + c u) / c in model space, with c >= 0 for each channel; c = 0: u = z.

    A smoothed rain field has the mean rain rate of its surroundings; a smoothed logarithm has not.
    """
    c = curvature.clamp(min=1e-6)
    return torch.where(curvature > 0, torch.expm1(c * fields) / c, fields)


def bend(fields: Tensor, curvature: Tensor) -> Tensor:
    """The inverse of `straighten`: z of fields u; where c > 0, u below 0 count as 0."""
    c = curvature.clamp(min=1e-6)
    return torch.where(curvature > 0, torch.log1p(c * fields.clamp(min=0)) / c, fields)
