"""What comes in place of what a forecast does not keep: noise that is as strong, as wide and as short-lived."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cubecast.nn.bands import smooth
from cubecast.nn.neighbours import sum_square, sum_three

FINEST = 2
"""Side, in pixels, of the smallest cells of noise, in which it is made for all bands; pixels are interpolated."""
AROUND = 2.0
"""Standard deviation, in those of a band's own smoothing, of the window that its strength is looked at in."""
QUICK = 30.0
"""How much faster than other weights strength is learned: these are few, and far off at worst."""
WIDER = 1.15
"""How much stronger noise is before training than what is seen to fade, and in each band than in the finer one before
it: what a history shows of itself, in the motion that fits it best, is less than what comes."""
MOST = 3.0
"""Standard deviations of rain count as no more than so many means."""


@final
class Renewal(nn.Module):
    """Members of an ensemble around their mean, which has lost what faded.

        e_{s,l} = exp(-r_s) e_{s,l-1} + sqrt(1 - exp(-2 r_s)) w_{s,l},        e_{s,0} = 0
        n_l = exp(d_l) sum over s of a_s sigma_s e_{s,l},                     v_l = its variance
        member = m_l + n_l

    for each band s that fades with the rate r_s: w is noise with the band's width and a variance of 1, sigma_s how
    strong the band is around a pixel in the last observed field, a_s = exp(`QUICK` spread_s). With a_s = 1 members of a
    field that is an autoregressive process of order 1 in each band, with the rates of its history, differ from one
    another as they do from what comes. Rain is not: it grows, too, and in bands that do not fade; so a_s is
    `WIDER`^(s + 1) before training, and the forecaster says how much more there is to doubt, d_l(x), 0 before training.
    Sources: Seed (2003),
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
        self.spread = nn.Parameter(math.log(WIDER) / QUICK * torch.arange(1.0, bands + 1).view(-1, 1, 1, 1))

    @property
    def multiple(self) -> int:
        """What the sides of a grid are multiples of, in pixels."""
        return math.lcm(FINEST, self.unit * max(self.pools))

    @property
    def planes(self) -> int:
        """Of noise that one member takes at each lead."""
        return sum(fold**2 for fold in self.folds)

    def forward(
        self,
        leads: Iterable[tuple[Tensor, Tensor]],
        fading: Sequence[tuple[Tensor, Tensor]],
        noise: Tensor,
        *,
        straight: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """Members in straight space, lead by lead (batch, members, output, y, x).

        Args:
            leads: the mean of the members and d, lead by lead, each (batch, members or 1 for all, output, y, x).
            fading: the bands of the last observed fields that fade, and how fast, per step, each (batch, output, y, x).
            noise: white, of variance 1 (batch, members, horizon, `planes`, rows, columns), each ``unit`` pixels apart.
            straight: for each output, whether its model space is not the logarithm of rain (output, 1, 1); None: none.
        """
        parts, rates = zip(*fading, strict=True)
        strengths = [
            (2 * QUICK * a).exp() * smooth(_shrink(p.square()), AROUND * 2.0**s / FINEST)[:, None]
            for s, (p, a) in enumerate(zip(parts, self.spread, strict=True))
        ]
        keep = [torch.exp(-_shrink(rate))[:, None] for rate in rates]
        renew = [(1 - k * k).sqrt() for k in keep]
        amplitudes = [power.clamp(min=1e-12).sqrt() for power in strengths]  # the clamp is for the slope of the root
        state, left = [torch.zeros(()).to(k) for k in keep], [torch.ones_like(k) for k in keep]
        for lead, (one, more) in enumerate(leads):
            fresh = self._spread_out(noise[:, :, lead], keep[0].shape[-2:])
            total, variance = torch.zeros(()).to(one), torch.full_like(keep[0], 1e-12)
            for s, (k, new) in enumerate(zip(keep, fresh, strict=True)):
                state[s], left[s] = torch.addcmul(k * state[s], renew[s], new), left[s] * k * k
                total = torch.addcmul(total, amplitudes[s], state[s])
                variance = variance + strengths[s] * (1 - left[s])
            size = one.shape[-2:]
            standard, spread = _enlarge(total * variance.rsqrt(), size), _enlarge(variance, size).sqrt() * more.exp()
            members = _gamma(one.clamp(min=0), standard, spread)
            yield members if straight is None else torch.where(straight, one + standard * spread, members)

    def _spread_out(self, noise: Tensor, size: Sequence[int]) -> list[Tensor]:
        """Smooth noise for each band on the grid of `FINEST` (batch, members, 1, y, x) from the planes of a lead.

        Its variance is 1 once it is interpolated to pixels.
        """
        found = []
        planes = noise.flatten(0, 1).split([fold**2 for fold in self.folds], dim=1)
        for white, fold, pool in zip(planes, self.folds, self.pools, strict=True):
            white = F.pixel_shuffle(white, fold) if fold > 1 else white
            white = F.avg_pool2d(white, pool) * pool if pool > 1 else white
            factor = self.unit * pool / fold / FINEST
            wide = _smooth_noise(white, _deviation(factor))
            wide = F.interpolate(wide, scale_factor=factor, mode="bilinear") if factor != 1 else wide
            found.append(wide[..., : size[0], : size[1]].unflatten(0, noise.shape[:2]))
        return found


def _shrink(fields: Tensor) -> Tensor:
    """Means over the cells of `FINEST`."""
    return F.avg_pool2d(fields, FINEST, ceil_mode=True, count_include_pad=False)


def _enlarge(fields: Tensor, size: Sequence[int]) -> Tensor:
    """From the grid of `FINEST` to pixels, the first ``size`` of them."""
    wide = F.interpolate(fields.flatten(0, -4), scale_factor=FINEST, mode="bilinear")
    return wide[..., : size[0], : size[1]].unflatten(0, fields.shape[:-3])


def _smooth_noise(white: Tensor, deviation: float) -> Tensor:
    """White noise of variance 1, summed over 3 x 3 cells; of this deviation it would be 1 again, up to the edges."""
    count = sum_square(white.new_ones(white.shape[-2:]))
    return sum_square(white) / (count.sqrt() * deviation)


def _gamma(mean: Tensor, standard: Tensor, spread: Tensor) -> Tensor:
    """Gamma variates of a mean and a standard deviation, from normal ones."""
    c = (spread / mean.clamp(min=1e-6)).clamp(1e-3, MOST)
    r = 3 / c - c / 3  # the factor c / 3 of base and root mean cancels
    squared = r.square()
    below, density = torch.special.ndtr(r), torch.exp(squared / -2) / math.sqrt(2 * math.pi)
    power = (squared + 3) * r * below + (squared + 2) * density
    return (r + standard).clamp(min=0) ** 3 * (mean / power)


@cache
def _deviation(factor: float) -> float:
    """Of smoothed noise of variance 1 that was interpolated to cells ``factor`` times as small, and then to pixels."""
    line = F.interpolate(torch.eye(64)[None], scale_factor=factor, mode="linear")
    line = F.interpolate(line, scale_factor=FINEST, mode="linear")[0]  # each row: what a cell gives to the pixels
    smoothed = sum_three(line.T, 1) / math.sqrt(3)
    inside = smoothed[len(smoothed) // 4 : len(smoothed) * 3 // 4]
    # The variance of an interpolated value along one axis; of both it is the product, whose root is the deviation.
    return float(inside.square().sum(dim=1).mean())
