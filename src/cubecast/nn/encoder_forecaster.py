"""The encoder-forecaster of Shi et al. (2015, 2017)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cubecast.errors import UsageError
from cubecast.nn.bands import reach
from cubecast.nn.cell import Cell
from cubecast.nn.fading import Fading
from cubecast.nn.layout import Layout
from cubecast.nn.members import Forecasts, Leads, draw_blocks
from cubecast.nn.recurrent import RecurrentLayer
from cubecast.nn.strides import downscale, each_frame, of_points, upscale
from cubecast.shapes import Field, Forecast, Frames, Noise

CellFactory = Callable[[int, int, tuple[int, int] | None], Cell]
"""``make(in_channels, hidden_channels, grid)``: the cell of one layer; ``grid`` as given, on the layer's own scale."""


@final
class EncoderForecaster(nn.Module):
    """An encoder stack reads the history; its states are copied into a forecaster stack that unrolls the horizon.

        encoder, layer l = 0 (finest) ... L-1:     e^l, s^l = layer_l(down_l(e^{l-1}))
        forecaster, layer l = L-1 ... 0:           f^l = layer'_l(up_{l+1}(f^{l+1}), start = s^l)
        forecast:                                  unpatch(head(up_0(f^0))) [see residual]

    Frames are first folded into patches (``patch`` x ``patch`` pixels become channels). down_l is a strided
    convolution, up_l its counterpart: nearest-neighbour resize and convolution, which leaves no checkerboard as a
    transposed convolution does (Odena et al. 2016, DOI 10.23915/distill.00003); both are followed by a leaky ReLU,
    and with stride 1 both are left out. The coarsest forecaster layer has no input: all it knows is its state. So
    the horizon is free at every call, and the first steps do not depend on how many follow.

    A grid of any size is padded at its far ends to a multiple of ``patch * prod(strides)``; the forecast is cropped.
    The padding repeats the edge: zeros would mean another value in each scaling and draw a false front there.

    With ``residual`` the head has two fields, a change d and a keeping k, and with the last observed value x of each
    pixel the forecast is

        2 sigmoid(k) x + d

    The head starts at zero: untrained, the network is persistence. Keeping is a factor, so that smooth fields can fade
    what was there (damped persistence of an anomaly; rain that moves on) without drawing all its detail once more.
    With two ``bands`` or more x is split into that many bands of scale, each of which fades and goes on changing as it
    was seen to do in the history, and has a keeping of its own (`cubecast.nn.fading.Fading`). The head then has one
    point a patch, and pixels are interpolated: detail is that of the bands, and patches leave no pattern in it.

    With ``noise_channels`` it forecasts members of an ensemble: at every step each forecaster layer has white noise
    as a further input, and the recurrent state makes it coherent in time, the convolutions in space. One noise, drawn
    on the grid of the finest layer, serves all: a coarser layer gets its means over s x s points, times s (white noise
    of variance 1 again). So the encoder runs once for all members. Without noise (None) it is zero.

    With bands and ``renewal`` noise takes the place of what fades (`cubecast.nn.renewal.Renewal`): members, too.
    Without noise channels all of the network runs once for all.

    Sources: Shi et al. (2015), DOI 10.48550/arXiv.1506.04214; Shi et al. (2017), DOI 10.48550/arXiv.1706.03458;
    noise as an input trained with the CRPS: Lang et al. (2024), DOI 10.48550/arXiv.2412.15832.

    Args:
        layout: what the input channels are.
        hidden_channels: one number a layer, from the finest on; encoder and forecaster share them.
        strides: downscaling before each layer.
        patch: side of the patches, in pixels.
        make_cell: builds the cell of one layer.
        grid: y and x size of the frames, when the cells need to know it; None: any.
        residual: forecast what is kept of the last observed value, and the change.
        bands: of scale that the last observed field is split into (a history of 2 frames or more); 1: it is kept as a
            whole.
        curvatures: one c for each output whose model space is log(1 + c u) / c, 0 where it is straight; none: all are.
        noise_channels: planes of white noise that each forecaster layer is given; 0: none.
        renewal: whether noise takes the place of what fades, with bands.

    Raises:
        UsageError: not as many strides as layers.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        hidden_channels: Sequence[int],
        strides: Sequence[int],
        patch: int,
        make_cell: CellFactory,
        grid: tuple[int, int] | None = None,
        residual: bool = True,
        bands: int = 1,
        curvatures: Sequence[float] = (),
        noise_channels: int = 0,
        renewal: bool = False,
    ) -> None:
        super().__init__()
        if len(strides) != len(hidden_channels):
            raise UsageError("strides", found=list(strides), allowed=f"one for each of {list(hidden_channels)}")
        self.layout, self.patch, self.grid = layout, patch, grid
        self.residual, self.bands = residual, bands
        self.noise_channels, self.strides = noise_channels, tuple(strides)
        renewed = patch * strides[0] if renewal else None
        banded = residual and bands > 1
        self.fading = Fading(layout, bands, curvatures, spacing=patch, renewed=renewed) if banded else None
        self.multiple = math.lcm(patch * math.prod(strides), self.fading.multiple if self.fading else 1)
        self.down, self.encoder = nn.ModuleList(), nn.ModuleList()
        self.up, self.forecaster = nn.ModuleList(), nn.ModuleList()
        width, scale = layout.total * patch**2, patch
        for index, (hidden, stride) in enumerate(zip(hidden_channels, strides, strict=True)):
            scale *= stride
            size = None if grid is None else (self._padded(grid[0]) // scale, self._padded(grid[1]) // scale)
            coarser = hidden_channels[index + 1] if index + 1 < len(hidden_channels) else 0
            self.down.append(downscale(width, hidden, stride))
            self.encoder.append(RecurrentLayer(make_cell(width if stride == 1 else hidden, hidden, size)))
            self.forecaster.append(RecurrentLayer(make_cell(coarser + noise_channels, hidden, size)))
            self.up.append(upscale(hidden, stride))
            width = hidden
        self.head = nn.Conv2d(hidden_channels[0], layout.outputs * self._fields * (1 if banded else patch**2), 1)
        if residual:
            for parameter in self.head.parameters():
                nn.init.zeros_(parameter)

    @property
    def _fields(self) -> int:
        """That the head says for each output: the change, and what is kept."""
        return 1 + (self.fading.fields if self.fading else 1) if self.residual else 1

    @property
    def planes(self) -> int:
        """Of noise that a member takes at each lead: those of the layers, then those of the renewal."""
        renewal = self.fading.renewal if self.fading else None
        return self.noise_channels + (renewal.planes if renewal else 0)

    def forward(self, frames: Frames, horizon: int, noise: Noise | None = None) -> Forecast:
        """Forecast ``horizon`` frames from ``frames``, in model space.

        Args:
            frames: the history.
            horizon: steps to forecast.
            noise: of `draw_noise`; the forecast then has its batch: the members of one sample one after the other. With
                its first ``noise_channels`` planes alone each is the mean over the renewal.

        Raises:
            UsageError: horizon below 1, another number of channels, or another grid than the one that per-pixel
                peepholes were made for.
        """
        return self.forecasts(frames, horizon, steady=noise is None)(noise)

    def forecasts(self, frames: Frames, horizon: int, *, steady: bool = False) -> Forecasts:
        """`forward` for one noise after the other: what all share is done once.

        ``steady``: for one forecast without noise of the renewal, which is asked for once.
        """
        leads = self.leads(frames, horizon, steady=steady)
        return lambda noise: torch.stack(list(leads(noise)), dim=1)

    def leads(
        self, frames: Frames, horizon: int, *, steady: bool = False, astray: Callable[[int], Field] | None = None
    ) -> Leads:
        """`forecasts` lead by lead, which takes less memory, the least with ``steady``.

        What all share is all of the network where it has no noise channels. ``astray`` says how far, in pixels
        (standard deviation), what is kept may be from its place at a lead (batch, 1, y, x): bands are smoothed by it.
        """
        self._check(frames, horizon)
        if self.noise_channels:
            return lambda noise: self._finished(frames, self._said(frames, horizon, noise), steady, astray)(noise)
        return self._finished(frames, self._said(frames, horizon, None), steady, astray)

    def _finished(
        self, frames: Tensor, said: Iterator[Tensor], steady: bool, astray: Callable[[int], Field] | None
    ) -> Leads:
        """The forecasts from what the head says of each lead, given noise of the renewal."""
        if self.fading is not None:
            kept, fading = self.fading.keep(frames, said, astray), self.fading
            kept = kept if steady else kept._replace(leads=[lead.alone() for lead in kept.leads])
            return lambda noise: fading(kept, None if noise is None else noise[:, :, self.noise_channels :])
        ny, nx = frames.shape[-2:]
        pixels = (F.pixel_shuffle(one, self.patch)[..., :ny, :nx] for one in said)
        each = self._kept(frames, pixels) if self.residual else pixels
        fields = each if steady else list(each)
        return lambda noise: iter(fields)

    def _said(self, frames: Tensor, horizon: int, noise: Tensor | None) -> Iterator[Tensor]:
        """What the head says of each lead, patch by patch; once for each sample without noise channels."""
        return (of_points(self.head, lead) for lead in self._unrolled(frames, horizon, noise).unbind(1))

    def _unrolled(self, frames: Tensor, horizon: int, noise: Tensor | None) -> Tensor:
        """What goes into the head."""
        if not self.noise_channels:
            noise = None
        elif noise is None:
            noise = frames.new_zeros(self._noise_shape(frames, horizon, 1, self.noise_channels))
        else:
            noise = noise[:, :, : self.noise_channels]
        sequence = F.pixel_unshuffle(self._pad(frames), self.patch)
        states = []
        for down, layer in zip(self.down, self.encoder, strict=True):
            sequence, state = layer(each_frame(down, sequence), frames.shape[1])
            states.append(state)
        members = 1 if noise is None else noise.shape[0] // frames.shape[0]
        above: Tensor | None = None
        for index in reversed(range(len(states))):
            state = tuple(s.repeat_interleave(members, dim=0) for s in states[index]) if members > 1 else states[index]
            outputs, _ = self.forecaster[index](self._with_noise(above, noise, index), horizon, state)
            sequence = above = each_frame(self.up[index], outputs)
        return sequence

    def _kept(self, frames: Tensor, said: Iterator[Tensor]) -> Iterator[Field]:
        """The change, and what is kept of the last observed fields."""
        last = self.layout.last_observed(frames)
        for one in said:
            change, keeping = one.unflatten(0, (len(last), -1)).chunk(2, dim=2)
            yield (2 * keeping.sigmoid().to(last.dtype) * last + change).flatten(0, 1)

    def draw_noise(
        self,
        frames: Frames,
        horizon: int,
        *,
        members: int,
        seed: int,
        corner: tuple[int, int] = (0, 0),
        renewing: bool = True,
    ) -> Noise | None:
        """Standard normal noise for ``members`` forecasts of each sample; None where nothing takes any.

        Without ``renewing`` that of the layers alone, so that each forecast is the mean over the renewal.

        It is drawn on the CPU, the same for a seed on every device, and block by block: that of a window of a grid,
        whose first pixel is at ``corner`` (a multiple of `multiple`), is the noise of the grid there.
        """
        planes = self.planes if renewing else self.noise_channels
        if not planes:
            return None
        first = (corner[0] // (self.patch * self.strides[0]), corner[1] // (self.patch * self.strides[0]))
        return draw_blocks(self._noise_shape(frames, horizon, members, planes), seed=seed, first=first).to(frames)

    def receptive_field(self, history: int, horizon: int) -> int:
        """How many pixels away from a pixel a frame of the history can bear on its forecast.

        Each step of a layer looks ``reach`` points of its grid further, and states go from step to step, so that it is
        widest from the first frame through the coarsest layer to the last lead:

            s_l (T + H) reach_l + what is looked at between the layers + s_l - 1,  s_l = patch * strides_0 ... strides_l
        """
        into, scale = 0, self.patch
        states = []
        for layer, stride in zip(self.encoder, self.strides, strict=True):
            into += stride // 2 * scale  # the convolution that scales down
            scale *= stride
            cell: Any = layer.cell
            step = cell.reach * scale
            states.append((into + history * step, step))
            into += step
        widest = 0
        for index in reversed(range(len(states))):
            state, step = states[index]
            widest = max(state + horizon * step, widest + step if index + 1 < len(states) else 0)
            scale //= self.strides[index]
            widest += scale if self.strides[index] > 1 else 0  # the convolution after scaling up
        # A pixel may lie at either end of its patch; what is kept of the last field is looked for in that field alone.
        between = self.patch if self.fading else 0  # points of the head, which are interpolated
        return max(widest + between + self.multiple - 1, reach(self.bands) if self.fading else 0)

    def _noise_shape(self, frames: Tensor, horizon: int, members: int, planes: int) -> tuple[int, ...]:
        sides = (self._padded(n) // (self.patch * self.strides[0]) for n in frames.shape[-2:])
        return (frames.shape[0] * members, horizon, planes, *sides)

    def _with_noise(self, above: Tensor | None, noise: Tensor | None, index: int) -> Tensor | None:
        """What comes from the coarser layer, and noise on the grid of layer ``index``."""
        if noise is None:
            return above
        scale = math.prod(self.strides[1 : index + 1])
        own = noise if scale == 1 else each_frame(lambda f: F.avg_pool2d(f, scale) * scale, noise)
        return own if above is None else torch.cat([above, own.to(above.dtype)], dim=2)

    def _check(self, frames: Tensor, horizon: int) -> None:
        if horizon < 1:
            raise UsageError("horizon", found=horizon, allowed="1 or more steps")
        if frames.shape[2] != self.layout.total:
            raise UsageError("input of the network", found=f"{frames.shape[2]} channels", allowed=self.layout.total)
        if self.grid is not None and tuple(frames.shape[-2:]) != self.grid:
            raise UsageError(
                "grid of the input",
                found=tuple(frames.shape[-2:]),
                allowed=f"{self.grid}, which the per-pixel peepholes were made for",
                remedy="train with peephole 'channel' or 'none' for a model that takes any grid",
            )

    def _padded(self, size: int) -> int:
        return -(-size // self.multiple) * self.multiple

    def _pad(self, frames: Tensor) -> Tensor:
        ny, nx = frames.shape[-2:]
        pad = (0, self._padded(nx) - nx, 0, self._padded(ny) - ny)
        return each_frame(lambda f: F.pad(f, pad, mode="replicate"), frames) if any(pad) else frames
