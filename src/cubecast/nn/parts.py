"""A forecast of a large grid part by part: windows that hold all that bears on a part, and one motion for all parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from torch import nn

from cubecast.errors import UsageError
from cubecast.nn.box import Box, Windows
from cubecast.nn.cell import Cell
from cubecast.nn.encoder_forecaster import EncoderForecaster
from cubecast.nn.lagrangian import Lagrangian, follow
from cubecast.nn.members import forecasts
from cubecast.nn.motion import FrameByFrame
from cubecast.nn.trajectories import Trajectories
from cubecast.shapes import Frames, Noise, Observed, Part

HALO = 192
"""Pixels around a tile that always count where the receptive field reaches as far; beyond, half of it counts."""


@final
class Parts:
    """A network that forecasts parts of a grid, each from a window around it, as it would forecast them on the whole.

    A window reaches ``halo`` pixels beyond its part. With the network's receptive field the forecast is that of the
    whole grid but for rounding, and with the `near` part of it, too; the field grows with every step. In Lagrangian
    coordinates the motion is that of the whole grid (`follow`), and windows reach on to where the air came from.

    Args:
        network: of `cubecast.nn.build_network`.
        size: of the grid (y, x).
        history, horizon: frames seen and forecast.
        halo: in pixels; None: the receptive field.
        steady: for one forecast (`cubecast.nn.members.forecasts`).

    Raises:
        UsageError: per-pixel peepholes, which know the whole grid only, or traj_gru, whose flows come from anywhere.
    """

    def __init__(
        self,
        network: nn.Module,
        size: tuple[int, int],
        *,
        history: int,
        horizon: int,
        halo: int | None = None,
        steady: bool = False,
    ) -> None:
        inner: Any = network.forecaster if isinstance(network, Lagrangian) else network
        bounded = all(cell.reach is not None for cell in network.modules() if isinstance(cell, Cell))
        if not bounded or (isinstance(inner, EncoderForecaster) and inner.grid is not None):
            raise UsageError(
                "a forecast in parts",
                found="per-pixel peepholes" if bounded else "cell traj_gru, whose flows may come from anywhere",
                allowed="networks that take any grid and see a known part of it",
                remedy="raise the memory, or train with peephole 'channel' or 'none', or another cell",
            )
        self.network, self.size, self.history, self.horizon = network, size, history, horizon
        self.multiple = inner.multiple if isinstance(inner, EncoderForecaster) else 1
        self.halo = inner.receptive_field(history, horizon) if halo is None else halo
        self._steady = steady
        self._shared: tuple[Frames, Callable[[Noise | None], Part]] | None = None
        self._beside = network.beside(horizon) if isinstance(network, Lagrangian) else 0.0

    def follow(self, frames: Iterable[tuple[Frames, Observed]]) -> Trajectories | None:
        """The way of the air over the whole grid, from its frames (1, 1, output, y, x) one at a time; None: it stands.

        Raises:
            UsageError: fewer than 2 frames.
        """
        if not isinstance(self.network, Lagrangian):
            return None
        motion = FrameByFrame(self.history, window=self.network.window)
        for values, observed in frames:
            motion.add(values, observed if self.network.layout.masks else None)
        with torch.no_grad():
            return follow(motion.motions())

    def windows(self, part: Box, paths: Trajectories | None) -> Windows:
        """What the forecast of a part takes."""
        if paths is None:
            here = self._around(part)
            return Windows(here, here, part)
        here = self._around(paths.reach_arriving(self.horizon, part, beside=self._beside))
        return Windows(paths.reach_passed(self.history - 1, here), here, part)

    def _around(self, part: Box) -> Box:
        """With its halo. Few shapes: for each that they see the libraries keep a megabyte."""
        return part.grown(self.halo, self.multiple, self.size).rounded(self.multiple, self.size)

    def forecast(
        self, frames: Frames, windows: Windows, paths: Trajectories | None, noise: Noise | None = None
    ) -> Part:
        """The forecast of ``windows.part`` from frames of ``windows.read``, and noise of ``windows.here``.

        What the members of the same frames share is kept until others come, or `forget`.
        """
        if self._steady:
            return self._forecasts(frames, windows, paths)(noise)
        if self._shared is None or self._shared[0] is not frames:
            self.forget()
            self._shared = frames, self._forecasts(frames, windows, paths)
        return self._shared[1](noise)

    def forget(self) -> None:
        """Give back the memory of what members share."""
        self._shared = None

    def _forecasts(
        self, frames: Frames, windows: Windows, paths: Trajectories | None
    ) -> Callable[[Noise | None], Part]:
        if paths is not None:
            assert isinstance(self.network, Lagrangian)
            return self.network.parts(frames, self.horizon, paths, windows=windows, steady=self._steady)
        forecast = forecasts(self.network, frames, self.horizon, steady=self._steady)
        return lambda noise: forecast(noise)[..., *windows.part.inside(windows.here)]


def near(field: int) -> int:
    """The part of a receptive field that bears on a forecast by more than rounding (`benchmarks/tiles.py` measures it).

    Influence falls off like a Gaussian, far inside of what the sizes of kernels allow: Luo et al. (2016),
    DOI 10.48550/arXiv.1701.04128.
    """
    return min(field, max(HALO, math.ceil(field / 2)))
