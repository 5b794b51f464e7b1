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

        h^0_t = layer_0(x_t - m),  h^l_t = layer_l(h^{l-1}_t)
        y_{t+1} = m + dense(h^{L-1}_t)

    For further steps the loop is closed: the forecast y goes back in as the next observed value (its mask, if
    there is one, says observed), and the other channels keep their last values.

    With ``residual`` m is the mean of the observed history of each output variable, else 0. Relative to its window a
    trend never leaves the range of the training data: a constant added to the series adds the same constant to
    the forecast, which a saturating cell cannot learn from values that it has not seen (the same idea as the
    reversible normalisation of Kim et al. 2022, https://openreview.net/forum?id=cGDAkQo1C0p, without the scale). The
    mean, and not the last value, because the last value carries its noise into every input and into the forecast.
    The dense head then starts at zero: untrained, the forecast is the mean of the history.

    Masks go into the cells as 1 = missing: zero all over where nothing is missing, so that a complete series trains as
    it would without them (as 1 = observed they are a second bias, and a noisy series is forecast less well).

    Args:
        layout: what the input channels are.
        hidden_channels: one number a layer.
        make_cell: builds the cell of one layer.
        residual: forecast the difference from the mean of the history.
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
        series = _points(frames)
        if self.residual:
            mean = _points(self.layout.mean_observed(frames))
            forecast = mean + self._roll_out(self._relative(series, mean), horizon)
        else:
            forecast = self._roll_out(series, horizon)
        return forecast.unflatten(0, (batch, ny, nx)).permute(0, 3, 4, 1, 2)

    def receptive_field(self, history: int, horizon: int) -> int:
        """See `EncoderForecaster.receptive_field`: every point is a series of its own."""
        return 0

    def _relative(self, series: Tensor, mean: Tensor) -> Tensor:
        """``series`` with its output variables relative to ``mean``; missing ones stay at zero."""
        values, others = series.tensor_split([self.layout.outputs], dim=-1)
        relative = values - mean
        if self.layout.masks:
            relative = relative * series[..., self.layout.output_masks]
        return torch.cat([relative, others], dim=-1)

    def _roll_out(self, series: Tensor, horizon: int) -> Tensor:
        """The ``horizon`` values ``(point, horizon, output)`` after ``series``, each fed back to get the next."""
        states: States = [None] * len(self.layers)
        if self.layout.masks:
            values, masks, static = series.split((self.layout.inputs, self.layout.inputs, self.layout.static), dim=-1)
            series = torch.cat([values, 1 - masks, static], dim=-1)
        held = series[:, -1:].clone()
        held[..., self.layout.output_masks] = 0.0
        forecast = []
        for _ in range(horizon):
            top, states = self._run(series, states)
            value = self.head(top[:, -1:])
            forecast.append(value)
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
