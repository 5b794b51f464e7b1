"""The Lagrangian wrapper: extrapolation when nothing grows, rain that stands still for the forecaster, gradients."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cubecast.config import Config, ModelConfig
from cubecast.errors import UsageError
from cubecast.nn import EncoderForecaster, Lagrangian, Layout, build_network, count_multiply_adds
from cubecast.nn.advection import advect, trajectories
from cubecast.nn.lagrangian import STRAY
from cubecast.nn.motion import estimate_motion
from cubecast.nowcaster import Nowcaster
from cubecast.sources.synthetic import generate_rain

V, U = 1, 3


class Repeat(nn.Module):
    """The last frame, and what was seen."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, frames: torch.Tensor, horizon: int) -> torch.Tensor:
        self.seen = frames
        return frames[:, -1:, : self.outputs].expand(-1, horizon, -1, -1, -1)


def moving(frames: int = 5, size: int = 72) -> torch.Tensor:
    """(1, time, 1, y, x): a field that moves V rows and U columns a step."""
    whole = generate_rain(frames=1, size=(size + 40, size + 40), seed=4, wet_fraction=0.5).values[0]
    cuts = [whole[20 - V * t : 20 - V * t + size, 20 - U * t : 20 - U * t + size] for t in range(frames)]
    return torch.from_numpy(np.log1p(np.stack(cuts) / 0.1))[None, :, None]


def observed(values: torch.Tensor) -> torch.Tensor:
    return torch.cat([values, torch.ones_like(values)], dim=2)


def test_a_forecaster_that_repeats_is_extrapolation(device):
    values = moving().to(device)
    network = Lagrangian(Repeat(), Layout(2, 1, masks=True))
    forecast = network(observed(values), 4)
    carried, there = advect(values[:, -1], estimate_motion(values), 4)
    assert 0.7 < there.float().mean() < 1
    inside = (trajectories(estimate_motion(values), 4).abs() <= 1).all(dim=-1)[:, :, None]
    assert (there & ~inside).float().mean() < 0.02, "what comes from half a pixel beyond the edge"
    torch.testing.assert_close(forecast[inside], carried[inside], atol=1e-4, rtol=1e-4)


def test_what_comes_from_outside_is_as_at_the_edge():
    values = moving() + 1
    network = Lagrangian(Repeat(), Layout(2, 1, masks=True))
    points = trajectories(estimate_motion(values), 4)[0]
    outside = ((points.abs() - 1) * 35.5 >= 1).any(dim=-1)
    forecast = network(observed(values), 4)[0, :, 0]
    assert outside.any()
    at = ((points[outside].clamp(-1, 1) + 1) * 35.5).round().long()
    edges = ((at == 0) | (at == 71)).any(dim=-1)
    assert edges.all()
    near = values[0, -1, 0][at[:, 1], at[:, 0]]
    assert (forecast[outside] - near).abs().median() < 0.1
    assert (forecast > 0.9).all()


def test_what_comes_from_outside_into_members_is_mirrored() -> None:
    values = moving() + 1
    network = Lagrangian(Repeat(), Layout(2, 1, masks=True), members=True)
    points = trajectories(estimate_motion(values), 4)[0]
    forecast = network(observed(values), 4, torch.zeros(1, 4, 2, 1, 1))[0, :, 0]
    mirrored = F.grid_sample(
        values[0, -1:].expand(4, -1, -1, -1), points, padding_mode="reflection", align_corners=True
    )
    assert (points.abs() > 1).any()
    torch.testing.assert_close(forecast, mirrored[:, 0], atol=0.05, rtol=0.05)
    assert (forecast > 0.9).all()


def test_rain_stands_still_for_the_forecaster():
    values = moving()
    network = Lagrangian(inner := Repeat(), Layout(2, 1, masks=True))
    network(observed(values), 1)
    brought, mask = inner.seen.chunk(2, dim=2)
    torch.testing.assert_close(brought[:, -1], values[:, -1])
    assert mask[:, -1].all()
    for index in range(4):
        there = mask[:, index] > 0.5
        assert 0.75 < there.float().mean() < 1, "what comes from outside of the grid is missing"
        assert (brought[:, index][~there] == 0).all()
        still = (brought[:, index] - values[:, -1])[there].square().mean()
        assert still < 0.05 * (values[:, index] - values[:, -1]).square().mean()


