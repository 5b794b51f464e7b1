"""The masked losses: their equations, the mask, and what stays loud."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cubecast.config import LossConfig
from cubecast.errors import UsageError
from cubecast.losses import BalancedLoss, CRPSLoss, HuberLoss, MAELoss, MSELoss, build_loss

KINDS = ["mse", "mae", "huber", "balanced"]
SHAPE = (2, 3, 1, 4, 5)


def loss_of(kind: str) -> torch.nn.Module:
    return build_loss(LossConfig(kind=kind, delta=0.7), [0.2, 0.5, 1.0, 1.5])  # type: ignore[arg-type]


def batch(device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    prediction = torch.randn(SHAPE, dtype=torch.float64, generator=generator).to(device).requires_grad_()
    target = torch.randn(SHAPE, dtype=torch.float64, generator=generator).to(device)
    return prediction, target, (torch.rand(SHAPE, generator=generator) > 0.3).to(device)


def cost(kind: str, p: float, t: float) -> float:
    """The cost of one pixel, from the equations."""
    e = p - t
    if kind == "mse":
        return e**2
    if kind == "mae":
        return abs(e)
    if kind == "huber":
        return e**2 / 2 if abs(e) <= 0.7 else 0.7 * (abs(e) - 0.35)
    weight = [1.0, 2.0, 5.0, 10.0, 30.0][sum(t >= edge for edge in (0.2, 0.5, 1.0, 1.5))]
    return weight * (e**2 + abs(e))


@pytest.mark.parametrize("kind", KINDS)
def test_loss_is_the_mean_cost_of_observed_pixels(kind: str, device: str) -> None:
    prediction, target, mask = batch(device)
    triples = zip(prediction.flatten().tolist(), target.flatten().tolist(), mask.flatten().tolist(), strict=True)
    expected = np.mean([cost(kind, p, t) for p, t, seen in triples if seen])
    loss = loss_of(kind)(prediction, target, mask)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(kind: str, device: str) -> None:
    prediction, target, mask = batch(device)
    loss = loss_of(kind)
    assert torch.autograd.gradcheck(lambda p: loss(p, target, mask), [prediction])


@pytest.mark.parametrize("kind", KINDS)
def test_nan_in_masked_target_changes_nothing(kind: str, device: str) -> None:
    prediction, target, mask = batch(device)
    loss = loss_of(kind)
    (expected,) = torch.autograd.grad(loss(prediction, target, mask), prediction)
    poisoned = target.masked_fill(~mask, float("nan"))
    value = loss(prediction, poisoned, mask)
    (gradient,) = torch.autograd.grad(value, prediction)
    assert value.item() == loss(prediction, target, mask).item()
    torch.testing.assert_close(gradient, expected, rtol=0, atol=0)
    assert not gradient[~mask].any()
    assert gradient[mask].all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["observed", "masked"])
def test_nan_in_prediction_stays_loud(kind: str, where: str) -> None:
    prediction, target, mask = batch()
    place = tuple(torch.nonzero(mask if where == "observed" else ~mask)[0])
    broken = prediction.detach().clone()
    broken[place] = float("nan")
    assert loss_of(kind)(broken, target, mask).isnan()


@pytest.mark.parametrize("kind", KINDS)
def test_nan_in_observed_target_stays_loud(kind: str) -> None:
    prediction, target, mask = batch()
    target[tuple(torch.nonzero(mask)[0])] = float("nan")
    assert loss_of(kind)(prediction, target, mask).isnan()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_observed_gives_zero_with_a_graph(kind: str, device: str) -> None:
    prediction, target, mask = batch(device)
    loss = loss_of(kind)(prediction, torch.full_like(target, float("nan")), torch.zeros_like(mask))
    loss.backward()
    assert loss.item() == 0.0
    assert prediction.grad is not None
    assert not prediction.grad.any()


def test_a_value_at_a_threshold_has_the_upper_weight() -> None:
    loss = BalancedLoss(thresholds=[2.0, 5.0], weights=[1.0, 3.0, 7.0])
    one, seen = torch.zeros(1, 1, 1, 1, 1), torch.ones(1, 1, 1, 1, 1, dtype=torch.bool)
    for value, weight in [(1.9, 1), (2.0, 3), (4.9, 3), (5.0, 7), (90.0, 7)]:
        target = torch.full_like(one, value)
        assert loss(target + 1, target, seen).item() == pytest.approx(2 * weight, rel=1e-5)


def test_bf16_predictions_are_scored_in_float32() -> None:
    prediction = torch.full(SHAPE, 1.0, dtype=torch.bfloat16)
    target, mask = torch.full(SHAPE, 1.001), torch.ones(SHAPE, dtype=torch.bool)
    loss = MSELoss()(prediction, target, mask)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(1e-6, rel=1e-3)


def test_losses_hold_nothing_that_is_trained_or_saved() -> None:
    for kind in KINDS:
        assert not list(loss_of(kind).parameters())
        assert not loss_of(kind).state_dict()


def test_configuration_names_the_losses() -> None:
    assert [type(loss_of(k)) for k in KINDS] == [MSELoss, MAELoss, HuberLoss, BalancedLoss]


def test_wrong_thresholds_and_weights_are_refused() -> None:
    with pytest.raises(UsageError, match="increasing"):
        BalancedLoss(thresholds=[2.0, 2.0], weights=[1.0, 2.0, 3.0])
    with pytest.raises(UsageError, match="2 numbers"):
        BalancedLoss(thresholds=[2.0], weights=[1.0, 2.0, 3.0])
    with pytest.raises(UsageError, match="none negative"):
        BalancedLoss(thresholds=[2.0], weights=[1.0, -2.0])


def members_of(count: int, side: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    prediction = torch.randn(2 * count, 3, 1, side, side, dtype=torch.float64, generator=generator).requires_grad_()
    target = torch.randn(2, 3, 1, side, side, dtype=torch.float64, generator=generator)
    return prediction, target, torch.rand(target.shape, generator=generator) > 0.1


def crps(members: np.ndarray, truth: float, alpha: float = 0.95) -> float:
    """Almost fair CRPS of one point, from the equation."""
    count = len(members)
    pairs = np.abs(members[:, None] - members).sum()
    return float(np.abs(members - truth).mean() - (1 - (1 - alpha) / count) * pairs / (2 * count * (count - 1)))


def bent(values: np.ndarray) -> np.ndarray:
    """Slopes 1, 2, 5 below, between and above 0.2 and 0.5."""
    return np.where(values < 0.2, values, np.where(values < 0.5, 0.2 + 2 * (values - 0.2), 0.8 + 5 * (values - 0.5)))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_crps_is_that_of_the_equation_at_pixels_and_areas(count: int) -> None:
    prediction, target, mask = members_of(count)
    loss = CRPSLoss(thresholds=[0.2, 0.5], weights=[1.0, 2.0, 5.0])
    each = []
    for side in (1, 2, 4):
        values = bent(prediction.detach().numpy()).reshape(2, count, 3, 4 // side, side, 4 // side, side)
        values = values.mean(axis=(4, 6))
        truth = bent(target.numpy()).reshape(2, 3, 4 // side, side, 4 // side, side).mean(axis=(3, 5))
        whole = mask.numpy().reshape(2, 3, 4 // side, side, 4 // side, side).all(axis=(3, 5))
        found = [crps(values[b, :, t, y, x], truth[b, t, y, x]) for b, t, y, x in np.argwhere(whole)]
        each.append(np.mean(found) if found else 0.0)
    assert loss(prediction, target.masked_fill(~mask, float("nan")), mask).item() == pytest.approx(np.mean(each))


def test_crps_gradients_are_those_of_finite_differences() -> None:
    prediction, target, mask = members_of(3)
    loss = CRPSLoss(thresholds=[0.2], weights=[1.0, 2.0])
    assert torch.autograd.gradcheck(lambda p: loss(p, target, mask), [prediction])


@pytest.mark.parametrize(("thresholds", "weights"), [([], [1.0]), ([0.5], [1.0, 4.0])])
def test_crps_is_proper_the_true_spread_is_the_best(thresholds: list[float], weights: list[float]) -> None:
    """Pairs of members from N(0, s) against observations from N(0, 1): the mean loss is lowest near s = 1."""
    generator = torch.Generator().manual_seed(2)
    truth = torch.randn(4000, 1, 1, 7, 7, generator=generator)
    noise = torch.randn(8000, 1, 1, 7, 7, generator=generator)
    loss = CRPSLoss(thresholds=thresholds, weights=weights)
    loss.SIDES = (1,)
    seen = torch.ones_like(truth, dtype=torch.bool)
    spread = [0.0, 0.6, 0.8, 1.0, 1.25, 1.6]
    found = [loss(s * noise, truth, seen).item() for s in spread]
    assert spread[int(np.argmin(found))] in (0.8, 1.0, 1.25)
    assert found[0] > min(found) + 0.1


def test_crps_refuses_what_is_no_ensemble() -> None:
    prediction, target, mask = members_of(2)
    loss = CRPSLoss(thresholds=[], weights=[1.0])
    for wrong in (prediction[:2], prediction[:3]):
        with pytest.raises(UsageError, match="2 or more of each"):
            loss(wrong, target, mask)
    with pytest.raises(UsageError, match="positive"):
        CRPSLoss(thresholds=[1.0], weights=[1.0, 0.0])
    assert isinstance(build_loss(LossConfig(kind="crps"), [0.2, 0.5, 1.0, 1.5]), CRPSLoss)
