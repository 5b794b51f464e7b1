"""The motion of a history of frames: least squares from coarse to fine.

Plain tensor operations, batched and differentiable in the frames, without random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from cubecast.errors import UsageError
from cubecast.nn.advection import among_observed
from cubecast.nn.box import Box
from cubecast.nn.neighbours import sum_square
from cubecast.nn.trajectories import places
from cubecast.precision import full_precision
from cubecast.shapes import Frames, Motion, Observed

# Chosen on generated rain and on radar events of five networks; none of them is at a sharp optimum.
WINDOW = 24.0
"""Standard deviation, in pixels, of the window within which motion is about the same."""
LAGS = (1, 3)
"""Which pairs of frames are compared, in steps: neighbours find fast motion, distant ones say it more exactly."""
RECENT = 0.85
"""Weight of a pair relative to the pair one step after it."""
DAMPING = 0.05
"""How strongly motion keeps to that of the coarser level where there is little to see, in mean squared gradients."""
LIMIT = 2.0
"""Largest change of motion in one solution, in pixels of the level."""
CELL = 4
"""Side, in pixels of a level, of the cells on which motion is solved for."""
BAND = 2**21
"""Values of pairs of frames that are compared at once: what takes memory."""
LARGEST = 2**23
"""Pixels of the largest level that motion is solved on: larger grids are halved first, for memory."""
COARSEST = 24
"""Levels are halved as long as their shorter side keeps this many pixels."""


def estimate_motion(frames: Frames, observed: Observed | None = None, *, window: float = WINDOW) -> Motion:
    """The one motion that best brings all frames of a history together.

    For pairs of frames f_i, f_j with the lag j - i = k (1 and 3 steps), weighted towards the recent, the motion v
    minimises within a Gaussian window around each pixel

        sum over pairs and pixels   w (f_j(x + k v / 2) - f_i(x - k v / 2))^2

    by Gauss-Newton steps (Lucas and Kanade 1981, https://www.ijcai.org/Proceedings/81-2/Papers/017.pdf) on a pyramid of
    smoothed and halved frames (Bouguet 2001; for radar Bowler et al. 2004, DOI 10.1016/j.jhydrol.2003.11.011). The
    window is as many pixels wide on every level: coarse levels find the large displacements of the whole field, finer
    ones how it differs from place to place. A damping term keeps the motion of the coarser level where a window has no
    gradients, so that dry and missing places take the motion of their wider surroundings; where nothing is to be seen
    at all, motion is 0. Values should be in a space without spikes: log(rain rate), not rain rate.

    Args:
        frames: (batch, time, channel, y, x), 2 frames or more; all channels move together.
        observed: True where a value was observed; None: everywhere. Missing pixels and their neighbours do not count.
        window: in pixels.

    Returns:
        Pixels a step, towards growing y and x (batch, 2, y, x).

    Raises:
        UsageError: fewer than 2 frames, or a window below 1 pixel.
    """
    *_, (_, motion) = estimate_motions(frames, observed, window=window)
    return motion


def estimate_motions(
    frames: Frames, observed: Observed | None = None, *, window: float = WINDOW
) -> Iterator[tuple[float, Motion]]:
    """What `estimate_motion` finds on the way: the motion within wider windows, too.

    Args:
        frames, observed, window: as there.

    Returns:
        Windows in pixels and the motion within them, the widest first, each half as wide as the one before it, the last
        as wide as ``window``.

    Raises:
        UsageError: as `estimate_motion`.
    """
    _check(frames.shape[1], window)
    # In half precision the normal equations would cancel.
    with full_precision(frames.device.type):
        exact = frames if frames.dtype == torch.float64 else frames.float()
        levels = _pyramid(exact, observed, finest_level(window, frames.shape[-2:]))
    return _solve_levels(levels, frames.shape[-2:], window)


@final
class FrameByFrame:
    """The motion of a history whose frames come one at a time; of each no more is kept than motion is solved on.

    The same as `estimate_motions` of all frames, without gradients, for one sample.

    Args:
        frames: how many will come.
        window: in pixels.

    Raises:
        UsageError: as `estimate_motion`.
    """

    def __init__(self, frames: int, *, window: float = WINDOW) -> None:
        _check(frames, window)
        self._count, self._window, self._frames = frames, window, 0
        self._levels: list[tuple[Tensor, Tensor]] = []
        self._size: tuple[int, int] | None = None

    def add(self, frame: Frames, observed: Observed | None = None) -> None:
        """The next frame (1, 1, channel, y, x), and where it was observed."""
        self._size = (frame.shape[-2], frame.shape[-1])
        with torch.no_grad(), full_precision(frame.device.type):
            found = _pyramid(frame.float(), observed, finest_level(self._window, self._size))
        if not self._levels:
            shapes = [(1, self._count, *values.shape[2:]) for values, _ in found]
            self._levels = [(v.new_empty(n), k.new_empty(n)) for (v, k), n in zip(found, shapes, strict=True)]
        for level, one in zip(self._levels, found, strict=True):
            for whole, part in zip(level, one, strict=True):
                whole[:, self._frames] = part[:, 0]
        self._frames += 1

    def motions(self) -> Iterator[tuple[float, Motion]]:
        """The motions, once all frames are there."""
        assert self._size is not None
        assert self._frames == self._count
        levels, self._levels = self._levels, []
        return _solve_levels(levels, self._size, self._window)


def _check(frames: int, window: float) -> None:
    if frames < 2:
        raise UsageError("frames to estimate motion from", found=frames, allowed="2 or more")
    if window < 1:
        raise UsageError("window of the motion", found=window, allowed="1 pixel or more")


def finest_level(window: float, size: Sequence[int]) -> int:
    """How many times frames of a grid are halved for the finest level that motion is solved on."""
    # A window is two or more cells wide on its level; finer levels than that would add time and noise.
    wide = int(math.log2(max(window / (2.5 * CELL), 1)))
    return max(wide, math.ceil(math.log(max(math.prod(size) / LARGEST, 1), 4)))


def _solve_levels(
    levels: list[tuple[Tensor, Tensor]], size: Sequence[int], window: float
) -> Iterator[tuple[float, Motion]]:
    """Windows and motions on a grid of ``size``, from the levels of a pyramid, finest first, which are let go."""
    finest, count = finest_level(window, size), len(levels)
    width = window / (CELL * 2**finest)
    motion = levels[0][0].new_zeros(levels[0][0].shape[0], 2, 1, 1)
    for number in range(count):
        values, seen = levels.pop()
        if values.shape[2] == 1 and not seen.is_meta and bool((seen == seen[:, :1]).all()):
            seen = seen[:, :1]  # one for all frames, as radars mostly have it: half of the work
        with full_precision(values.device.type):
            cells = (values.shape[-2] // CELL, values.shape[-1] // CELL)
            motion = _resize(motion, cells) * (2 if number else 1)
            for wide, lags in _plan(number == 0, number == count - 1):
                sums = [_normal_equations(values, seen, motion, lag) for lag in lags if lag < values.shape[1]]
                motion = motion + _solve(torch.stack(sums).sum(dim=0), None if wide else width)
        del values, seen
        wider = 2 ** (count - 1 - number)
        scale = wider * 2**finest
        whole = _resize(motion * scale, tuple(n * CELL * scale for n in motion.shape[2:]))
        yield window * wider, whole[..., : size[0], : size[1]]


def _pyramid(frames: Tensor, observed: Tensor | None, finest: int) -> list[tuple[Tensor, Tensor]]:
    """Values and masks of the levels from ``finest`` (its number of halvings) on, smoothed among what was observed."""
    ny, nx = frames.shape[-2:]
    halvings = max(finest, int(math.log2(max(min(ny, nx) / COARSEST, 1))))
    multiple = CELL * 2**halvings
    mask = torch.ones_like(frames) if observed is None else observed.to(frames.dtype)
    pad = (0, -nx % multiple, 0, -ny % multiple)
    values, seen = F.pad((frames * mask).flatten(0, 1), pad), F.pad(mask.flatten(0, 1), pad)
    levels = []
    for number in range(halvings + 1):
        if number:
            values, seen = F.avg_pool2d(values, 2), F.avg_pool2d(seen, 2)
        if number >= finest:
            share = _smooth(seen)
            mean, known = _smooth(values) / share.clamp(min=0.016), share > 0.9 * 16
            levels.append((mean.unflatten(0, frames.shape[:2]), known.unflatten(0, frames.shape[:2])))
    return levels


def _plan(coarsest: bool, finest: bool) -> list[tuple[bool, tuple[int, ...]]]:
    """The solutions of a level one after the other: whether one motion for the whole field, and from which lags.

    Neighbouring frames alone come first, until what distant ones tell is no longer a wave or more off.
    """
    start = [(True, LAGS[:1])] * 2 if coarsest else []
    return [*start, *([] if finest else [(False, LAGS[:1])]), (False, LAGS), (False, LAGS)]


def _smooth(fields: Tensor) -> Tensor:
    """Sums with the weights 1 2 1 along y and x."""
    return sum_square(fields, middle=2.0)


def _normal_equations(values: Tensor, seen: Tensor, motion: Tensor, lag: int) -> Tensor:
    """Means over cells of g_y g_y, g_y g_x, g_x g_x, g_y r and g_x r (batch, 5, y, x), summed over pairs.

    g is the gradient along the lagged motion of what two frames have in common, r their difference, both after the
    frames were brought together by ``motion``. Bands of rows are done one after the other where fields are large.
    """
    half = _resize(motion, tuple(values.shape[-2:])) * (lag / 2)
    cells, pairs = values.shape[-2] // CELL, values[:, lag:].numel()
    at_once = cells if pairs <= BAND or values.is_meta else max(1, BAND * cells // pairs)
    reach = values.shape[-2] if at_once == cells else math.ceil(float(half.abs().max())) + 2
    bands = [range(first, min(first + at_once, cells)) for first in range(0, cells, at_once)]
    return torch.cat([_band_equations(values, seen, half, lag, band, reach) for band in bands], dim=2)


def _band_equations(values: Tensor, seen: Tensor, half: Tensor, lag: int, cells: range, reach: int) -> Tensor:
    """`_normal_equations` of some rows of cells, from the rows of pixels within ``reach`` of them."""
    ny, nx = values.shape[-2:]
    first, stop = cells.start * CELL, cells.stop * CELL
    band = slice(max(0, first - 1), min(ny, stop + 1))  # one row more on each side is for the gradients
    source = Box(max(0, band.start - reach), min(ny, band.stop + reach), 0, nx)
    inner = slice(first - band.start, stop - band.start)
    values, seen = (a[..., source.slices[0], :] for a in (values, seen))
    moved, here = half[:, :, band].flip(1), Box(band.start, band.stop, 0, nx)
    before, after = (places(sign * moved, here, source) for sign in (-1, 1))
    pairs = values.shape[1] - lag
    masks = (seen, seen) if seen.shape[1] == 1 else (seen[:, :-lag], seen[:, lag:])
    # Time and channels in one dim.
    earlier, known = among_observed(values[:, :-lag].flatten(1, 2), masks[0].flatten(1, 2), before)
    later, also = among_observed(values[:, lag:].flatten(1, 2), masks[1].flatten(1, 2), after)
    sure = (sum_square((~(known & also)).to(values.dtype)) == 0)[..., inner, :]
    weight = sure * _recent(pairs, values).repeat_interleave(values.shape[2])[:, None, None]
    change = (later - earlier)[..., inner, :]
    dy, dx = (g[..., inner, :] for g in _differences((earlier + later) * (lag / 4)))
    weighted_y, weighted_x = weight * dy, weight * dx
    pairs_of = ((weighted_y, dy), (weighted_y, dx), (weighted_x, dx), (weighted_y, change), (weighted_x, change))
    return F.avg_pool2d(torch.stack([(a * b).sum(dim=1) for a, b in pairs_of], dim=1), CELL)


def _recent(pairs: int, like: Tensor) -> Tensor:
    return RECENT ** torch.arange(pairs - 1, -1, -1, device=like.device, dtype=like.dtype)


def _differences(fields: Tensor) -> tuple[Tensor, Tensor]:
    """Between the two neighbours of each pixel along y and x, at the edges the pixel and its neighbour."""
    padded = F.pad(fields, (1, 1, 1, 1), mode="replicate")
    return padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1], padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]


def _solve(sums: Tensor, width: float | None) -> Tensor:
    """The change of motion, in pixels of the level, within windows of ``width`` cells; None: one for the field."""
    mean = sums.mean(dim=(2, 3), keepdim=True)
    yy, yx, xx, y, x = (mean if width is None else _window(sums, width)).expand_as(sums).unbind(1)
    # Something is added where nothing is to be seen: 0 / 0 is no motion.
    ridge = DAMPING * (mean[:, 0] + mean[:, 2]) / 2 + 1e-9
    yy, xx = yy + ridge, xx + ridge
    change = torch.stack([yx * x - xx * y, yx * y - yy * x], dim=1) / (yy * xx - yx**2)[:, None]
    return change.clamp(-LIMIT, LIMIT)


def _window(sums: Tensor, width: float) -> Tensor:
    """Gaussian means along y and x; nothing lies outside of the grid."""
    rows, columns = (_weights(n, width, sums) for n in sums.shape[2:])
    return rows @ sums @ columns


def _weights(size: int, width: float, like: Tensor) -> Tensor:
    """The symmetric matrix that sums within a window."""
    place = torch.arange(size, device=like.device, dtype=like.dtype)
    return torch.exp(-(((place[:, None] - place) / width) ** 2) / 2) / (width * math.sqrt(2 * math.pi))


def _resize(motion: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(motion, size=size, mode="bilinear", align_corners=False)