def test_an_untrained_residual_network_is_extrapolation_and_its_loss_reaches_every_weight():
    config = ModelConfig(coordinates="lagrangian", hidden_channels=[4], patch=2, engine="reference")
    network = build_network(config, in_channels=2, out_channels=1)
    assert isinstance(network, Lagrangian)
    values = moving(6)
    forecast = network(observed(values[:, :4]), 2)
    truth = values[:, 4:]
    assert ((forecast - truth)[..., 4:, 8:] ** 2).mean() < 0.1 * ((values[:, 3:4] - truth)[..., 4:, 8:] ** 2).mean()
    for parameter in network.forecaster.head.parameters():
        nn.init.normal_(parameter, std=0.1)
    (network(observed(values[:, :4]), 2) - truth).square().mean().backward()
    gradients = [p.grad for p in network.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    assert sum(g.abs().sum() > 0 for g in gradients) == len(gradients)


@pytest.mark.parametrize("own", [False, True], ids=["one for all", "noise of its own"])
def test_members_stray_from_the_motion_each_its_own_way(own: bool) -> None:
    """Faster, slower and to the side; of two samples that move otherwise."""
    values = torch.cat([moving(), moving().transpose(-1, -2)])
    inner = RepeatEach() if own else Repeat()
    network = Lagrangian(inner, Layout(2, 1, masks=True), members=True)
    noise = network.draw_noise(observed(values), 3, members=3, seed=1)
    assert noise.shape == ((6, 3, 4, 72, 72) if own else (6, 3, 2, 1, 1))
    assert torch.equal(noise, network.draw_noise(observed(values), 3, members=3, seed=1))
    steady = network.draw_noise(observed(values), 3, members=3, seed=1, renewing=False)
    assert not steady.any() if own else steady is None
    noise = noise.clone()
    strays = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, -2.0], [9.0, 0.0], [-1.0, 1.0], [0.0, 0.0]])
    noise[:, :, :2] = strays[:, None, :, None, None]
    forecast = network(observed(values), 3, noise)
    motion = estimate_motion(values).mean(dim=(2, 3)).repeat_interleave(3, dim=0)
    assert motion[0].tolist() == pytest.approx([V, U], abs=0.2)
    v, u = motion.T
    field = values[:, -1].repeat_interleave(3, dim=0)
    for lead in (1, 2, 3):
        along, across = STRAY * lead**0.5 * strays.clamp(-3, 3).T
        own_way = torch.stack([v * (1 + along) + u * across, u * (1 + along) - v * across], dim=1)
        carried, there = advect(field, own_way[:, :, None, None].expand(-1, -1, 72, 72), lead)
        errors = (forecast[:, lead - 1] - carried[:, -1])[there[:, -1]].square().mean() / (values[:, -1].var())
        assert errors < 0.02
    assert (forecast[0] - forecast[1]).abs().mean() > 0.1 * values.mean()


def test_a_steady_forecast_with_noise_of_the_layers_is_asked_for_piece_by_piece() -> None:
    """It does not stray, and bands are smoothed by how far the air may have."""
    torch.manual_seed(1)
    config = ModelConfig(coordinates="lagrangian", hidden_channels=[4], patch=2, bands=3, noise_channels=2)
    network = build_network(config, in_channels=2, out_channels=1).eval()
    frames = observed(moving())
    noise = network.draw_noise(frames, 3, members=4, seed=1, renewing=False)
    with torch.no_grad():
        forecasts = network.forecasts(frames, 3, steady=True)
        pieces = torch.cat([forecasts(piece) for piece in noise.split(2)])
        torch.testing.assert_close(pieces, forecasts(noise))
        torch.testing.assert_close(pieces[:1], network(frames, 3))  # untrained: noise says nothing
        assert (pieces - network(frames, 3, noise)).abs().max() > 1e-3


