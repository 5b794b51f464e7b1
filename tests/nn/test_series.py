"""The forecaster of point series: closed loop, fed-back masks, and what a constant added to the series does."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cubecast.config import ModelConfig
from cubecast.errors import UsageError
from cubecast.nn import build_network

CELLS: dict[str, dict[str, Any]] = {
    "elman": {"cell": "elman"},
    "lstm": {"cell": "lstm"},
    "gru": {"cell": "gru"},
    "gru before": {"cell": "gru", "reset": "before"},
}


def build(name: str = "lstm", *, trained: bool = True, channels: int = 7, **changes: Any) -> nn.Module:
    """2 outputs, another input, their masks and a static field (or 1 output alone), in float64."""
    torch.manual_seed(4)
    config = ModelConfig(**{"hidden_channels": [4, 3], "mask_channel": channels == 7, **CELLS[name], **changes})
    full = channels == 7
    network = build_network(config, in_channels=channels, out_channels=2 if full else 1, static_channels=int(full))
    if trained:
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.4)
    return network.double()


def frames_of(channels: int = 7, ny: int = 3, nx: int = 2, time: int = 5) -> Tensor:
    """(batch, time, channel, station, 1) with everything observed."""
    frames = torch.randn(2, time, channels, ny, nx, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    if channels == 7:
        frames[:, :, 3:6] = 1.0
    return frames


@pytest.mark.parametrize("name", CELLS)
def test_untrained_residual_network_forecasts_the_mean_of_the_history(name: str, device: str) -> None:
    network, frames = build(name, trained=False).to(device), frames_of().to(device)
    mean = frames[:, :, :2].mean(1, keepdim=True)
    torch.testing.assert_close(network(frames, 4), mean.expand(-1, 4, -1, -1, -1), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", CELLS)
def test_the_first_steps_do_not_depend_on_the_horizon(name: str, device: str) -> None:
    network, frames = build(name).to(device), frames_of().to(device)
    longest = network(frames, 6)
    assert longest.shape == (2, 6, 2, 3, 2)
    for horizon in (1, 2, 5):
        torch.testing.assert_close(network(frames, horizon), longest[:, :horizon], rtol=0, atol=1e-12)
    assert (longest.diff(dim=1).abs().amax(dim=(0, 2, 3, 4)) > 1e-6).all()


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("residual", [True, False])
def test_every_parameter_receives_a_gradient(name: str, residual: bool, device: str) -> None:
    network, frames = build(name, residual=residual).to(device), frames_of().to(device)
    frames[:, 1, 3:6] = 0.0  # a mask of which nothing is missing is zero, and its weights change nothing
    network(frames, 3).square().sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert (parameter.grad != 0).all(), key


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("residual", [True, False])
def test_the_loop_is_closed(name: str, residual: bool) -> None:
    """Feeding the forecasts back by hand, as further observations, gives the same."""
    network, frames = build(name, residual=residual), frames_of()
    expected = network(frames, 3)
    mean = frames[:, :, :2].mean(1, keepdim=True) if residual else torch.zeros_like(frames[:, :1, :2])
    network.residual = False
    fed = torch.cat([frames[:, :, :2] - mean, frames[:, :, 2:]], dim=2)
    for _ in range(3):
        fed = torch.cat([fed, torch.cat([network(fed, 1), frames[:, -1:, 2:]], dim=2)], dim=1)
    torch.testing.assert_close(fed[:, -3:, :2] + mean, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CELLS)
def test_a_constant_added_to_the_series_is_added_to_the_forecast(name: str) -> None:
    frames = frames_of()
    raised = frames.clone()
    raised[:, :, :2] += 100.0
    network = build(name)
    torch.testing.assert_close(network(raised, 4), network(frames, 4) + 100.0, rtol=0, atol=1e-11)
    plain = build(name, residual=False)
    assert (plain(raised, 4) - plain(frames, 4) - 100.0).abs().min() > 10.0  # a saturated cell cannot follow


def test_every_point_is_a_series_of_its_own(device: str) -> None:
    network, frames = build().to(device), frames_of().to(device)
    whole = network(frames, 2)
    for y in range(3):
        one = network(frames[1:, :, :, y : y + 1, 1:], 2)
        torch.testing.assert_close(one, whole[1:, :, :, y : y + 1, 1:], rtol=0, atol=1e-13)


def test_missing_values_do_not_matter_and_their_place_does() -> None:
    network, frames = build(), frames_of()
    frames[:, 2, 4] = 0.0  # the second output is missing at one time
    one = network(frames, 3)
    other = frames.clone()
    other[:, 2, 1] = 77.0  # what stands in for it must not be seen
    torch.testing.assert_close(network(other, 3), one, rtol=0, atol=1e-12)
    frames[:, 2, 4] = 1.0
    assert not torch.allclose(network(frames, 3), one)


@pytest.mark.parametrize("name", CELLS)
def test_masks_of_a_complete_series_change_nothing(name: str) -> None:
    network, frames = build(name), frames_of()
    with torch.no_grad():
        for key, weight in network.layers[0].named_parameters():
            if key in ("cell.input.weight", "cell.linear.weight"):
                expected = network(frames, 3)
                weight[:, 3:6] = 9.0
                torch.testing.assert_close(network(frames, 3), expected, rtol=0, atol=0)
                return
    raise AssertionError("no input weights found")


def test_fed_back_values_are_marked_as_observed() -> None:
    network, frames = build(residual=False), frames_of()
    frames[:, -1, 3:5] = 0.0
    expected = network(frames, 2)[:, 1:]
    fed = torch.cat([network(frames, 1), frames[:, -1:, 2:3], torch.ones(2, 1, 2, 3, 2), frames[:, -1:, 5:]], dim=2)
    torch.testing.assert_close(network(torch.cat([frames, fed], 1), 1), expected, rtol=0, atol=1e-12)
    fed[:, :, 3:5] = 0.0  # the same, marked as missing, is something else
    assert not torch.allclose(network(torch.cat([frames, fed], 1), 1), expected)


def test_other_inputs_are_used_and_held() -> None:
    network, frames = build(), frames_of()
    changed = frames.clone()
    changed[:, -1, 2] += 1.0
    difference = (network(changed, 3) - network(frames, 3)).abs().amax(dim=(0, 2, 3, 4))
    assert (difference > 1e-6).all()


@pytest.mark.parametrize("name", CELLS)
def test_copies_saved_weights_and_bf16(name: str, device: str) -> None:
    network, frames = build(name).to(device), frames_of().to(device)
    loaded = build(name, trained=False).to(device)
    loaded.load_state_dict(network.state_dict())
    with torch.no_grad():
        expected = network(frames, 2)
        for other in (copy.deepcopy(network), loaded):
            torch.testing.assert_close(other(frames, 2), expected, rtol=0, atol=0)
        with torch.autocast(device, torch.bfloat16):
            rough = network.float()(frames.float(), 2)
    torch.testing.assert_close(rough.double(), expected, rtol=0, atol=0.1)
    assert not expected.requires_grad


def test_calls_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="horizon: found 0"):
        build()(frames_of(), 0)
    with pytest.raises(UsageError, match="found 6 channels; allowed: 7"):
        build()(frames_of()[:, :, :6], 1)
