"""A forecaster in Lagrangian coordinates: rain stands still for it, so that it learns growth and decay alone."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cubecast.nn.advection import Trajectories, interpolate, within
from cubecast.nn.box import Windows
from cubecast.nn.layout import Layout
from cubecast.nn.members import draw_noise
from cubecast.nn.motion import WINDOW, estimate_motion
from cubecast.shapes import Field, Forecast, Frames, Motion, Noise, Part


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

    Sources: Ritvanen et al. (2023), DOI 10.1109/JSTARS.2023.3238016; Pavlik et al. (2024),
    DOI 10.48550/arXiv.2402.10747.

    Args:
        forecaster: called as ``forecaster(frames, horizon)``.
        layout: what its input channels are.
        window: of the motion, in pixels (`cubecast.nn.motion.estimate_motion`).
    """

    def __init__(self, forecaster: nn.Module, layout: Layout, *, window: float = WINDOW) -> None:
        super().__init__()
        self.forecaster, self.layout, self.window = forecaster, layout, window

    def forward(self, frames: Frames, horizon: int, noise: Noise | None = None) -> Forecast:
        """Forecast ``horizon`` frames from 2 or more ``frames``, in model space.

        ``noise`` is the forecaster's: all members of a sample move alike.

        Raises:
            UsageError: fewer than 2 frames, or what the forecaster refuses.
        """
        outputs, inputs = self.layout.outputs, self.layout.inputs
        seen = frames[:, :, inputs : inputs + outputs] > 0.5 if self.layout.masks else None
        motion = estimate_motion(frames[:, :, :outputs], seen, window=self.window)
        return self.forecast_part(frames, horizon, follow(motion), noise=noise)

    def forecast_part(
        self,
        frames: Frames,
        horizon: int,
        paths: Trajectories,
        *,
        windows: Windows | None = None,
        noise: Noise | None = None,
    ) -> Part:
        """Forecast with known motion, on a part of the grid.

        Args:
            frames: in the window ``windows.read`` of the grid.
            horizon: as in `forward`.
            paths: of all of the grid, from `follow`.
            windows: where; None: on all of the grid.
            noise: that of the forecaster in the window ``windows.here``.

        Returns:
            The forecast in the window ``windows.part``.
        """
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

    def draw_noise(
        self, frames: Frames, horizon: int, *, members: int, seed: int, corner: tuple[int, int] = (0, 0)
    ) -> Noise | None:
        """The noise of the forecaster, in the moving air; see `EncoderForecaster.draw_noise`."""
        return draw_noise(self.forecaster, frames, horizon, members=members, seed=seed, corner=corner)


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
