"""A forecaster in Lagrangian coordinates: rain stands still for it, so that it learns growth and decay alone."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cubecast.nn.advection import interpolate, trajectories
from cubecast.nn.layout import Layout
from cubecast.nn.members import draw_noise
from cubecast.nn.motion import WINDOW, estimate_motion
from cubecast.shapes import Forecast, Frames, Noise, Points


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
        values, others = frames.tensor_split([inputs], dim=2)
        masks = others[:, :, :inputs] > 0.5 if self.layout.masks else None
        seen = None if masks is None else masks[:, :, :outputs]
        motion = estimate_motion(values[:, :, :outputs], seen, window=self.window)
        past = frames.shape[1] - 1
        points = trajectories(motion, max(past, horizon))
        carried, there = interpolate(
            values[:, :-1], points[:, :past].flip(1), observed=None if masks is None else masks[:, :past]
        )
        parts = [torch.cat([carried.to(values.dtype), values[:, -1:]], dim=1)]
        if masks is not None:
            parts.append(torch.cat([there, masks[:, -1:]], dim=1).to(frames.dtype))
        still = others[:, :, inputs:] if masks is not None else others
        brought = torch.cat([*parts, still], dim=2)
        # A forecaster without noise need not know of it.
        grown = self.forecaster(brought, horizon) if noise is None else self.forecaster(brought, horizon, noise)
        return _bring(grown, points[:, :horizon].repeat_interleave(len(grown) // len(frames), dim=0))

    def draw_noise(self, frames: Frames, horizon: int, *, members: int, seed: int) -> Noise | None:
        """The noise of the forecaster, in the moving air; see `EncoderForecaster.draw_noise`."""
        return draw_noise(self.forecaster, frames, horizon, members=members, seed=seed)


def _bring(fields: Tensor, points: Points) -> Tensor:
    """Each of the fields at its own points; 0 more than half a pixel beyond the grid."""
    exact = fields.to(points.dtype).flatten(0, 1)
    moved = F.grid_sample(exact, points.flatten(0, 1), padding_mode="border", align_corners=True)
    pixels = points.new_tensor([(n - 1) / 2 for n in (fields.shape[-1], fields.shape[-2])])
    inside = ((points.abs() - 1) * pixels <= 0.5).all(dim=-1)
    return moved.unflatten(0, fields.shape[:2]) * inside[:, :, None]
