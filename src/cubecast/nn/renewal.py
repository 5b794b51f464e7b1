"""What comes in place of what a forecast does not keep: noise that is as strong, as wide and as short-lived."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cubecast.nn.bands import kernel, smooth

FINEST = 2
"""Side, in pixels, of the smallest cells that noise is drawn in."""
SMOOTH = 0.75
"""Standard deviation, in cells, of the smoothing of noise."""
AROUND = 2.0
"""Standard deviation, in those of a band's own smoothing, of the window that its strength is looked at in."""
QUICK = 30.0
"""How much faster than other weights strength is learned: these are few, and far off at worst."""
MOST = 3.0
"""Standard deviations of rain count as no more than so many means."""


@final
class Renewal(nn.Module):
    """Members of an ensemble around their mean, which has lost what faded.

        e_{s,l} = exp(-r_s) e_{s,l-1} + sqrt(1 - exp(-2 r_s)) w_{s,l},        e_{s,0} = 0
        n_l = sum over s of a_s sigma_s e_{s,l},                              v_l = its variance
        member = m_l + n_l

    for each band s that fades with the rate r_s: w is noise with the band's width and a variance of 1, sigma_s how
    strong the band is around a pixel in the last observed field, a_s = exp(`QUICK` spread_s), 1 before training. So a
    field that is an autoregressive process of order 1 in each band, with the rates of its history, has members which
    differ from one another as they do from what comes. Sources: Seed (2003),
    DOI 10.1175/1520-0450(2003)042<0381:ADASSA>2.0.CO;2; Bowler et al. (2006), DOI 10.1256/qj.04.100.

    Where model space is the logarithm of rain, which is not below zero and skewed, members are gamma variates with the
    mean m and the variance v, as good as the approximation of Wilson and Hilferty (1931, DOI 10.1073/pnas.17.12.684):

        member = m max(0, 1 - c^2 / 9 + c g / 3)^3 / E,      g = n / sqrt(v),  c = sqrt(v) / m, at most `MOST`

    E is the mean of the power over g, so that m is the mean of the members, whatever c.

    Args:
        bands: that fade.
        unit: side, in pixels, of the points that noise is drawn at.
    """

    def __init__(self, bands: int, unit: int) -> None:
        super().__init__()
        self.unit = unit
        cells = [max(FINEST, 2**s) for s in range(bands)]
        self.folds = tuple(unit // c if unit % c == 0 else 1 for c in cells)
        self.pools = tuple(2 ** int(math.log2(max(1, c // unit))) for c in cells)
        self.spread = nn.Parameter(torch.zeros(bands, 1, 1, 1))

    @property
    def multiple(self) -> int:
        """What the sides of a grid are multiples of, in pixels."""
        return self.unit * max(self.pools)

    @property
    def planes(self) -> int:
        """Of noise that one member takes at each lead."""
        return sum(fold**2 for fold in self.folds)

    def forward(
        self, mean: Tensor, parts: Sequence[Tensor], rates: Sequence[Tensor], noise: Tensor, *, rain: Tensor
    ) -> Tensor:
        """Members in straight space (batch, members, horizon, output, y, x).

        Args:
            mean: of the members, of the same shape.
            parts: the bands of the last observed fields that fade, each (batch, output, y, x).
            rates: how fast, per step, of the same shape.
            noise: white, of variance 1 (batch, members, horizon, `planes`, rows, columns), each ``unit`` pixels apart.
            rain: for each output, whether its model space is the logarithm of what is not below zero (output, 1, 1).
        """
        amplitudes = [  # the clamp is for the slope of the root
            (QUICK * a).exp() * smooth(p[:, None].square(), AROUND * 2.0**s).clamp(min=1e-12).sqrt()
            for s, (p, a) in enumerate(zip(parts, self.spread, strict=True))
        ]
        keep = [torch.exp(-rate)[:, None] for rate in rates]
        state: list[Tensor | float] = [0.0] * len(parts)
        found = []
        for lead, one in enumerate(mean.unbind(2)):
            fresh = self._spread_out(noise[:, :, lead], one.shape[-2:])
            total, variance = torch.zeros_like(one), torch.full_like(one[:, :1], 1e-12)
            for s, (k, new, amplitude) in enumerate(zip(keep, fresh, amplitudes, strict=True)):
                state[s] = k * state[s] + (1 - k * k).sqrt() * new
                total = total + amplitude * state[s]
                variance = variance + amplitude**2 * (1 - k ** (2 * lead + 2))
            found.append(torch.where(rain, _gamma(one.clamp(min=0), total, variance), one + total))
        return torch.stack(found, dim=2)

    def _spread_out(self, noise: Tensor, size: Sequence[int]) -> list[Tensor]:
        """Smooth noise of variance 1 for each band (batch, members, 1, y, x) from the planes of a lead."""
        found = []
        planes = noise.flatten(0, 1).split([fold**2 for fold in self.folds], dim=1)
        for white, fold, pool in zip(planes, self.folds, self.pools, strict=True):
            cells = _smooth_noise(F.avg_pool2d(F.pixel_shuffle(white, fold), pool) * pool)
            factor = self.unit * pool // fold
            wide = F.interpolate(cells, scale_factor=factor, mode="bilinear") / _deviation(factor)
            found.append(wide[..., : size[0], : size[1]].unflatten(0, noise.shape[:2]))
        return found


def _smooth_noise(white: Tensor) -> Tensor:
    """White noise of variance 1, smoothed; its variance is 1 again, up to the edges."""
    weights = kernel(SMOOTH).to(white).square()[None, None]
    powers = [F.conv1d(white.new_ones(1, 1, n), weights, padding="same")[0, 0] for n in white.shape[-2:]]
    return smooth(white, SMOOTH, beyond="constant") / torch.outer(*powers).sqrt()


def _gamma(mean: Tensor, total: Tensor, variance: Tensor) -> Tensor:
    c = (variance.sqrt() / mean.clamp(min=1e-6)).clamp(1e-3, MOST)
    a, b = 1 - c.square() / 9, c / 3
    r = a / b
    below, density = torch.special.ndtr(r), torch.exp(-r.square() / 2) / math.sqrt(2 * math.pi)
    power = (a**3 + 3 * a * b**2) * below + (a**2 * b + 2 * b**3) * density
    return mean * (a + b * total / variance.sqrt()).clamp(min=0) ** 3 / power


def _deviation(factor: int) -> float:
    """Of smoothed noise of variance 1 that was interpolated to cells ``factor`` times as small."""
    weights = kernel(SMOOTH)
    alike = (weights[1:] * weights[:-1]).sum() / weights.square().sum()
    place = ((torch.arange(factor) + 0.5) / factor - 0.5) % 1
    # The variance of an interpolated value along one axis; of both it is the product, whose root is the deviation.
    return float((1 - 2 * place * (1 - place) * (1 - alike)).mean())
