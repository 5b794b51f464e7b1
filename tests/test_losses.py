"""The masked losses: their equations, the mask, and what stays loud."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cubecast.config import LossConfig
from cubecast.errors import UsageError
from cubecast.losses import BalancedLoss, HuberLoss, MAELoss, MSELoss, build_loss

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
