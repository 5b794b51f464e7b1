"""What a forecast keeps of the last observed fields, and how they go on changing: band by band of scale."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import final

import torch
from torch import Tensor, nn

from cubecast.nn.bands import CELL, bend, fading_rates, persistences, split_bands, straighten
from cubecast.nn.layout import Layout
from cubecast.nn.renewal import Renewal
from cubecast.precision import full_precision
from cubecast.shapes import Field, Frames

ON = 0.65
"""How much of a change that has gone on for a step goes on for another one, before training."""
WAVE = 0.7
"""The length of the waves of a band, divided by 2 pi, in those of 2^s pixels."""


@final
class Fading(nn.Module):
    """The last observed fields x in bands of scale, each of which fades and changes on at every lead l and pixel.

        z( sum over s of d_{s,l} (2 sigmoid(k_s) exp(-l r_s) b_s  +  2 sigmoid(h) a_{s,l} e_s) )
        b_s = G_s(u) - G_{s+1}(u),   the last b_S = G_S(u)
        e_s = b_s - exp(-r_s) b'_s,      a_{s,l} = g_s sum over j = 1 ... l of exp(-(l - j) r_s) q_s^(j - 1)

    where u(x) is model space made straight (`cubecast.nn.bands.straighten`; for log(rain rate) it is the rain rate,
    whose means are rain), z its inverse, G_0(u) = u and G_s a Gaussian smoothing of 2^(s-1) pixels. Small scales live
    for minutes and large ones for hours, as S-PROG has it (Seed 2003,
    DOI 10.1175/1520-0450(2003)042<0381:ADASSA>2.0.CO;2), but here place by place: r_s is how fast the band faded around
    a pixel in this very history (`cubecast.nn.bands.fading_rates`; the last does not fade), times a learned number, 1
    before training.

    e_s is what the last step brought, b'_s being the band of the field before. So much of it goes on for a step as did
    in the history, g_s (`cubecast.nn.bands.persistences`), and of that the learned share q_s, `ON` before training, for
    each step more: an autoregressive process whose innovations are one, too. k_s and h are told by the network.

    d_{s,l} is the mean over the places where air may have gone astray, by s_l pixels (standard deviation), of waves of
    the band: exp(-(s_l / (`WAVE` 2^s))^2 / 2), but 1 for the coarsest, which has the mean of the field. It is 1 for
    members of an ensemble, each of which has its own way, and the above is their mean: noise comes in place of what
    faded, where there is any (`cubecast.nn.renewal.Renewal`).

    Args:
        layout: what the input channels are.
        bands: 2 or more.
        curvatures: one c for each output whose model space is log(1 + c u) / c, 0 where it is straight; none: all are.
        renewed: side, in pixels, of the points that noise of members is drawn at; None: there is none.
    """

    curvature: Tensor
    straight: Tensor | None

    def __init__(
        self, layout: Layout, bands: int, curvatures: Sequence[float] = (), *, renewed: int | None = None
    ) -> None:
        super().__init__()
        self.layout, self.bands = layout, bands
        self.pace = nn.Parameter(torch.zeros(bands - 1, 1, 1, 1))
        self.onward = nn.Parameter(torch.full((bands, 1, 1, 1), math.log(ON / (1 - ON))))
        each = list(curvatures) or [0.0] * layout.outputs
        self.register_buffer("curvature", torch.tensor(each)[:, None, None], persistent=False)
        straight = torch.tensor([c <= 0 for c in each])[:, None, None] if min(each) <= 0 else None
        self.register_buffer("straight", straight, persistent=False)
        self.renewal = None if renewed is None else Renewal(bands - 1, renewed)

    @property
    def multiple(self) -> int:
        """What the corners of the windows of a grid are multiples of, in pixels."""
        return CELL if self.renewal is None else math.lcm(CELL, self.renewal.multiple)

    @property
    def fields(self) -> int:
        """That it is told for each output: k of each band, h, and with renewal how much there is to doubt."""
        return self.bands + 1 + (self.renewal is not None)

    def forward(
        self,
        frames: Frames,
        told: Tensor,
        noise: Tensor | None = None,
        astray: Iterable[Field] | None = None,
    ) -> Iterator[Field]:
        """What is kept, lead by lead, in model space (members, output, y, x).

        Args:
            frames: the history, 2 frames or more.
            told: all outputs of each of the `fields` together (members, horizon, `fields` * outputs, y, x); or one for
                each sample.
            noise: of the renewal (members, horizon, planes, rows, columns); None: the mean over it.
            astray: s_l in pixels for each lead (batch, 1, y, x); None: 0.
        """
        seen, fields = self._filled(frames)
        with full_precision(frames.device.type):
            parts = split_bands(straighten(fields, self.curvature), self.bands).unflatten(2, (self.bands, -1))
            rates = fading_rates(parts[:, :, :-1], seen) * self.pace.exp()
            going = persistences(parts, seen)
        each = told.unflatten(0, (len(frames), -1)).unflatten(3, (self.fields, -1)).float().unbind(2)
        ways = [None] * len(each) if astray is None else astray
        found: Iterable[Tensor] = self._means(parts[:, -2:], rates, going, zip(each, ways, strict=True))
        if self.renewal is not None and noise is not None:
            drawn = noise.unflatten(0, (len(frames), -1)).float()
            doubt, last = [one[:, :, -1] for one in each], parts[:, -1, :-1].unbind(1)
            found = self.renewal(found, last, rates.unbind(1), drawn, doubt=doubt, straight=self.straight)
        for one in found:
            yield bend(one.flatten(0, 1), self.curvature)

    def _means(
        self, parts: Tensor, rates: Tensor, going: Tensor, leads: Iterable[tuple[Tensor, Tensor | None]]
    ) -> Iterator[Tensor]:
        """In straight space (batch, members, output, y, x), from the bands of the last two times and what is told."""
        fading = [*torch.exp(-rates).unbind(1), None]  # the coarsest does not
        before, now = (part.unbind(1) for part in parts.unbind(1))
        fresh = [n - (b if f is None else f * b) for n, b, f in zip(now, before, fading, strict=True)]
        kept, goes_on = list(now), list(going.unbind(1))
        more = [torch.zeros(()).to(n) for n in now]
        shares = self.onward.sigmoid().unbind(0)
        for told, way in leads:
            total = torch.zeros(()).to(now[0])
            for s, fade in enumerate(fading):
                if fade is not None:
                    kept[s], more[s] = kept[s] * fade, more[s] * fade
                more[s] = more[s] + goes_on[s]
                goes_on[s] = goes_on[s] * shares[s]
                change = 2 * told[:, :, self.bands].sigmoid() * (more[s] * fresh[s])[:, None]
                band = 2 * told[:, :, s].sigmoid() * kept[s][:, None] + change
                if way is not None and fade is not None:
                    band = band * torch.exp(-(way / (WAVE * 2.0**s)).square() / 2)[:, None]
                total = total + band
            yield total

    def _filled(self, frames: Frames) -> tuple[Tensor, Tensor]:
        """Where all frames were observed (batch, output, y, x), and frames that do not change where one was not."""
        fields = frames[:, :, : self.layout.outputs].float()
        if not self.layout.masks:
            return torch.ones_like(fields[:, 0]), fields
        masks = frames[:, :, self.layout.output_masks]
        filled = [self.layout.last_observed(frames)[:, 0].float()]
        for field, mask in zip(fields[:, :-1].flip(1).unbind(1), masks[:, :-1].flip(1).unbind(1), strict=True):
            filled.insert(0, torch.where(mask > 0.5, field, filled[0]))
        return masks.amin(dim=1), torch.stack(filled, dim=1)
