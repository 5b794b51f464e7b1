"""What a forecast keeps of the last observed fields: band by band of scale, as they were seen to fade."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, final

import torch
from torch import Tensor, nn

from cubecast.nn.bands import CELL, LAGS, bend, fading_rates, split_bands, straighten
from cubecast.nn.layout import Layout
from cubecast.nn.renewal import Renewal
from cubecast.precision import full_precision
from cubecast.shapes import Field, Frames


class Kept(NamedTuple):
    """What all members of an ensemble share.

    Attributes:
        mean: what is kept, in straight space (batch, members or 1 for all, horizon, output, y, x).
        change: what the forecaster adds to it in model space, of this shape.
        doubt: d, of this shape (without renewal it means nothing).
        parts, rates: the bands that fade and how fast, each (batch, output, y, x).
    """

    mean: Tensor
    change: Tensor
    doubt: Tensor
    parts: Sequence[Tensor]
    rates: Sequence[Tensor]


@final
class Fading(nn.Module):
    """The last observed fields x in bands of scale, each with a keeping k_s of its own at every lead l and pixel.

        z( sum over s of 2 sigmoid(k_s) exp(-l p_s r_s) b_s ),      b_s = G_s(u) - G_{s+1}(u),   the last b_S = G_S(u)

    where u(x) is model space made straight (`cubecast.nn.bands.straighten`; for log(rain rate) it is the rain rate,
    whose means are rain), z its inverse, G_0(u) = u and G_s a Gaussian smoothing of 2^(s-1) pixels. Small scales live
    for minutes and large ones for hours, as S-PROG has it (Seed 2003,
    DOI 10.1175/1520-0450(2003)042<0381:ADASSA>2.0.CO;2), but here place by place: r_s is how fast the band faded around
    a pixel in this very history (`cubecast.nn.bands.fading_rates`; the last does not fade), p_s a learned number, 1
    before training. Of members of an ensemble this is the mean: noise comes in place of what faded, where there is any
    (`cubecast.nn.renewal.Renewal`).

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
        """That it is told for each output: what is kept of each band, and with renewal how much there is to doubt."""
        return self.bands + (self.renewal is not None)

    def keep(self, frames: Frames, said: Iterable[Tensor]) -> Kept:
        """What is kept at all leads.

        Args:
            frames: the history, 2 frames or more.
            said: for each lead the change, k of each band, the finest first, then with renewal d, all outputs of each
                together (members, (1 + `fields`) * outputs, y, x); or one for each sample.
        """
        with full_precision(frames.device.type):
            *parts, coarse = self._split(self.layout.last_observed(frames))[:, 0].unbind(1)
            rates = (self._rates(frames) * self.pace.exp()).unbind(1)
        fades, faded, leads = [torch.exp(-rate) for rate in rates], parts, []
        for one in said:  # for memory
            each = one.float().unflatten(0, (len(frames), -1)).unflatten(2, (1 + self.fields, -1))
            change, *keeping = each.unbind(2)
            faded = [part * fade for part, fade in zip(faded, fades, strict=True)]
            mean = torch.zeros_like(change)
            for k, part in zip(keeping, [*faded, coarse], strict=False):
                mean = torch.addcmul(mean, k.sigmoid(), part[:, None], value=2)
            leads.append((mean, change.clone(), keeping[-1].clone()))
        mean, change, doubt = (torch.stack(fields, dim=2) for fields in zip(*leads, strict=True))
        return Kept(mean, change, doubt, parts, rates)

    def forward(self, kept: Kept, noise: Tensor | None = None) -> Iterator[Field]:
        """The forecast, lead by lead, in model space (members, output, y, x).

        Args:
            kept: of `keep`.
            noise: of the renewal (members, horizon, planes, rows, columns); None, or no planes: the mean over it.
        """
        found: Iterable[Tensor] = kept.mean.unbind(2)
        if self.renewal is not None and noise is not None and noise.shape[2]:
            drawn = noise.unflatten(0, (len(kept.mean), -1)).float()
            found = self.renewal(kept.mean, kept.parts, kept.rates, drawn, doubt=kept.doubt, straight=self.straight)
        for one, change in zip(found, kept.change.unbind(2), strict=True):
            yield (bend(one, self.curvature) + change).flatten(0, 1)

    def _split(self, fields: Tensor) -> Tensor:
        """The bands of fields in straight space (batch, time, band, output, y, x)."""
        straight = straighten(fields.float(), self.curvature)
        return split_bands(straight, self.bands).unflatten(2, (self.bands, -1))

    def _rates(self, frames: Tensor) -> Tensor:
        """How fast all bands but the coarsest faded in the history (batch, band, output, y, x)."""
        recent = frames[:, -(LAGS + 1) :]
        fields = recent[:, :, : self.layout.outputs]
        masks = recent[:, :, self.layout.output_masks] if self.layout.masks else torch.ones_like(fields)
        return fading_rates(self._split(fields)[:, :, :-1], masks.amin(dim=1))
