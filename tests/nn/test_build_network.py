"""From a configuration to a network."""

import pytest
import torch

from cubecast.config import ModelConfig
from cubecast.errors import UsageError
from cubecast.nn import ConvGRUCell, ConvLSTMCell, EncoderForecaster, GRUCell, SeriesForecaster, build_network


def test_defaults_build_a_network_that_forecasts() -> None:
    network = build_network(ModelConfig(), in_channels=2, out_channels=1)
    assert network(torch.zeros(1, 6, 2, 33, 20), 12).shape == (1, 12, 1, 33, 20)


def test_default_strides_are_one_and_then_two() -> None:
    default = build_network(ModelConfig(hidden_channels=[4, 4, 4]), in_channels=2, out_channels=1)
    explicit = build_network(ModelConfig(hidden_channels=[4, 4, 4], strides=[1, 2, 2]), in_channels=2, out_channels=1)
    assert {n: p.shape for n, p in default.state_dict().items()} == {
        n: p.shape for n, p in explicit.state_dict().items()
    }
    assert isinstance(default, EncoderForecaster)
    assert default.multiple == 16


def test_the_configuration_reaches_every_cell() -> None:
    config = ModelConfig(hidden_channels=[4, 5], kernel_size=5, peephole="pixel", grid=(17, 30))
    network = build_network(config, in_channels=2, out_channels=1)
    cells = [m for m in network.modules() if isinstance(m, ConvLSTMCell)]
    assert [c.grid for c in cells] == [(6, 8), (3, 4), (6, 8), (3, 4)]
    assert {c.conv.kernel_size for c in cells} == {(5, 5)}
    assert [c.in_channels for c in cells] == [32, 5, 5, 0]
    for cell in ("conv_gru", "gru"):
        config = ModelConfig.model_validate({"cell": cell, "reset": "before"})
        network = build_network(config, in_channels=2, out_channels=1)
        assert {m.reset for m in network.modules() if isinstance(m, ConvGRUCell | GRUCell)} == {"before"}


def test_residual_reaches_the_network() -> None:
    for cell in ("conv_lstm", "lstm"):
        for residual in (True, False):
            config = ModelConfig.model_validate({"cell": cell, "residual": residual})
            network = build_network(config, in_channels=2, out_channels=1)
            assert isinstance(network, EncoderForecaster | SeriesForecaster)
            assert network.residual is residual


def test_the_same_seed_builds_the_same_network() -> None:
    def weights() -> torch.Tensor:
        torch.manual_seed(11)
        network = build_network(ModelConfig(), in_channels=2, out_channels=1)
        return torch.cat([p.flatten() for p in network.parameters()])

    assert torch.equal(weights(), weights())


@pytest.mark.parametrize(
    ("settings", "channels", "message"),
    [
        ({"cell": "lstm", "strides": [1, 2]}, (2, 1, 0), "strides with cell lstm"),
        ({}, (3, 1, 0), "channels of the network"),
        ({}, (2, 2, 0), "found 2 out of 1 inputs"),
        ({"mask_channel": False}, (1, 1, 1), "channels of the network"),
        ({"mask_channel": False}, (1, 0, 0), "channels of the network"),
        ({"hidden_channels": []}, (2, 1, 0), "hidden_channels"),
        ({"cell": "gru", "hidden_channels": []}, (2, 1, 0), "hidden_channels"),
    ],
)
def test_impossible_combinations_are_refused(
    settings: dict[str, object], channels: tuple[int, int, int], message: str
) -> None:
    total, out, static = channels
    with pytest.raises(UsageError, match=message):
        build_network(ModelConfig.model_validate(settings), in_channels=total, out_channels=out, static_channels=static)
