"""What a forecast keeps of the last observed fields, and how they go on changing: band by band of scale."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cubecast.nn.bands import CELL, bend, each_band, extend, fading_rates, known, persistences, straighten
from cubecast.nn.layout import Layout
from cubecast.nn.renewal import Renewal
from cubecast.precision import full_precision
from cubecast.shapes import Field, Frames

ON = 0.65
"""How much of a change that has gone on for a step goes on for another one, before training."""
WAVE = 0.7
"""The length of the waves of a band, divided by 2 pi, in those of 2^s pixels."""


class Band(NamedTuple):
    """A band of the last observed fields, each (batch, output, y, x).

    Attributes:
        part: b.
        rate: r; None: it does not fade.
        fresh: g e.
    """

    part: Tensor
    rate: Tensor | None
    fresh: Tensor


class Lead(NamedTuple):
    """One lead of what is kept, each (batch, members or 1 for all, output, y, x).

    Attributes:
        mean: in straight space.
        change: what the forecaster adds to it in model space.
        doubt: d of the renewal (without it this means nothing).
    """

    mean: Tensor
    change: Tensor
    doubt: Tensor

    def alone(self) -> Lead:
        """The same without the memory of all else that was said."""
        return self._replace(change=self.change.clone(), doubt=self.doubt.clone())


class Kept(NamedTuple):
    """What all members of an ensemble share: lead by lead, and the bands, the finest first."""

    leads: Iterable[Lead]
    bands: Sequence[Band]


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
    before training. A pixel that was not observed at the reference time has its last value, one that never was the mean
    of what is around (`cubecast.nn.bands.extend`).

    e_s is what the last step brought, b'_s being the band of the field before. So much of it goes on for a step as did
    in the history, g_s (`cubecast.nn.bands.persistences`), and of that the learned share q_s, `ON` before training, for
    each step more: an autoregressive process whose innovations are one, too. k_s, h and a change of z are told by the
    network, and go to 0 where what is around was never observed (`cubecast.nn.bands.known`): nothing can be told there.

    d_{s,l} is the mean over the places where air may have gone astray, by s_l pixels (standard deviation), of waves of
    the band: exp(-(s_l / (`WAVE` 2^s))^2 / 2), but 1 for the coarsest, which has the mean of the field. It is 1 for
    members of an ensemble, each of which has its own way, and the above is their mean: noise comes in place of what
    faded, where there is any (`cubecast.nn.renewal.Renewal`).

    Args:
        layout: what the input channels are.
        bands: 2 or more.
        curvatures: one c for each output whose model space is log(1 + c u) / c, 0 where it is straight; none: all are.
        spacing: pixels from one point that it is told of to the next; between them it is interpolated.
        renewed: side, in pixels, of the points that noise of members is drawn at; None: there is none.
    """

    curvature: Tensor
    straight: Tensor | None

    def __init__(
        self,
        layout: Layout,
        bands: int,
        curvatures: Sequence[float] = (),
        *,
        spacing: int = 1,
        renewed: int | None = None,
    ) -> None:
        super().__init__()
        self.layout, self.bands, self.spacing = layout, bands, spacing
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

    def keep(self, frames: Frames, said: Iterable[Tensor], astray: Callable[[int], Field] | None = None) -> Kept:
        """What is kept; leads come one by one, once.

        Args:
            frames: the history, 2 frames or more.
            said: for each lead the change, then what `fields` says, all outputs of each together
                (members, (1 + `fields`) * outputs, rows, columns), in patches of ``spacing`` pixels; or one for each
                sample.
            astray: s of a lead in pixels (batch, 1, y, x); None: 0.
        """
        bands = list(self._look(frames))
        return Kept(self._leads(bands, self._heard(frames, said), astray), bands)

    def forward(self, kept: Kept, noise: Tensor | None = None) -> Iterator[Field]:
        """The forecast, lead by lead, in model space (members, output, y, x).

        Args:
            kept: of `keep`.
            noise: of the renewal (members, horizon, planes, rows, columns); None, or no planes: the mean over it.
        """
        if self.renewal is None or noise is None or not noise.shape[2]:
            for one in kept.leads:
                yield (bend(one.mean, self.curvature) + one.change).flatten(0, 1)
            return
        drawn = noise.unflatten(0, (len(kept.bands[0].part), -1)).float()
        fading = [(band.part, band.rate) for band in kept.bands if band.rate is not None]
        leads = list(kept.leads)
        members = self.renewal([(one.mean, one.doubt) for one in leads], fading, drawn, straight=self.straight)
        for field, one in zip(members, leads, strict=True):
            yield (bend(field, self.curvature) + one.change).flatten(0, 1)

    def _look(self, frames: Frames) -> Iterator[Band]:
        """The bands of the last observed fields, the finest first."""
        seen, fields = self._fill(frames)
        with full_precision(frames.device.type):
            parts = each_band(fields, self.bands)
            for part, pace in itertools.zip_longest(parts, self.pace):  # for memory
                history = part[:, :, None]
                rate = None if pace is None else fading_rates(history, seen)[:, 0] * pace.exp()
                before = part[:, -2] if rate is None else torch.exp(-rate) * part[:, -2]
                yield Band(part[:, -1], rate, persistences(history, seen)[:, 0] * (part[:, -1] - before))

    def _heard(self, frames: Frames, said: Iterable[Tensor]) -> Iterator[Tensor]:
        """What is said of each lead, as far as it can be (batch, members or 1 for all, 1 + `fields`, output, y, x)."""
        ny, nx = frames.shape[-2:]
        share = self._known(frames) if self.layout.masks else None
        for one in said:
            each = one.float().unflatten(0, (len(frames), -1)).unflatten(2, (1 + self.fields, -1))
            if share is not None:
                (rows, columns), (r, c) = each.shape[-2:], share.shape[-2:]
                each = each * F.pad(share, (0, columns - c, 0, rows - r), mode="replicate")[:, None, None]
            wide = F.interpolate(each.flatten(0, 2), scale_factor=float(self.spacing), mode="bilinear")
            yield wide[..., :ny, :nx].unflatten(0, each.shape[:3])

    def _known(self, frames: Frames) -> Tensor:
        """How well it is known around each point (batch, output, rows, columns)."""
        share = known(frames[:, :, self.layout.output_masks].amax(dim=1).float())
        return F.avg_pool2d(share, self.spacing, ceil_mode=True, count_include_pad=False)

    def _leads(
        self, bands: Sequence[Band], heard: Iterable[Tensor], astray: Callable[[int], Field] | None
    ) -> Iterator[Lead]:
        """What is kept, lead by lead, of bands, from what is heard."""
        kept, grown = [band.part for band in bands], [torch.zeros_like(band.part) for band in bands]
        fades = [None if band.rate is None else torch.exp(-band.rate) for band in bands]
        shares = self.onward.sigmoid()
        goes_on = torch.ones_like(shares)
        for number, one in enumerate(heard, start=1):
            exponent = None if astray is None else (astray(number) / WAVE).square() / -2  # of the finest band
            change, *keeping = one.unbind(2)
            mean, growth = torch.zeros_like(change), torch.zeros_like(kept[0])
            for s, (band, fade) in enumerate(zip(bands, fades, strict=True)):
                if fade is not None:
                    kept[s], grown[s] = kept[s] * fade, grown[s] * fade
                grown[s] = torch.addcmul(grown[s], goes_on[s], band.fresh)
                left, more = kept[s], grown[s]
                if exponent is not None and fade is not None:
                    smooth = exponent.exp()
                    left, more = left * smooth, more * smooth
                    exponent = exponent / 4  # of the next, whose waves are twice as long
                mean = torch.addcmul(mean, keeping[s].sigmoid(), left[:, None], value=2)
                growth = growth + more
            mean = torch.addcmul(mean, keeping[self.bands].sigmoid(), growth[:, None], value=2)
            goes_on = goes_on * shares
            yield Lead(mean, change, keeping[-1])

    def _fill(self, frames: Frames) -> tuple[Tensor, Tensor]:
        """Where all frames were observed, and frames in straight space that do not change where one was not.

        Where none was they are what is around. Both (batch, output, y, x), the second with time.
        """
        fields = straighten(frames[:, :, : self.layout.outputs].float(), self.curvature)
        if not self.layout.masks:
            return torch.ones_like(fields[:, 0]), fields
        masks = frames[:, :, self.layout.output_masks]
        last = straighten(self.layout.last_observed(frames)[:, 0].float(), self.curvature)
        filled = [extend(last, masks.amax(dim=1).float())]
        for field, mask in zip(fields[:, :-1].flip(1).unbind(1), masks[:, :-1].flip(1).unbind(1), strict=True):
            filled.insert(0, torch.where(mask > 0.5, field, filled[0]))
        return masks.amin(dim=1), torch.stack(filled, dim=1)
