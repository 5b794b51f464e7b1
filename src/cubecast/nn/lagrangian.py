"""A forecaster in Lagrangian coordinates: rain stands still for it, so that it learns growth and decay alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from torch import Tensor, nn

from cubecast.nn.advection import interpolate
from cubecast.nn.box import Box, Windows
from cubecast.nn.layout import Layout
from cubecast.nn.members import Forecasts, draw_noise, draw_normal, lead_by_lead
from cubecast.nn.motion import WINDOW, estimate_motions
from cubecast.nn.sampling import sample
from cubecast.nn.trajectories import Trajectories, pixel, places
from cubecast.shapes import Displaced, Forecast, Frames, Motion, Noise, Part

STRAY = 0.04
"""How far air strays in its first step, as a share of it (standard deviation); its way is off by the power 1.5 of the
number of steps, as that of a velocity that wanders. Not learned: generated rain, which most of the training is on,
moves otherwise, and asked for twice as much as radars do."""
FARTHEST = 3.0
"""Standard deviations that they stray at most."""


@final
class Lagrangian(nn.Module):
    """Any forecaster, seen from the moving air.

        v = motion(f_1 ... f_T)                                        from the output variables, within several windows
        g_i(x) = f_i(x - (T - i) v(x))                                 the history, brought to the reference time
        h_1 ... h_H = forecaster(g_1 ... g_T)                          growth and decay, in place
        forecast_l(x) = h_l(X_l(x))                                    brought to the valid time

    X_l(x) is where the air at x was l steps before (`cubecast.nn.advection.Trajectories`). The frame at the reference
    time is not interpolated, so every forecast is interpolated once. What the history brings in from outside of the
    grid is missing: 0, and 0 in the mask channels where there are any. What a forecast brings in from there is that
    of the edge where it comes in, in members what is mirrored at it, which has the texture of rain: nothing is known of
    it, which is no reason to forecast that it is dry. Static fields stay where they are at the reference time. With a
    forecaster that repeats the last frame this is extrapolation.

    Motion is estimated, not learned, and gradients reach the forecaster through the advection.

    Air strays from it. Members of an ensemble do, each its own way and all over the grid alike:

        forecast_l(x) = h_l(x + R_l (X_l(x) - x)),     R_l = (1 + a, -b; b, 1 + a),    a, b = sqrt(l) `STRAY` n

    with n normal: so they move faster or slower, and a little to the side, as those of STEPS do (Bowler et al. 2006,
    DOI 10.1256/qj.04.100). The forecaster is asked once for all members where it takes no noise of its own. One
    forecast is the mean over all ways: a forecaster that keeps bands of scale is told how far air may be astray.

    Sources: Ritvanen et al. (2023), DOI 10.1109/JSTARS.2023.3238016; Pavlik et al. (2024),
    DOI 10.48550/arXiv.2402.10747.

    Args:
        forecaster: called as ``forecaster(frames, horizon)``.
        layout: what its input channels are.
        window: of the motion, in pixels (`cubecast.nn.motion.estimate_motion`).
        members: whether there are members of an ensemble, which stray.
    """

    def __init__(self, forecaster: nn.Module, layout: Layout, *, window: float = WINDOW, members: bool = False) -> None:
        super().__init__()
        self.forecaster, self.layout, self.window = forecaster, layout, window
        self.members = members

    def forward(self, frames: Frames, horizon: int, noise: Noise | None = None) -> Forecast:
        """Forecast ``horizon`` frames from 2 or more ``frames``, in model space.

        Args:
            frames: the history.
            horizon: steps to forecast.
            noise: of `draw_noise`; None: one forecast, along the motion.

        Raises:
            UsageError: fewer than 2 frames, or what the forecaster refuses.
        """
        return self.forecasts(frames, horizon, steady=noise is None)(noise)

    def forecasts(self, frames: Frames, horizon: int, *, steady: bool = False) -> Forecasts:
        """`forward` for one noise after the other: what all share is done once.

        ``steady``: for one forecast, the mean over what members are renewed by and how they stray.
        """
        outputs, inputs = self.layout.outputs, self.layout.inputs
        seen = frames[:, :, inputs : inputs + outputs] > 0.5 if self.layout.masks else None
        motions = estimate_motions(frames[:, :, :outputs], seen, window=self.window)
        return self.parts(frames, horizon, follow(motions), steady=steady)

    def parts(
        self,
        frames: Frames,
        horizon: int,
        paths: Trajectories,
        *,
        windows: Windows | None = None,
        steady: bool = False,
    ) -> Callable[[Noise | None], Part]:
        """Forecasts with known motion, on a part of the grid; see `forecasts`.

        Args:
            frames: in the window ``windows.read`` of the grid.
            horizon: as in `forward`.
            paths: of all of the grid, from `follow`.
            windows: where; None: on all of the grid.
            steady: as in `forecasts`.

        Returns:
            The forecast in the window ``windows.part``, given noise of `draw_noise` in the window ``windows.here``.
        """
        whole = Box.whole(paths.size)
        windows = windows or Windows(whole, whole, whole)
        speeds = paths.speeds(windows.here)[:, None] if steady else None
        astray = None if speeds is None else lambda lead: STRAY * lead**1.5 * speeds
        history = self._bring_history(frames, paths, windows)
        leads = lead_by_lead(self.forecaster, history, horizon, steady=steady, astray=astray)
        kept = None if steady else list(paths.arriving(horizon, windows.part))  # few ask for a steady one twice

        def forecast(noise: Noise | None) -> Part:
            strayed, own = self._share_out(noise)
            carried, ways = [], kept or paths.arriving(horizon, windows.part)
            for lead, (fields, moved) in enumerate(zip(leads(own), ways, strict=True), start=1):
                aside = None if steady or strayed is None else math.sqrt(lead) * strayed
                points = _points(moved, aside, windows)
                points = points.to(torch.float32 if fields.itemsize < 4 else fields.dtype)
                members = max(len(fields), len(points))
                each, at = _for_all(fields.to(points.dtype), members), _for_all(points, members)
                carried.append(sample(each, at, beyond="border" if aside is None else "reflection"))
            return torch.stack(carried, dim=1)

        return forecast

    def beside(self, horizon: int) -> float:
        """How far from the motion a member may stray, as a share of it."""
        return STRAY * FARTHEST * math.sqrt(2 * horizon) if self.members else 0.0

    def _share_out(self, noise: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """How the members stray in the first step (members, 2), and the noise of the forecaster."""
        if noise is None or not self.members:
            return None, noise
        strays, own = noise.tensor_split([2], dim=2)
        # All over the grid the same.
        return STRAY * strays[:, 0, :, 0, 0].clamp(-FARTHEST, FARTHEST), own if own.shape[2] else None

    def _bring_history(self, frames: Frames, paths: Trajectories, windows: Windows) -> Tensor:
        """The history as the air at the reference time saw it; static fields stay where they are."""
        inputs, past = self.layout.inputs, frames.shape[1] - 1
        values, others = frames.tensor_split([inputs], dim=2)
        masks = others[:, :, :inputs] > 0.5 if self.layout.masks else None
        here = windows.here.inside(windows.read)
        carried, there = [values[:, -1:, :, *here]], [] if masks is None else [masks[:, -1:, :, *here]]
        for back, moved in enumerate(paths.passed(past, windows.here) if past else (), start=1):
            one = slice(past - back, past - back + 1)
            at = places(moved, windows.here, windows.read)
            value, known = interpolate(values[:, one], at[:, None], observed=None if masks is None else masks[:, one])
            carried.insert(0, value)
            there.insert(0, known)
        parts = [torch.cat(carried, dim=1)]
        if masks is not None:
            parts.append(torch.cat(there, dim=1).to(frames.dtype))
        return torch.cat([*parts, others[:, :, inputs if self.layout.masks else 0 :, *here]], dim=2)

    def draw_noise(
        self, frames: Frames, horizon: int, *, members: int, seed: int, renewing: bool = True, **how: Any
    ) -> Noise | None:
        """How members stray, 2 planes of one number each, and the noise of the forecaster in the moving air.

        Without ``renewing`` they do not stray. See `EncoderForecaster.draw_noise`; None where nothing takes any.
        """
        own = draw_noise(self.forecaster, frames, horizon, members=members, seed=seed, renewing=renewing, **how)
        if not self.members or (own is None and not renewing):
            return own
        drawn = [draw_normal([2], [seed, number]) for number in range(len(frames) * members)]
        strays = (torch.stack(drawn) * renewing)[:, None, :, None, None].to(frames)
        if own is None:
            return strays.expand(-1, horizon, -1, -1, -1)
        return torch.cat([strays.expand(-1, horizon, -1, *own.shape[-2:]), own], dim=2)


def follow(motions: Iterable[tuple[float, Motion]]) -> Trajectories:
    """The way of the air in its motions, in float64 without gradients: parts of a grid must find the same."""
    return Trajectories(motions, dtype=None if torch.is_grad_enabled() else torch.float64)


def _points(moved: Displaced, strayed: Tensor | None, windows: Windows) -> Tensor:
    """Where in ``windows.here`` the air of ``windows.part`` comes from, for all members, those of a sample together."""
    points = places(moved, windows.part, windows.here)
    if strayed is None:
        return points
    along, across = (s.view(len(moved), -1, 1, 1, 1) for s in strayed.unbind(-1))
    unit = pixel(windows.here.shape, moved)
    turned = unit * unit.new_tensor([-1, 1])[:, None, None]
    members = torch.addcmul(points.movedim(-1, 1)[:, None], moved[:, None], unit * along)
    return torch.addcmul(members, moved.flip(1)[:, None], turned * across).flatten(0, 1).movedim(1, -1)


def _for_all(fields: Tensor, members: int) -> Tensor:
    """Each as often as there are members of its sample."""
    return fields if len(fields) == members else fields.repeat_interleave(members // len(fields), dim=0)