class RepeatEach(Repeat):
    """The last frame for each member, with noise."""

    def forward(self, frames: torch.Tensor, horizon: int, noise: torch.Tensor) -> torch.Tensor:
        last = super().forward(frames, horizon)
        return last.repeat_interleave(len(noise) // len(frames), dim=0) + noise[:, :, :1]

    def draw_noise(
        self, frames: torch.Tensor, horizon: int, *, members: int, seed: int, renewing: bool
    ) -> torch.Tensor:
        return torch.zeros(len(frames) * members, horizon, 2, *frames.shape[-2:])


def test_gradients_reach_the_frames_through_the_motion():
    values = moving(3, 24).double().requires_grad_()
    network = Lagrangian(Repeat(), Layout(1, 1, masks=False))
    (gradient,) = torch.autograd.grad(network(values, 2).square().sum(), values)
    assert gradient[:, 0].abs().sum() > 0, "the first frame matters by its motion only"


def test_missing_pixels_stay_missing_where_their_air_goes():
    values = moving()
    mask = torch.ones_like(values)
    mask[:, 1:3, :, 30:40, 30:40] = 0
    values = torch.where(mask > 0.5, values, 0.0)
    network = Lagrangian(inner := Repeat(), Layout(2, 1, masks=True))
    network(torch.cat([values, mask], dim=2), 1)
    gone = inner.seen[0, 2, 1] < 0.5
    middle = torch.nonzero(gone[20:60, 25:60]).float().mean(dim=0) + torch.tensor([20.0, 25.0])
    assert middle.tolist() == pytest.approx([34.5 + 2 * V, 34.5 + 2 * U], abs=0.7)


def test_other_inputs_move_and_static_fields_stay():
    values = moving()
    static = torch.rand(1, 1, 1, 72, 72, generator=torch.Generator().manual_seed(0)).expand(-1, 5, -1, -1, -1)
    frames = torch.cat([values, 2 * values, torch.ones(1, 5, 2, 72, 72), static], dim=2)
    Lagrangian(inner := Repeat(), Layout(5, 1, masks=True, static=1))(frames, 1)
    torch.testing.assert_close(inner.seen[:, :, 1], 2 * inner.seen[:, :, 0])
    torch.testing.assert_close(inner.seen[:, :, 4], static[:, :, 0])


def test_half_precision_and_the_count_of_operations():
    config = ModelConfig(coordinates="lagrangian", hidden_channels=[4, 4], engine="reference")
    network = build_network(config, in_channels=2, out_channels=1)
    with torch.autocast("cpu", torch.bfloat16):
        forecast = network(observed(moving()), 3)
    torch.testing.assert_close(forecast.float(), network(observed(moving()), 3), atol=0.05, rtol=0.02)
    plain = build_network(config.model_copy(update={"coordinates": "eulerian"}), in_channels=2, out_channels=1)
    assert isinstance(plain, EncoderForecaster)
    shape = (1, 4, 2, 32, 32)
    assert count_multiply_adds(network, shape, 2) < 1.2 * count_multiply_adds(plain, shape, 2)


def test_a_trained_model_is_saved_and_loaded(tmp_path, rain):
    cube = rain(40)
    settings = {"hidden_channels": [4], "patch": 2, "crop": 24, "epochs": 1, "coordinates": "lagrangian"}
    model = Nowcaster(history=3, horizon=2, motion_window=10.0, **settings).fit(cube)
    model.save(tmp_path / "model")
    again = Nowcaster.load(tmp_path / "model")
    assert again.config.model.coordinates == "lagrangian"
    one, other = (m.predict(cube, at=cube.time.values[20])["rainfall_rate"] for m in (model, again))
    np.testing.assert_array_equal(one, other)
    truth = cube.values[21:23]
    assert ((one.values[0] - truth) ** 2).mean() < 0.5 * ((cube.values[20] - truth) ** 2).mean()


def test_wrong_wishes_are_refused():
    with pytest.raises(UsageError, match="coordinates lagrangian are for fields"):
        Config.build(coordinates="lagrangian", cell="gru")
    with pytest.raises(UsageError, match="renewal needs residual and bands of 2 or more"):
        Config.build({"loss": {"kind": "crps"}}, renewal=True)
    with pytest.raises(UsageError, match="bands above 1 need a history of 2"):
        Config.build(bands=2, history=1)
    network = build_network(ModelConfig(coordinates="lagrangian", hidden_channels=[4]), in_channels=2, out_channels=1)
    with pytest.raises(UsageError, match="frames to estimate motion from: found 1"):
        network(torch.zeros(1, 1, 2, 16, 16), 2)
