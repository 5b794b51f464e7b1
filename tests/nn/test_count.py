"""Parameters and multiply-adds against counts by hand."""

import pytest
import torch
from torch import nn

from cubecast.config import ModelConfig
from cubecast.nn import (
    ConvGRUCell,
    ConvLSTMCell,
    ElmanCell,
    GRUCell,
    LSTMCell,
    build_network,
    count_multiply_adds,
    count_parameters,
)


@pytest.mark.parametrize(
    ("cell", "parameters"),
    [
        (ElmanCell(3, 5), 5 * (3 + 5) + 5),
        (LSTMCell(3, 5), 4 * (5 * (3 + 5) + 5)),
        (GRUCell(3, 5, reset="before"), 3 * (5 * (3 + 5) + 5)),
        (GRUCell(3, 5, reset="after"), 3 * (5 * (3 + 5) + 5) + 5),
        (ConvLSTMCell(3, 5), 4 * (5 * (3 + 5) * 9 + 5)),
        (ConvLSTMCell(3, 5, kernel_size=5), 4 * (5 * (3 + 5) * 25 + 5)),
        (ConvLSTMCell(3, 5, peephole="channel"), 4 * (5 * (3 + 5) * 9 + 5) + 3 * 5),
        (ConvLSTMCell(3, 5, peephole="pixel", grid=(6, 7)), 4 * (5 * (3 + 5) * 9 + 5) + 3 * 5 * 6 * 7),
        (ConvLSTMCell(0, 5), 4 * (5 * 5 * 9 + 5)),
        (ConvGRUCell(3, 5, reset="before"), 3 * (5 * (3 + 5) * 9 + 5)),
        (ConvGRUCell(3, 5, reset="after"), 3 * (5 * (3 + 5) * 9 + 5) + 5),
        (ConvGRUCell(0, 5), 3 * (5 * 5 * 9 + 5)),
    ],
)
def test_parameters_of_a_cell(cell: nn.Module, parameters: int) -> None:
    assert count_parameters(cell) == parameters


BATCH, TIME, HORIZON = 2, 3, 5
FINE, COARSE = 4 * 4, 2 * 2
"""Pixels of the two layers: 7 x 5 pixels are padded to 8 x 8, patches of 2 leave 4 x 4, a stride of 2 leaves 2 x 2."""


def test_encoder_forecaster_with_conv_lstm() -> None:
    config = ModelConfig(hidden_channels=[3, 6], patch=2, strides=[1, 2])
    network = build_network(config, in_channels=2, out_channels=1)
    encode = FINE * 4 * 3 * (8 + 3) * 9 + COARSE * 6 * 3 * 9 + COARSE * 4 * 6 * (6 + 6) * 9
    forecast = COARSE * 4 * 6 * 6 * 9 + FINE * 6 * 6 * 9 + FINE * 4 * 3 * (6 + 3) * 9 + FINE * 8 * 3
    assert count_multiply_adds(network, (BATCH, TIME, 2, 7, 5), HORIZON) == BATCH * (TIME * encode + HORIZON * forecast)
    first = 4 * 3 * (8 + 3) * 9 + 12
    second = 6 * 3 * 9 + 6 + 4 * 6 * (6 + 6) * 9 + 24
    back = 4 * 6 * 6 * 9 + 24 + 6 * 6 * 9 + 6 + 4 * 3 * (6 + 3) * 9 + 12 + 3 * 8 + 8
    assert count_parameters(network) == first + second + back


def test_encoder_forecaster_with_conv_gru() -> None:
    config = ModelConfig(cell="conv_gru", hidden_channels=[3, 6], patch=2, strides=[1, 2])
    network = build_network(config, in_channels=2, out_channels=1)
    encode = FINE * 3 * 3 * (8 + 3) * 9 + COARSE * 6 * 3 * 9 + COARSE * 3 * 6 * (6 + 6) * 9
    forecast = COARSE * 3 * 6 * 6 * 9 + FINE * 6 * 6 * 9 + FINE * 3 * 3 * (6 + 3) * 9 + FINE * 3 * 8
    assert count_multiply_adds(network, (BATCH, TIME, 2, 7, 5), HORIZON) == BATCH * (TIME * encode + HORIZON * forecast)


@pytest.mark.parametrize(("cell", "gates"), [("elman", 1), ("lstm", 4), ("gru", 3)])
def test_series_forecaster(cell: str, gates: int) -> None:
    config = ModelConfig.model_validate({"cell": cell, "hidden_channels": [4, 3], "mask_channel": False})
    network = build_network(config, in_channels=2, out_channels=1)
    step = gates * 4 * (2 + 4) + gates * 3 * (4 + 3)  # the last forecast is not fed back
    points = BATCH * 3 * 2
    expected = points * ((TIME + HORIZON - 1) * step + HORIZON * 3)
    assert count_multiply_adds(network, (BATCH, TIME, 2, 3, 2), HORIZON) == expected


def test_counting_leaves_the_network_alone_and_computes_nothing() -> None:
    network = build_network(ModelConfig(), in_channels=2, out_channels=1)
    before = {n: p.clone() for n, p in network.named_parameters()}
    assert count_multiply_adds(network, (64, 20, 2, 4096, 4096), 20) > 1e14
    for name, parameter in network.named_parameters():
        assert parameter.device.type == "cpu"
        assert parameter.grad is None
        assert torch.equal(parameter, before[name])
