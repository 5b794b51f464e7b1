"""A forecaster in Lagrangian coordinates: rain stands still for it, so that it learns growth and decay alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cubecast.nn.advection import Trajectories, interpolate, within
from cubecast.nn.box import Windows
from cubecast.nn.layout import Layout
from cubecast.nn.members import draw_noise
from cubecast.nn.motion import WINDOW, estimate_motion
from cubecast.shapes import Field, Forecast, Frames, Motion, Noise, Part

WIDER = 5
"""How much wider the windows of a motion are than those of the one before."""


@final
class Lagrangian(nn.Module):
    """Any forecaster, seen from the moving air.

        v = motion(f_1 ... f_T)                                        from the output variables
        g_i(x) = f_i(X_{T-i}(x))                                       the history, brought to the reference time
        h_1 ... h_H = forecaster(g_1 ... g_T)                          growth and decay, in place
        forecast_l(x) = h_l(X_l(x))                                    brought to the valid time

    X_l(x) is where the air at x was l steps before (`cubecast.nn.advection.trajectories`). The frame at the reference
    time is not interpolated, so every forecast is interpolated once. What the history brings in from outside of the
    grid is missing: 0, and 0 in the mask channels where there are any. What a forecast brings in from there is
    0, too (in model space: dry, or the mean): nothing is known of it. Static fields stay where they are at the
    reference time. With a forecaster that repeats the last frame this is extrapolation.

    Motion is estimated, not learned; it has no parameters, and gradients reach the forecaster through the advection.

    The members of a forecaster with noise may move along several motions, the first members along the first: each is
    found within windows `WIDER` times as wide as those of the one before. Small whirls carry rain for a while, what
    moves as a whole goes on for longer, and which is right is not known: STEPS disturbs the motion of its members for
    the same reason (Bowler et al. 2006, DOI 10.1256/qj.04.100).

    Sources: Ritvanen et al. (2023), DOI 10.1109/JSTARS.2023.3238016; Pavlik et al. (2024),
    DOI 10.48550/arXiv.2402.10747.

    Args:
        forecaster: called as ``forecaster(frames, horizon)``.
        layout: what its input channels are.
        window: of the motion, in pixels (`cubecast.nn.motion.estimate_motion`).
        motions: how many there are for the members of an ensemble.
    """

    def __init__(self, forecaster: nn.Module, layout: Layout, *, window: float = WINDOW, motions: int = 1) -> None:
        super().__init__()
        self.forecaster, self.layout = forecaster, layout
        self.windows = tuple(window * WIDER**number for number in range(motions))

    def forward(self, frames: Frames, horizon: int, noise: Noise | None = None) -> Forecast:
        """Forecast ``horizon`` frames from 2 or more ``frames``, in model space.

        ``noise`` is the forecaster's.

        Raises:
            UsageError: fewer than 2 frames, or what the forecaster refuses.
        """
        outputs, inputs = self.layout.outputs, self.layout.inputs
        seen = frames[:, :, inputs : inputs + outputs] > 0.5 if self.layout.masks else None
        members = 1 if noise is None else noise.shape[0] // len(frames)
        found = [estimate_motion(frames[:, :, :outputs], seen, window=w) for w in self.windows[:members]]
        return self.forecast_part(frames, horizon, [follow(motion) for motion in found], noise=noise)

    def forecast_part(
        self,
        frames: Frames,
        horizon: int,
        paths: Sequence[Trajectories],
        *,
        windows: Windows | None = None,
        noise: Noise | None = None,
    ) -> Part:
        """Forecast with known motion, on a part of the grid.

        Args:
            frames: in the window ``windows.read`` of the grid.
            horizon: as in `forward`.
            paths: of all of the grid, from `follow`, for each motion.
            windows: where; None: on all of the grid.
            noise: that of the forecaster in the window ``windows.here``.

        Returns:
            The forecast in the window ``windows.part``.
        """
        if noise is None:
            return self._forecast_along(paths[0], frames, horizon, windows, None)
        each = noise.unflatten(0, (len(frames), -1))
        share = -(-each.shape[1] // len(paths))
        parts = [
            self._forecast_along(path, frames, horizon, windows, own.flatten(0, 1)).unflatten(0, (len(frames), -1))
            for path, own in zip(paths, each.split(share, dim=1), strict=False)  # few members may leave motions over
        ]
        return torch.cat(parts, dim=1).flatten(0, 1)

    def _forecast_along(
        self, paths: Trajectories, frames: Tensor, horizon: int, windows: Windows | None, noise: Tensor | None
    ) -> Tensor:
        """`forecast_part` along one motion."""
        brought = self._bring_history(frames, paths, windows)
        # A forecaster without noise need not know of it.
        grown = self.forecaster(brought, horizon) if noise is None else self.forecaster(brought, horizon, noise)
        members, carried = len(grown) // len(frames), []
        for lead, points in enumerate(paths.points(horizon, windows.part if windows else None)):
            at = within(points, paths.size, windows.here) if windows else points
            carried.append(_bring(grown[:, lead], at.repeat_interleave(members, dim=0)))
        return torch.stack(carried, dim=1)

    def _bring_history(self, frames: Frames, paths: Trajectories, windows: Windows | None) -> Tensor:
        """The history as the air at the reference time saw it; static fields stay where they are."""
        inputs, past = self.layout.inputs, frames.shape[1] - 1
        values, others = frames.tensor_split([inputs], dim=2)
        masks = others[:, :, :inputs] > 0.5 if self.layout.masks else None
        here = windows.here.inside(windows.read) if windows else (slice(None), slice(None))
        carried, there = [values[:, -1:, :, *here]], [] if masks is None else [masks[:, -1:, :, *here]]
        for back, points in enumerate(paths.points(past, windows.here if windows else None), start=1):
            one = slice(past - back, past - back + 1)
            at = within(points, paths.size, windows.read) if windows else points
            value, known = interpolate(values[:, one], at[:, None], observed=None if masks is None else masks[:, one])
            carried.insert(0, value)
            there.insert(0, known)
        parts = [torch.cat(carried, dim=1)]
        if masks is not None:
            parts.append(torch.cat(there, dim=1).to(frames.dtype))
        return torch.cat([*parts, others[:, :, inputs if self.layout.masks else 0 :, *here]], dim=2)

    def draw_noise(self, frames: Frames, horizon: int, **how: Any) -> Noise | None:
        """The noise of the forecaster, in the moving air; see `EncoderForecaster.draw_noise`."""
        return draw_noise(self.forecaster, frames, horizon, **how)


def follow(motion: Motion) -> Trajectories:
    """The way of the air in a motion.

    Without gradients in float64: whether the air of a pixel came from outside of the grid is a matter of a hair, and
    must not depend on which part of the grid is looked at.
    """
    exact = not torch.is_grad_enabled() and motion.device.type != "mps"  # Apple's has no float64
    return Trajectories(motion, dtype=torch.float64 if exact else None)


def _bring(field: Field, points: Tensor) -> Tensor:
    """A field at points (batch, y, x, 2); 0 more than half a pixel beyond the grid."""
    moved = F.grid_sample(field.to(points.dtype), points, padding_mode="border", align_corners=True)
    pixels = points.new_tensor([(n - 1) / 2 for n in (field.shape[-1], field.shape[-2])])
    inside = ((points.abs() - 1) * pixels <= 0.5).all(dim=-1)
    return (moved * inside[:, None]).to(torch.promote_types(field.dtype, torch.float32))
