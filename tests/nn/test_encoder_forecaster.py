"""The encoder-forecaster: any grid, any horizon, persistence before training, nothing unused."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cubecast.config import ModelConfig
from cubecast.errors import UsageError
from cubecast.nn import build_network
from cubecast.nn.bands import fading_rates, split_bands
from cubecast.nn.conv_lstm import ConvLSTMCell
from cubecast.nn.encoder_forecaster import EncoderForecaster
from cubecast.nn.layout import Layout
from cubecast.nn.members import draw_noise, draw_pairs, forecast_members

CONFIGS: dict[str, dict[str, Any]] = {
    "patches, two scales": {"hidden_channels": [3, 4], "patch": 2},
    "single scale": {"hidden_channels": [3, 2], "patch": 2, "strides": [1, 1]},
    "strides, no patches": {"hidden_channels": [3, 4, 2], "patch": 1, "strides": [2, 3, 1]},
    "peephole channel": {"hidden_channels": [3], "patch": 2, "peephole": "channel"},
    "peephole pixel": {"hidden_channels": [3, 2], "patch": 2, "peephole": "pixel", "grid": (7, 9)},
    "gru after": {"hidden_channels": [3, 4], "patch": 2, "cell": "conv_gru"},
    "gru before": {"hidden_channels": [3, 4], "patch": 2, "cell": "conv_gru", "reset": "before"},
    "traj_gru": {"hidden_channels": [3, 4], "patch": 2, "strides": [1, 1], "cell": "traj_gru", "links": 2},
    "bands": {"hidden_channels": [3, 4], "patch": 2, "bands": 3},
    "noise": {"hidden_channels": [3, 4], "patch": 2, "noise_channels": 2},
}


def build(name: str, *, trained: bool = True, **changes: Any) -> nn.Module:
    """A network of 2 outputs, another input, their masks and a static field, in float64."""
    torch.manual_seed(4)
    config = ModelConfig(**{**CONFIGS[name], **changes})
    network = build_network(config, in_channels=7, out_channels=2, static_channels=1).double()
    if trained:  # as if trained: no weight at its start value
        for key, parameter in network.named_parameters():  # flows of a point or so: larger ones leave so small a grid
            nn.init.normal_(parameter, std=0.03 if ".flow" in key else 0.3)
    return network


def frames_of(ny: int = 7, nx: int = 9, batch: int = 2, time: int = 3, channels: int = 7) -> Tensor:
    frames = torch.randn(batch, time, channels, ny, nx, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    if channels == 7:
        frames[:, :, 3:6] = (frames[:, :, 3:6] > -1).double()
    return frames


@pytest.mark.parametrize("name", sorted(CONFIGS.keys() - {"bands"}))
def test_untrained_residual_network_is_persistence(name: str, device: str) -> None:
    network = build(name, trained=False).to(device)
    frames = frames_of().to(device)
    frames[:, :, 3:6] = 1.0
    forecast = network(frames, 4)
    torch.testing.assert_close(forecast, frames[:, -1:, :2].expand(-1, 4, -1, -1, -1), rtol=0, atol=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_first_steps_do_not_depend_on_the_horizon(name: str, device: str) -> None:
    network, frames = build(name).to(device), frames_of().to(device)
    longest = network(frames, 6)
    assert longest.shape == (2, 6, 2, 7, 9)
    for horizon in (1, 2, 5):
        torch.testing.assert_close(network(frames, horizon), longest[:, :horizon], rtol=0, atol=1e-12)
    steps = longest.diff(dim=1).abs().amax(dim=(0, 2, 3, 4))
    assert (steps > 1e-6).all()  # and they do differ from each other


@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_receives_a_gradient(name: str, device: str) -> None:
    network, frames = build(name).to(device), frames_of().to(device)
    frames[:, :, :2] = frames[:, :1, :2] * torch.tensor([0.7, 0.8, 1.0], device=device)[:, None, None, None]  # grows on
    forecast_members(network, frames, 3, members=2, seed=0).square().sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert (parameter.grad != 0).any(), key
        if key != "encoder.0.cell.conv.weight":  # a mask that is 1 all over repeats a bias; all others are all used
            assert (parameter.grad != 0).float().mean() > 0.9, key


@pytest.mark.parametrize("name", ["patches, two scales", "peephole pixel", "gru before"])
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    network = build(name)
    ny, nx = (7, 9) if name == "peephole pixel" else (3, 5)
    frames = frames_of(ny, nx, batch=1, time=2)

    def run(*weights: Tensor) -> Tensor:
        named = dict(zip([n for n, _ in network.named_parameters()], weights, strict=True))
        forecast: Tensor = torch.func.functional_call(network, named, (frames, 2))
        return forecast

    weights = [p.detach().clone().requires_grad_() for p in network.parameters()]
    assert torch.autograd.gradcheck(run, weights, atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("name", CONFIGS)
def test_first_training_step_leaves_persistence(name: str) -> None:
    network, frames = build(name, trained=False), frames_of()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    before = network(frames, 3).detach()
    for _ in range(2):  # the zero head first, everything behind it next
        optimizer.zero_grad()
        (network(frames, 3) - 1.0).square().mean().backward()
        optimizer.step()
    assert all((p.grad != 0).any() for p in network.parameters() if p.grad is not None)
    assert not torch.allclose(network(frames, 3), before)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_sample_does_not_depend_on_its_batch(name: str, device: str) -> None:
    network, frames = build(name).to(device), frames_of(batch=3).to(device)
    torch.testing.assert_close(network(frames, 2)[1:2], network(frames[1:2], 2), rtol=0, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(ny=st.integers(1, 20), nx=st.integers(1, 20), time=st.integers(1, 3), horizon=st.integers(1, 3))
def test_any_grid_is_padded_by_its_edge_and_cropped(ny: int, nx: int, time: int, horizon: int) -> None:
    network = build("strides, no patches", patch=2)  # 2 x 2 x 3: multiples of 12
    frames = frames_of(ny, nx, batch=1, time=time)
    forecast = network(frames, horizon)
    assert forecast.shape == (1, horizon, 2, ny, nx)
    whole = F.pad(frames[0], (0, -nx % 12, 0, -ny % 12), mode="replicate")[None]
    torch.testing.assert_close(forecast, network(whole, horizon)[..., :ny, :nx], rtol=0, atol=1e-12)


def test_the_interior_moves_with_the_input(device: str) -> None:
    torch.manual_seed(0)
    config = ModelConfig(hidden_channels=[2, 2], patch=1, strides=[1, 2], mask_channel=False, residual=False)
    network = build_network(config, in_channels=1, out_channels=1).double().to(device)
    frames = frames_of(56, 56, batch=1, time=1, channels=1).to(device)
    moved = torch.roll(frames, (2, -4), (3, 4))
    expected = torch.roll(network(frames, 1), (2, -4), (3, 4))
    middle = slice(20, 36)
    torch.testing.assert_close(
        network(moved, 1)[..., middle, middle], expected[..., middle, middle], rtol=0, atol=1e-13
    )


def test_a_uniform_field_gives_a_uniform_forecast_far_from_the_edge() -> None:
    torch.manual_seed(0)
    config = ModelConfig(hidden_channels=[3, 3], patch=1, strides=[2, 2], mask_channel=False, residual=False)
    network = build_network(config, in_channels=1, out_channels=1).double()
    forecast = network(torch.ones(1, 2, 1, 96, 96, dtype=torch.float64), 1)[..., 44:52, 44:52]
    torch.testing.assert_close(forecast, forecast[..., :1, :1].expand_as(forecast), rtol=0, atol=1e-12)


def test_residual_starts_from_the_last_observed_value() -> None:
    network = build("patches, two scales", trained=False)
    frames = frames_of()
    frames[:, 1, :2], frames[:, 1, 3:5] = 5.0, 1.0
    frames[:, 2, :2], frames[:, 2, 3:5] = 0.0, 0.0  # the last frame is missing
    assert (network(frames, 2) == 5.0).all()


def test_patches_leave_no_pattern_in_forecasts_with_bands() -> None:
    """Of a field that is the same everywhere, of which the head says the same; without bands it says each pixel."""
    flat = torch.ones_like(frames_of(24, 24))
    for name, patterned in (("bands", False), ("patches, two scales", True)):
        network = build(name)
        nn.init.zeros_(network.get_submodule("head").weight)  # its bias is left
        deviation = network(flat, 2).std(dim=(-2, -1))
        assert (deviation > 1e-3).all() if patterned else (deviation < 1e-6).all()


def test_residual_keeps_a_share_of_the_last_value_and_adds_a_change() -> None:
    with_base, without = build("patches, two scales"), build("patches, two scales", residual=False)
    state = with_base.state_dict()
    change = {k: v[: len(v) // 2] if k.startswith("head.") else v for k, v in state.items()}
    keeping = {k: v[len(v) // 2 :] if k.startswith("head.") else v for k, v in state.items()}
    frames = frames_of()
    frames[:, :, 3:6] = 1.0
    without.load_state_dict(keeping)
    share = 2 / (1 + torch.exp(-without(frames, 2)))
    without.load_state_dict(change)
    expected = share * frames[:, [-1, -1], :2] + without(frames, 2)
    torch.testing.assert_close(with_base(frames, 2), expected, rtol=0, atol=1e-12)
    fresh = build("patches, two scales", residual=False, trained=False)
    assert fresh(frames, 1).abs().max() > 0


@pytest.mark.parametrize("name", CONFIGS)
def test_copies_and_saved_weights_compute_the_same(name: str) -> None:
    network, frames = build(name), frames_of()
    loaded = build(name, trained=False)
    loaded.load_state_dict(network.state_dict())
    expected = network(frames, 2)
    for other in (copy.deepcopy(network), loaded):
        torch.testing.assert_close(other(frames, 2), expected, rtol=0, atol=0)
    with torch.no_grad():
        silent = network(frames, 2)
    assert not silent.requires_grad
    torch.testing.assert_close(silent, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CONFIGS)
def test_bf16_autocast_stays_near_float32(name: str, device: str) -> None:
    network, frames = build(name).float().to(device), frames_of().float().to(device)
    exact = network(frames, 3)
    with torch.autocast(device, torch.bfloat16):
        rough = network(frames, 3)
    rough.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert (rough.float() - exact).abs().mean() < 0.05 * exact.abs().mean()
    assert not torch.equal(rough.float(), exact)


def test_calls_that_do_not_fit_are_refused() -> None:
    network = build("patches, two scales")
    with pytest.raises(UsageError, match="horizon: found 0"):
        network(frames_of(), 0)
    with pytest.raises(UsageError, match="found 6 channels; allowed: 7"):
        network(frames_of()[:, :, :6], 1)
    with pytest.raises(UsageError, match=r"found \(9, 7\); allowed: \(7, 9\)"):
        build("peephole pixel")(frames_of(9, 7), 1)


@pytest.mark.parametrize("coordinates", ["eulerian", "lagrangian"])
def test_members_are_those_of_single_calls(coordinates: str) -> None:
    """One call for all members of all samples, or one for each: the same forecasts, in the order that is promised."""
    network = build("noise", coordinates=coordinates, engine="reference")
    frames = frames_of(8, 12)
    noise = draw_noise(network, frames, 5, members=3, seed=1)
    together = network(frames, 5, noise)
    assert together.shape == (6, 5, 2, 8, 12)
    for sample in range(2):
        for member in range(3):
            index = 3 * sample + member
            one = network(frames[sample : sample + 1], 5, noise[index : index + 1])
            torch.testing.assert_close(one[0], together[index])
    assert (together[0] - together[1]).abs().mean() > 0.01
    quiet = network(frames, 5)
    torch.testing.assert_close(quiet, network(frames, 5, torch.zeros_like(noise))[::3])


def test_noise_belongs_to_its_seed_and_is_white_at_every_scale() -> None:
    network = build("noise", hidden_channels=[3, 4, 4], strides=[1, 2, 2])
    frames = frames_of(96, 96)
    noise = draw_noise(network, frames, 4, members=2, seed=5)
    assert noise.shape == (4, 4, 2, 48, 48)
    assert torch.equal(noise, draw_noise(network, frames, 4, members=2, seed=5))
    assert not torch.equal(noise, draw_noise(network, frames, 4, members=2, seed=6))
    for layer, side in enumerate((48, 24, 12)):
        own = network._with_noise(None, noise, layer)
        assert own.shape[-2:] == (side, side)
        assert own.std().item() == pytest.approx(1, abs=0.04)
    assert draw_noise(build("patches, two scales"), frames, 4, members=2, seed=5) is None


def test_pairs_of_members_are_opposite_and_of_each_sample_its_own() -> None:
    network, frames = build("noise"), frames_of()
    pairs = draw_pairs(network, frames, 4, members=5, seed=5)
    half = draw_noise(network, frames, 4, members=3, seed=5)
    for sample in range(2):
        own, drawn = pairs[5 * sample : 5 * sample + 5], half[3 * sample : 3 * sample + 3]
        assert torch.equal(own[0::2], drawn)
        assert torch.equal(own[1::2], -drawn[:2])
    assert draw_pairs(build("bands"), frames, 4, members=5, seed=5) is None


def test_an_untrained_network_of_bands_fades_each_as_it_did_in_the_history() -> None:
    network, frames = build("bands", trained=False), frames_of()
    frames[:, :, 3:6] = 1.0
    parts = split_bands(frames[:, :, :2], 3).unflatten(2, (3, 2))
    rates = fading_rates(parts[:, :, :2], torch.ones_like(parts[:, 0, 0]))
    assert rates.std() > 0.01
    for lead, forecast in enumerate(network(frames, 4).unbind(1), start=1):
        fading = (-lead * rates).exp()
        expected = (parts[:, -1, :2] * fading).sum(dim=1) + parts[:, -1, 2]
        torch.testing.assert_close(forecast, expected, rtol=1e-5, atol=1e-5)


def test_bands_are_kept_in_the_straight_space() -> None:
    """Of a wave in log(1 + c u) / c the mean of u is left in the end, not that of the logarithm."""
    layout = Layout(1, 1, masks=False, static=0)
    config = {"hidden_channels": [2], "strides": [1], "patch": 1, "bands": 2, "curvatures": [2.0]}
    network = EncoderForecaster(layout, make_cell=lambda i, h, _: ConvLSTMCell(i, h), **config)
    rain = torch.rand(1, 2, 1, 24, 24, generator=torch.Generator().manual_seed(3))  # nothing in common: gone at once
    forecast = network(torch.log1p(2 * rain) / 2, 60)[:, -1:]
    torch.testing.assert_close(torch.expm1(2 * forecast) / 2, split_bands(rain[:, -1:], 2)[:, :, 1:])


def test_noise_leaves_the_past_of_a_forecast_alone() -> None:
    network = build("noise")
    frames = frames_of()
    noise = draw_noise(network, frames, 5, members=1, seed=0)
    other = noise.clone()
    other[:, 3:] += 1
    first, second = network(frames, 5, noise), network(frames, 5, other)
    assert torch.equal(first[:, :3], second[:, :3])
    assert not torch.equal(first[:, 3:], second[:, 3:])
