"""The motion of a history of frames: least squares from coarse to fine.

Plain tensor operations, batched and differentiable in the frames, without random numbers.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from cubecast.errors import UsageError
from cubecast.nn.advection import displaced, interpolate
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
    if frames.shape[1] < 2:
        raise UsageError("frames to estimate motion from", found=frames.shape[1], allowed="2 or more")
    if window < 1:
        raise UsageError("window of the motion", found=window, allowed="1 pixel or more")
    # A window is two or more cells wide on its level; finer levels than that would add time and noise.
    finest = max(0, int(math.log2(max(window / (2.5 * CELL), 1))))
    width = window / (CELL * 2**finest)
    # In half precision the normal equations would cancel.
    with _exactly(frames.device.type):
        exact = frames if frames.dtype == torch.float64 else frames.float()
        levels = _pyramid(exact, observed, finest)
        motion = exact.new_zeros(exact.shape[0], 2, 1, 1)
        for number, (values, seen) in enumerate(reversed(levels)):
            cells = (values.shape[-2] // CELL, values.shape[-1] // CELL)
            motion = _resize(motion, cells) * (2 if number else 1)
            for wide, lags in _plan(number == 0, number == len(levels) - 1):
                sums = [_normal_equations(values, seen, motion, lag) for lag in lags if lag < values.shape[1]]
                motion = motion + _solve(torch.stack(sums).sum(dim=0), None if wide else width)
        scale = 2**finest
        ny, nx = frames.shape[-2:]
        return _resize(motion * scale, tuple(n * CELL * scale for n in motion.shape[2:]))[..., :ny, :nx]


def _exactly(device: str) -> AbstractContextManager[None]:
    known = torch.amp.is_autocast_available(device)  # not for meta tensors
    return torch.autocast(device, enabled=False) if known else nullcontext()


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
            mean, known = _smooth(values) / share.clamp(min=1e-3), share > 0.9
            levels.append((mean.unflatten(0, frames.shape[:2]), known.unflatten(0, frames.shape[:2])))
    return levels


def _plan(coarsest: bool, finest: bool) -> list[tuple[bool, tuple[int, ...]]]:
    """The solutions of a level one after the other: whether one motion for the whole field, and from which lags.

    Neighbouring frames alone come first, until what distant ones tell is no longer a wave or more off.
    """
    start = [(True, LAGS[:1])] * 2 if coarsest else []
    return [*start, *([] if finest else [(False, LAGS[:1])]), (False, LAGS), (False, LAGS)]


def _smooth(fields: Tensor) -> Tensor:
    """Weights 1 2 1 along y and x."""
    side = fields.new_tensor([0.25, 0.5, 0.25])
    kernel = (side[:, None] * side).expand(fields.shape[1], 1, 3, 3)
    return F.conv2d(fields, kernel, padding=1, groups=fields.shape[1])


def _normal_equations(values: Tensor, seen: Tensor, motion: Tensor, lag: int) -> Tensor:
    """Means over cells of g_y g_y, g_y g_x, g_x g_x, g_y r and g_x r (batch, 5, y, x), summed over pairs.

    g is the gradient along the lagged motion of what two frames have in common, r their difference, both after the
    frames were brought together by ``motion``.
    """
    half = _resize(motion, tuple(values.shape[-2:])) * (lag / 2)
    earlier, known = _brought(values[:, :-lag], seen[:, :-lag], -half)
    later, also = _brought(values[:, lag:], seen[:, lag:], half)
    known = known & also
    inner = 1 - F.max_pool2d((~known).to(values.dtype), 3, stride=1, padding=1)
    pairs = values.shape[1] - lag
    weight = inner * _recent(pairs, values).repeat_interleave(values.shape[2])[:, None, None]
    dy, dx = _gradient((earlier + later) * (lag / 2))
    change = later - earlier
    terms = (weight * a * b for a, b in ((dy, dy), (dy, dx), (dx, dx), (dy, change), (dx, change)))
    return F.avg_pool2d(torch.stack([term.sum(dim=1) for term in terms], dim=1), CELL)


def _recent(pairs: int, like: Tensor) -> Tensor:
    return RECENT ** torch.arange(pairs - 1, -1, -1, device=like.device, dtype=like.dtype)


def _brought(values: Tensor, seen: Tensor, displacement: Tensor) -> tuple[Tensor, Tensor]:
    """Frames and masks at pixels + displacement, time and channels in one dim (batch, n, y, x)."""
    at = displaced(displacement)
    fields, known = interpolate(values.flatten(1, 2)[:, None], at, observed=seen.flatten(1, 2)[:, None])
    return fields[:, 0], known[:, 0]


def _gradient(fields: Tensor) -> tuple[Tensor, Tensor]:
    padded = F.pad(fields, (1, 1, 1, 1), mode="replicate")
    along_y = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    return along_y, (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2


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
