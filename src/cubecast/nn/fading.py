"""What a forecast keeps of the last observed fields: band by band of scale, as they were seen to fade."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import final

import torch
from torch import Tensor, nn

from cubecast.nn.bands import CELL, LAGS, bend, fading_rates, split_bands, straighten
from cubecast.nn.layout import Layout
from cubecast.nn.renewal import Renewal
from cubecast.precision import full_precision
from cubecast.shapes import Field, Frames


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

    def forward(self, frames: Frames, told: Iterator[Tensor], noise: Tensor | None = None) -> Iterator[Field]:
        """What is kept, lead by lead, in model space (members, output, y, x).

        Args:
            frames: the history, 2 frames or more.
            told: k of each band, the finest first, then with renewal d, all outputs of each together
                (members, horizon, `fields` * outputs, y, x); or one for each sample. Some leads at a time.
            noise: of the renewal (members, horizon, planes, rows, columns); None: the mean over it.
        """
        with full_precision(frames.device.type):
            bands = self._split(self.layout.last_observed(frames))[:, 0].unbind(1)
            rates = (self._rates(frames) * self.pace.exp()).unbind(1)
        each = (some.unflatten(0, (len(frames), -1)).unflatten(3, (self.fields, -1)).float() for some in told)
        kept = self._kept(bands, rates, each)
        found = (mean for mean, _ in kept)
        if self.renewal is not None and noise is not None:
            drawn = noise.unflatten(0, (len(frames), -1)).float()
            found = self.renewal(kept, bands[:-1], rates, drawn, straight=self.straight)
        for one in found:
            yield bend(one.flatten(0, 1), self.curvature)

    def _kept(
        self, bands: Sequence[Tensor], rates: Sequence[Tensor], told: Iterator[Tensor]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """What is kept in straight space, and the last that is told, lead by lead (batch, members, output, y, x)."""
        *parts, coarse = bands
        done = 0
        for each in told:
            with full_precision(each.device.type):
                steps = torch.arange(done + 1, done + each.shape[2] + 1, device=each.device).view(-1, 1, 1, 1)
                kept = 2 * each[:, :, :, self.bands - 1].sigmoid() * coarse[:, None, None]
                for number, (part, rate) in enumerate(zip(parts, rates, strict=True)):  # for memory
                    fading = part[:, None] * torch.exp(-steps * rate[:, None])
                    kept = kept + 2 * each[:, :, :, number].sigmoid() * fading[:, None]
            done += each.shape[2]
            yield from zip(kept.unbind(2), each[:, :, :, -1].unbind(2), strict=True)

    def _split(self, fields: Tensor) -> Tensor:
        """The bands of fields in straight space (batch, time, band, output, y, x)."""
        straight = straighten(fields.float(), self.curvature)
        return split_bands(straight, self.bands).unflatten(2, (self.bands, -1))

    def _rates(self, frames: Tensor) -> Tensor:
        """How fast all bands but the coarsest faded in the history (batch, band, output, y, x)."""
        recent = frames[:, -(LAGS + 1) :]
        fields = recent[:, :, : self.layout.outputs]
        masks = recent[:, :, self.layout.output_masks] if self.layout.masks else torch.ones_like(fields)
        parts, seen = self._split(fields)[:, :, :-1], masks.amin(dim=1)
        some = parts.split(1 if spares_memory(frames) else parts.shape[2], dim=2)
        return torch.cat([fading_rates(bands, seen) for bands in some], dim=1)


def spares_memory(like: Tensor) -> bool:
    """Whether things are done one after the other: without gradients, and on a CPU, which loses no time by it."""
    return like.device.type == "cpu" and not torch.is_grad_enabled()
