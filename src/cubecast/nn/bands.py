"""Fields as sums of bands of scale, in a space where means mean something."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from cubecast.precision import full_precision
from cubecast.shapes import Field, Frames

REACH = 3
"""Where a Gaussian ends, in standard deviations."""
LAGS = 3
"""Steps over which fading is seen, as far as the history goes."""
CELL = 8
"""Side, in pixels, of the cells that fading is found for."""
WINDOW = 64
"""Standard deviation, in pixels, of the window that is looked at around a place for its fading."""
UNSEEN = 32
"""Standard deviation, in pixels, of the window that is looked at around a place that was never observed."""
NEAR = 16
"""Standard deviation, in pixels, of the window that says how well what is around a place is known."""
WIDE = 6
"""A smoothing is wide for a grid that has no more than so many times as many pixels along an axis as it has weights."""
LEAST, MOST = 0.01, 0.999
"""Correlations count as no less and no more: a logarithm is taken."""


def split_bands(fields: Frames, bands: int) -> Tensor:
    """Fields as the sum of ``bands`` of scale, from the finest to the coarsest.

        b_s = G_s(x) - G_{s+1}(x)   for s = 0 ... bands - 2,      the last one G_s(x)

    G_0(x) = x and G_s is a Gaussian smoothing with a standard deviation of 2^(s-1) pixels. Beyond its edges a field
    goes on as it is there. Wide smoothings are those of means over cells of a quarter of the width, interpolated, as
    wide as the rest needs to be: no figure of a forecast changes by it, and it takes an eighth of the time.

    Args:
        fields: of c channels.
        bands: 1 or more.

    Returns:
        ``bands`` * c channels: all of the finest band first.
    """
    return torch.cat(list(each_band(fields, bands)), dim=2)


def each_band(fields: Frames, bands: int) -> Iterator[Frames]:
    """The bands of `split_bands` one by one."""
    finer = fields
    for s in range(1, bands):
        coarser = _smooth_wide(fields, 2 ** (s - 1))
        yield finer - coarser
        finer = coarser
    yield finer


def _smooth_wide(fields: Tensor, sigma: int) -> Tensor:
    """A Gaussian smoothing of a power of 2 pixels."""
    cell = sigma // 4
    if cell < 2:
        return smooth(fields, float(sigma))
    ny, nx = fields.shape[-2:]
    padded = F.pad(fields.flatten(0, 1), (0, -nx % cell, 0, -ny % cell), mode="replicate")
    # Means add (cell^2 - 1) / 12 to the variance of what one pixel is spread to, interpolation about cell^2 / 6.
    rest = math.sqrt(sigma**2 - (cell**2 - 1) / 12 - cell**2 / 6)
    means = smooth(F.avg_pool2d(padded, cell)[None], rest / cell)[0]
    wide = F.interpolate(means, scale_factor=cell, mode="bilinear")
    return wide[..., :ny, :nx].unflatten(0, fields.shape[:2])


def fading_rates(parts: Tensor, seen: Tensor) -> Tensor:
    """How fast each band fades, place by place, seen from how it did in a history.

    With R_k(x) the correlation of a band at the last time with itself k steps before, within a Gaussian window around
    x, the rate r is the least squares fit of R_k = exp(-k r), k = 1 ... `LAGS`:

        r(x) = - sum of k log R_k(x) / sum of k^2

    A field that moves fades unless it is looked at in coordinates that move with it. Source of life times by scale from
    the history: Seed (2003), DOI 10.1175/1520-0450(2003)042<0381:ADASSA>2.0.CO;2.

    Args:
        parts: bands of 2 fields or more (batch, time, band, channel, y, x).
        seen: 1 where all fields were observed, else 0 (batch, channel, y, x).

    Returns:
        Per step (batch, band, channel, y, x), between -log `MOST` and -log `LEAST`.
    """
    parts = parts[:, -(LAGS + 1) :] * seen[:, None, None]
    now, before = parts[:, -1:], parts[:, :-1].flip(1)
    shared, power, powers = (_around(f) for f in (now * before, now.square(), before.square()))
    logs = (shared / (power * powers).sqrt().clamp(min=1e-12)).clamp(LEAST, MOST).log()
    lags = torch.arange(1, logs.shape[1] + 1, device=logs.device, dtype=logs.dtype)
    return _to_pixels(-(lags.view(-1, 1, 1, 1, 1) * logs).sum(dim=1) / lags.square().sum(), parts)


def persistences(parts: Tensor, seen: Tensor) -> Tensor:
    """How much of a change of each band goes on in the next step, place by place, seen from how it did in a history.

    With D_i the change of a band from time i - 1 to i, and means within a Gaussian window around x,

        g(x) = sum of D_i D_{i-1} / sqrt(sum of D_i^2  sum of D_{i-1}^2),     0 where this is below 0

    the correlation of changes with those before them. Noise of the radar makes it negative, growth and decay, and what
    the motion missed, positive.

    Args:
        parts, seen: as in `fading_rates`; with 2 fields there is no change before the last, and g is 0.

    Returns:
        Between 0 and 1 (batch, band, channel, y, x).
    """
    changes = (parts * seen[:, None, None]).diff(dim=1)
    if changes.shape[1] < 2:
        return torch.zeros_like(parts[:, 0])
    shared, power = _around((changes[:, 1:] * changes[:, :-1]).sum(dim=1)), changes.square()
    later, earlier = (_around(p.sum(dim=1)) for p in (power[:, 1:], power[:, :-1]))
    return _to_pixels((shared / (later * earlier).sqrt().clamp(min=1e-12)).clamp(0, 1), parts)


def extend(fields: Field, seen: Field) -> Field:
    """Fields where they were seen; elsewhere the mean of what was within a Gaussian window around, or 0.

    So rain that comes in from where no radar looks is about as much as there is beside.

    Args:
        fields: (batch, channel, y, x).
        seen: 1 or 0, of the same shape.
    """
    total, weight = (_around(f[:, None], UNSEEN) for f in (fields * seen, seen))
    return torch.where(seen > 0, fields, _to_pixels(total / weight.clamp(min=1e-6), fields)[:, 0])


def known(seen: Field) -> Field:
    """How well what is around a pixel is known.

    With w the share of what was seen, of what lies in the grid within a Gaussian window around: max(0, 2 w - 1). So it
    is 1 where all was seen, and 0 at the straight edge of what was.

    Args:
        seen: 1 or 0 (batch, channel, y, x).
    """
    there, total = (_around(f[:, None], NEAR) for f in (seen, torch.ones_like(seen)))
    return _to_pixels((2 * there / total - 1).clamp(min=0), seen)[:, 0]


def _to_pixels(cells: Tensor, like: Tensor) -> Tensor:
    """Cells (batch, band, channel, y, x) interpolated to the pixels of a grid."""
    fine = F.interpolate(cells.flatten(1, 2), scale_factor=CELL, mode="bilinear")
    return fine.unflatten(1, cells.shape[1:3])[..., : like.shape[-2], : like.shape[-1]]


def _around(fields: Tensor, window: int = WINDOW) -> Tensor:
    """Weighted sums of cells within the window around each; beyond the edges there is nothing."""
    ny, nx = fields.shape[-2:]
    padded = F.pad(fields.flatten(0, -3)[:, None], (0, -nx % CELL, 0, -ny % CELL))
    means = smooth(F.avg_pool2d(padded, CELL), window / CELL, beyond="constant")
    return means.view(*fields.shape[:-2], *means.shape[-2:])


def reach(bands: int) -> int:
    """How many pixels away the bands of a pixel look, those who look for how they fade, and what is extended there."""
    if bands == 1:
        return 0
    return _radius(2.0 ** (bands - 2)) + sum(CELL * (_radius(window / CELL) + 2) for window in (WINDOW, UNSEEN))


def _radius(sigma: float) -> int:
    return round(REACH * sigma)


def kernel(sigma: float) -> Tensor:
    """The weights of a Gaussian smoothing along one axis, ``sigma`` in pixels."""
    radius = _radius(sigma)
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    return weights / weights.sum()


def smooth(fields: Tensor, sigma: float, *, beyond: str = "replicate") -> Tensor:
    """A Gaussian smoothing, along x and then along y; ``beyond`` the edges as `torch.nn.functional.pad` has it.

    Where it is narrow, shifted fields are added up: of one channel that is several times as fast as a convolution of
    torch. Where it is wide for the grid, a product of matrices is faster still.
    """
    weights, shape = kernel(sigma), fields.shape
    fields = fields.reshape(1, -1, *shape[-2:])
    for axis in (3, 2):
        wide = fields.shape[axis] <= WIDE * len(weights)
        fields = (_smooth_by_product if wide else _smooth_by_shifts)(fields, weights, axis, beyond)
    return fields.view(shape)


def _smooth_by_shifts(fields: Tensor, weights: Tensor, axis: int, beyond: str) -> Tensor:
    radius, size, shares = len(weights) // 2, fields.shape[axis], weights.tolist()
    pad = (radius, radius, 0, 0) if axis == 3 else (0, 0, radius, radius)
    padded = F.pad(fields, pad, mode=beyond)
    fields = padded.narrow(axis, radius, size) * shares[radius]
    for shift in range(1, radius + 1):
        for first in (radius - shift, radius + shift):
            fields.add_(padded.narrow(axis, first, size), alpha=shares[first])
    return fields


def _smooth_by_product(fields: Tensor, weights: Tensor, axis: int, beyond: str) -> Tensor:
    size = fields.shape[axis]
    # What place i takes from place j is the sum of weights from j - i on, up to those of the next place; at an edge
    # that is repeated, of all that lie beyond it, too.
    below = torch.arange(size + 1) - torch.arange(size)[:, None] + len(weights) // 2
    if beyond == "replicate":
        below[:, 0], below[:, -1] = 0, len(weights)
    sums = F.pad(weights.double().cumsum(0), (1, 0))
    matrix = sums[below.clamp(0, len(weights))].diff(dim=1).to(fields)
    with full_precision(fields.device.type):
        return fields @ matrix.T if axis == 3 else matrix @ fields


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
