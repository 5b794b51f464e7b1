"""Renewal: noise of a known width and strength, whose members have the mean that they were given."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cubecast.config import ModelConfig
from cubecast.nn import build_network
from cubecast.nn.members import draw_noise
from cubecast.nn.renewal import FINEST, QUICK, Renewal, _enlarge

SIDE, LEADS = 64, 4
RAIN, STRAIGHT = None, torch.tensor([[[True]]])


def noise_for(renewal: Renewal, members: int, leads: int = LEADS, side: int = SIDE) -> Tensor:
    shape = (1, members, leads, renewal.planes, side // renewal.unit, side // renewal.unit)
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


def each(mean: Tensor, doubt: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The mean and the doubt of each lead."""
    return zip(mean.unbind(2), doubt.unbind(2), strict=True)


def together(leads: Iterator[Tensor]) -> Tensor:
    return torch.stack(list(leads), dim=2)


def test_noise_of_each_band_has_a_variance_of_one_and_the_width_of_the_band() -> None:
    for unit in (1, 3, 4):
        renewal = Renewal(5, unit)
        noise = noise_for(renewal, 40, 1, side := 48 * unit)
        widths = []
        for coarse in renewal._spread_out(noise[:, :, 0], (side // FINEST, side // FINEST)):
            band = _enlarge(coarse, (side, side))
            assert band.shape == (1, 40, 1, side, side)
            assert band.var().item() == pytest.approx(1, abs=0.15)
            assert band[..., :2, :2].var().item() == pytest.approx(1.2, abs=0.6), "in the corners, too"
            shift = (band[..., 6:] * band[..., :-6]).mean() / band.var()
            widths.append(shift.item())
        assert all(b > a - 0.05 for a, b in pairwise(widths)), "coarser bands are alike further away"
        assert widths[0] < 0.45 < 0.7 < widths[-1]


@pytest.mark.parametrize("kind", [RAIN, STRAIGHT], ids=["rain", "straight"])
def test_members_have_the_mean_and_the_variance_that_was_lost(kind: Tensor | None) -> None:
    """Of bands of even strength 0.6 and 0.8 that fade with rates 0.2 and 0.05."""
    renewal, rates = Renewal(2, 4), [0.2, 0.05]
    with torch.no_grad():
        renewal.spread[1] = torch.log(torch.tensor(2.0)) / QUICK
    parts = [torch.full((1, 1, SIDE, SIDE), p) for p in (0.6, -0.4)]
    mean = torch.full((1, 1, LEADS, 1, SIDE, SIDE), 1.5)
    given = [torch.full_like(parts[0], r) for r in rates]
    members = together(renewal(each(mean, 0 * mean), parts, given, noise_for(renewal, 600), straight=kind))[0, :, :, 0]
    assert members.shape == (600, LEADS, SIDE, SIDE)
    for lead, found in enumerate(members.unbind(1), start=1):
        lost = [1 - torch.exp(torch.tensor(-2.0 * lead * r)) for r in rates]
        variance = float(0.6**2 * lost[0] + 0.8**2 * lost[1])
        assert found.mean().item() == pytest.approx(1.5, rel=0.01)
        assert found.var().item() == pytest.approx(variance, rel=0.1)
    centred = members - members.mean(dim=0)
    steady = (centred[:, 2] * centred[:, 3]).mean() / (centred[:, 2].std() * centred[:, 3].std())
    assert steady.item() > 0.7, "a member goes on as it was"


def test_doubt_widens_the_members_and_leaves_their_mean() -> None:
    renewal = Renewal(2, 4)
    parts, rates = [torch.full((1, 1, SIDE, SIDE), 0.3)] * 2, [torch.full((1, 1, SIDE, SIDE), 0.2)] * 2
    mean = torch.full((1, 1, LEADS, 1, SIDE, SIDE), 1.5)
    doubt = torch.log(torch.tensor([1.0, 2.0])).repeat_interleave(SIDE // 2).expand_as(mean)
    members = together(renewal(each(mean, doubt), parts, rates, noise_for(renewal, 600)))
    sure, doubtful = members.chunk(2, dim=-1)
    assert (doubtful.std() / sure.std()).item() == pytest.approx(2, rel=0.05)
    assert doubtful.mean().item() == pytest.approx(1.5, rel=0.02)


def test_where_it_hardly_rains_members_are_dry_or_wet_and_of_the_same_mean() -> None:
    renewal = Renewal(2, 4)
    parts, rates = [torch.full((1, 1, SIDE, SIDE), 0.5)] * 2, [torch.full((1, 1, SIDE, SIDE), 0.5)] * 2
    mean = torch.full((1, 1, LEADS, 1, SIDE, SIDE), 0.2)
    members = together(renewal(each(mean, 0 * mean), parts, rates, noise_for(renewal, 800)))
    assert members.mean().item() == pytest.approx(0.2, rel=0.05)
    assert members.amin() == 0
    assert (members == 0).float().mean() > 0.2
    none = together(renewal(each(0 * mean, 0 * mean), parts, rates, noise_for(renewal, 2)))
    assert torch.equal(none, torch.zeros_like(none)), "no rain stays none"


def test_a_network_without_the_noise_of_renewal_forecasts_the_mean_over_it() -> None:
    torch.manual_seed(0)
    config = ModelConfig(hidden_channels=[4], patch=2, bands=3, noise_channels=2, renewal=True)
    network = build_network(config, in_channels=2, out_channels=1, curvatures=[2.0]).eval()
    field = torch.rand(1, 1, 1, 32, 32, generator=torch.Generator().manual_seed(1)).expand(-1, 3, -1, -1, -1)
    frames = torch.cat(
        [field * torch.tensor([0.6, 0.8, 1.0])[None, :, None, None, None], torch.ones_like(field)], dim=2
    )
    frames[:, 0, 0] = frames[:, 0, 0].flip(-1)  # so that it fades
    with torch.no_grad():
        all_planes = draw_noise(network, frames, 3, members=400, seed=1)
        own = draw_noise(network, frames, 3, members=400, seed=1, renewing=False)
        assert (all_planes.shape[2], own.shape[2]) == (network.planes, 2)
        members, means = network(frames, 3, all_planes), network(frames, 3, own)
    torch.testing.assert_close(means, network(frames, 3).expand(400, -1, -1, -1, -1))  # untrained: no other noise
    many, one = torch.expm1(2 * members) / 2, torch.expm1(2 * means[0]) / 2
    assert many.std(dim=0).mean() > 0.1
    torch.testing.assert_close(F.avg_pool2d(many.mean(dim=0), 8), F.avg_pool2d(one, 8), rtol=0.1, atol=0.0)


def test_it_can_be_trained_where_it_is_dry() -> None:
    renewal = Renewal(3, 2)
    parts = [torch.zeros(1, 1, 32, 32, requires_grad=True) for _ in range(3)]
    rates = [torch.full((1, 1, 32, 32), 0.3)] * 3
    mean, doubt = torch.zeros(1, 1, 2, 1, 32, 32), torch.zeros(1, 1, 2, 1, 32, 32, requires_grad=True)
    together(renewal(each(mean, doubt), parts, rates, noise_for(renewal, 2, 2, 32))).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in [*parts, renewal.spread, doubt])


@pytest.mark.parametrize("coordinates", ["eulerian", "lagrangian"])
def test_one_run_of_the_network_serves_the_members_of_each_sample(coordinates: str) -> None:
    torch.manual_seed(0)
    config = ModelConfig(hidden_channels=[4], patch=2, bands=3, renewal=True, coordinates=coordinates)
    network = build_network(config, in_channels=2, out_channels=1, curvatures=[2.0]).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.01)
    fields = torch.rand(2, 3, 1, 33, 30, generator=torch.Generator().manual_seed(1))
    frames, calls = torch.cat([fields, torch.ones_like(fields)], dim=2), []
    network.get_submodule("forecaster.head" if coordinates == "lagrangian" else "head").register_forward_hook(
        lambda module, given, out: calls.append(len(out))
    )
    with torch.no_grad():
        noise = draw_noise(network, frames, 3, members=4, seed=1)
        both = network(frames, 3, noise)
        assert sum(calls) == 2 * 3, "as many fields as samples and leads"
        assert both.shape == (8, 3, 1, 33, 30)
        for sample in range(2):
            own = slice(4 * sample, 4 * sample + 4)
            alone = network(frames[sample : sample + 1], 3, noise[own])
            torch.testing.assert_close(both[own], alone, atol=1e-5, rtol=1e-4)
    assert (both[0] - both[1]).abs().mean() > 1e-3
