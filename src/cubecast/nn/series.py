"""The forecaster of point series: plain recurrent cells over the history of each point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import torch
from torch import Tensor, nn

from cubecast.errors import UsageError
from cubecast.nn.cell import Cell
from cubecast.nn.layout import Layout
from cubecast.nn.recurrent import RecurrentLayer
from cubecast.shapes import Forecast, Frames

CellFactory = Callable[[int, int], Cell]
"""``make(in_channels, hidden_channels)``: the cell of one layer."""

States = list[tuple[Tensor, ...] | None]
"""The state of every layer; None before the first step."""


@final
class SeriesForecaster(nn.Module):
    """A stack of recurrent layers over the history of each point on its own, and a dense head.

        h^0_t = layer_0(x_t),  h^l_t = layer_l(h^{l-1}_t)
        y_{t+1} = dense(h^{L-1}_t)                                       ``residual=False``
        y_{t+1} = y_t + dense(h^{L-1}_t)                                 ``residual=True``

    For further steps the loop is closed: the forecast y goes back in as the next observed value (its mask, if
    there is one, says observed), and the other channels keep their last values.

    With ``residual`` the output variables go in relative to b, the last observed value of the history, and the change
    from step to step comes out. A constant added to the series then adds the same constant to the forecast, so a
    trend that leaves the range of the training data is followed; without it, a saturating cell has never seen such
    values. The dense head starts at zero: untrained, the forecaster is persistence.

    Args:
        layout: what the input channels are.
        hidden_channels: one number a layer.
        make_cell: builds the cell of one layer.
        residual: forecast the change.
    """

    def __init__(
        self, layout: Layout, *, hidden_channels: Sequence[int], make_cell: CellFactory, residual: bool = True
    ) -> None:
        super().__init__()
        self.layout, self.residual = layout, residual
        self.layers = nn.ModuleList()
        width = layout.total
        for hidden in hidden_channels:
            self.layers.append(RecurrentLayer(make_cell(width, hidden)))
            width = hidden
        self.head = nn.Linear(width, layout.outputs)
        if residual:
            for parameter in self.head.parameters():
                nn.init.zeros_(parameter)

    def forward(self, frames: Frames, horizon: int) -> Forecast:
        """Forecast ``horizon`` steps from ``frames``, in model space; every pixel is a series of its own.

        Raises:
            UsageError: horizon below 1, or another number of channels.
        """
        if horizon < 1:
            raise UsageError("horizon", found=horizon, allowed="1 or more steps")
        if frames.shape[2] != self.layout.total:
            raise UsageError("input of the network", found=f"{frames.shape[2]} channels", allowed=self.layout.total)
        batch, _, _, ny, nx = frames.shape
        base = _points(self.layout.last_observed(frames))
        series = _points(frames)
        if not self.residual:
            base = torch.zeros_like(base)
        forecast = self._roll_out(self._relative(series, base), horizon, start=base)
        return forecast.unflatten(0, (batch, ny, nx)).permute(0, 3, 4, 1, 2)

    def _relative(self, series: Tensor, base: Tensor) -> Tensor:
        """The output variables relative to ``base``; missing ones at zero."""
        count = self.layout.outputs
        relative = series[..., :count] - base
        if self.layout.masks:
            relative = relative * series[..., self.layout.output_masks]
        return torch.cat([relative, series[..., count:]], dim=-1)

    def _roll_out(self, series: Tensor, horizon: int, *, start: Tensor) -> Tensor:
        """Forecasts ``(point, horizon, output)`` after ``series``, whose values are relative to ``start``."""
        states: States = [None] * len(self.layers)
        value = torch.zeros_like(start)
        held = series[:, -1:].clone()
        held[..., self.layout.output_masks] = 1.0
        forecast = []
        for _ in range(horizon):
            top, states = self._run(series, states)
            change = self.head(top[:, -1:])
            value = value + change if self.residual else change
            forecast.append(start + value)
            series = torch.cat([value.to(held.dtype), held[..., self.layout.outputs :]], dim=-1)
        return torch.cat(forecast, dim=1)

    def _run(self, series: Tensor, states: States) -> tuple[Tensor, States]:
        after: States = []
        for layer, state in zip(self.layers, states, strict=True):
            series, state = layer(series, series.shape[1], state)
            after.append(state)
        return series, after


def _points(frames: Tensor) -> Tensor:
    """``(batch, time, channel, y, x)`` as ``(batch * y * x, time, channel)``."""
    return frames.permute(0, 3, 4, 1, 2).flatten(0, 2)
