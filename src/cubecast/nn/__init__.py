"""Networks of torch: cells, recurrent layers, and the forecasters built of them. No xarray here."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from cubecast.config import ModelConfig
from cubecast.errors import UsageError
from cubecast.nn.cell import Cell
from cubecast.nn.conv_gru import ConvGRUCell
from cubecast.nn.conv_lstm import ConvLSTMCell
from cubecast.nn.count import count_bytes, count_multiply_adds, count_parameters
from cubecast.nn.elman import ElmanCell
from cubecast.nn.encoder_forecaster import EncoderForecaster
from cubecast.nn.gru import GRUCell
from cubecast.nn.lagrangian import Lagrangian
from cubecast.nn.layout import Layout
from cubecast.nn.lstm import LSTMCell
from cubecast.nn.recurrent import RecurrentLayer, choose_engine
from cubecast.nn.series import SeriesForecaster
from cubecast.nn.traj_gru import TrajGRUCell

__all__ = [
    "Cell",
    "ConvGRUCell",
    "ConvLSTMCell",
    "ElmanCell",
    "EncoderForecaster",
    "GRUCell",
    "LSTMCell",
    "Lagrangian",
    "Layout",
    "RecurrentLayer",
    "SeriesForecaster",
    "TrajGRUCell",
    "build_network",
    "choose_engine",
    "count_bytes",
    "count_multiply_adds",
    "count_parameters",
]


def build_network(
    config: ModelConfig,
    *,
    in_channels: int,
    out_channels: int,
    static_channels: int = 0,
    curvatures: Sequence[float] = (),
) -> nn.Module:
    """The untrained network of a configuration, called as ``network(frames, horizon) -> forecast``.

    With members: ``network(frames, horizon, network.draw_noise(frames, horizon, members=m, seed=s))``.

    Args:
        config: the architecture.
        in_channels: all input channels, in the order of `Layout`: output variables, other inputs, one mask for
            each of these when ``config.mask_channel``, static fields.
        out_channels: how many of the first input variables are forecast.
        static_channels: how many of the last input channels are static fields.
        curvatures: of the model space of each output (`EncoderForecaster`); none: it is straight.

    Raises:
        UsageError: channels that do not add up, or settings that do not go together.
    """
    if not config.hidden_channels:
        raise UsageError("hidden_channels", found="an empty list", allowed="one number a layer, 1 layer or more")
    layout = Layout(in_channels, out_channels, masks=config.mask_channel, static=static_channels)
    network: nn.Module = (
        _series_network(config, layout) if config.is_series else _field_network(config, layout, curvatures)
    )
    if config.coordinates == "lagrangian":
        network = Lagrangian(network, layout, window=config.motion_window, members=config.has_members)
    choose_engine(network, config.engine, recompute=config.recompute)
    return network


def _series_network(config: ModelConfig, layout: Layout) -> SeriesForecaster:
    if config.strides is not None and any(s != 1 for s in config.strides):
        raise UsageError(
            f"strides with cell {config.cell}",
            found=config.strides,
            allowed="none: a series has no grid to scale down",
            remedy="leave strides out, or take cell conv_lstm, conv_gru or traj_gru",
        )
    return SeriesForecaster(
        layout,
        hidden_channels=config.hidden_channels,
        make_cell=lambda inputs, hidden: _series_cell(config, inputs, hidden),
        residual=config.residual,
    )


def _field_network(config: ModelConfig, layout: Layout, curvatures: Sequence[float]) -> EncoderForecaster:
    return EncoderForecaster(
        layout,
        hidden_channels=config.hidden_channels,
        strides=config.strides or [1] + [2] * (len(config.hidden_channels) - 1),
        patch=config.patch,
        make_cell=lambda inputs, hidden, grid: _field_cell(config, inputs, hidden, grid),
        grid=config.grid,
        residual=config.residual,
        bands=config.bands,
        curvatures=curvatures,
        noise_channels=config.noise_channels,
        renewal=config.renewal,
    )


def _series_cell(config: ModelConfig, inputs: int, hidden: int) -> Cell:
    if config.cell == "elman":
        return ElmanCell(inputs, hidden)
    if config.cell == "lstm":
        return LSTMCell(inputs, hidden)
    return GRUCell(inputs, hidden, reset=config.reset)


def _field_cell(config: ModelConfig, inputs: int, hidden: int, grid: tuple[int, int] | None) -> Cell:
    if config.cell == "traj_gru":
        return TrajGRUCell(inputs, hidden, kernel_size=config.kernel_size, links=config.links)
    if config.cell == "conv_gru":
        return ConvGRUCell(inputs, hidden, kernel_size=config.kernel_size, reset=config.reset)
    return ConvLSTMCell(inputs, hidden, kernel_size=config.kernel_size, peephole=config.peephole, grid=grid)
