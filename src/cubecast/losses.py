"""Training losses over the observed pixels, in model space.

Each is called as ``loss(prediction, target, mask)`` and gives the mean over the pixels where ``mask`` is True. Where
it is False the target may be NaN. A NaN in the prediction is a bug and makes the loss NaN wherever it stands. A
batch without any observed pixel gives 0, whose gradient is 0.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cubecast.config import LossConfig
from cubecast.errors import UsageError
from cubecast.shapes import Forecast, Mask


class MaskedLoss(nn.Module, ABC):
    """Abstract: the mean of a cost over the observed pixels."""

    def forward(self, prediction: Forecast, target: Forecast, mask: Mask) -> Float[Tensor, ""]:
        """The loss as a scalar, at least in float32.

        Args:
            prediction: what the network says.
            target: what was observed; any value, NaN too, where it was not.
            mask: True where it was observed.
        """
        wide = torch.promote_types(prediction.dtype, torch.float32)
        # The target is filled before it meets the prediction: a NaN times zero is a NaN, in the gradient too.
        cost = self.cost(prediction.to(wide), target.to(wide).masked_fill(~mask, 0.0))
        return (cost * mask).sum() / mask.sum().clamp(min=1)

    @abstractmethod
    def cost(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The cost of every pixel."""


@final
class MSELoss(MaskedLoss):
    """Mean squared error, mean of (p - t)^2."""

    def cost(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(p - t)^2"""
        return (prediction - target).square()


@final
class MAELoss(MaskedLoss):
    """Mean absolute error, mean of |p - t|."""

    def cost(self, prediction: Tensor, target: Tensor) -> Tensor:
        """|p - t|"""
        return (prediction - target).abs()


@final
class HuberLoss(MaskedLoss):
    """Huber's loss: e^2 / 2 for |e| <= delta, delta (|e| - delta / 2) beyond, with e = p - t.

    Source: Huber (1964), DOI 10.1214/aoms/1177703732.
    """

    def __init__(self, *, delta: float = 1.0) -> None:
        super().__init__()
        self.delta = delta

    def cost(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss of every pixel."""
        return F.huber_loss(prediction, target, reduction="none", delta=self.delta)


@final
class BalancedLoss(MaskedLoss):
    """Rain-balanced MSE + MAE: mean of w(t) ((p - t)^2 + |p - t|).

    w(t) is ``weights[k]`` where k counts the ``thresholds`` that the target t reaches: heavy rain, which is rare,
    weighs more. In the paper w = 1, 2, 5, 10, 30 below and from 2, 5, 10, 30 mm/h on.

    Source: Shi et al. (2017), equation 4 and its text, DOI 10.48550/arXiv.1706.03458. The paper sums over the pixels
    of a frame, this is the mean over all.

    Args:
        thresholds: increasing, in model space.
        weights: one more than thresholds, not negative.

    Raises:
        UsageError: thresholds that do not increase, or not one more weight than thresholds.
    """

    thresholds: Tensor
    weights: Tensor

    def __init__(self, *, thresholds: Sequence[float], weights: Sequence[float]) -> None:
        super().__init__()
        if any(b <= a for a, b in itertools.pairwise(thresholds)):
            raise UsageError("thresholds of the balanced loss", found=list(thresholds), allowed="increasing values")
        if len(weights) != len(thresholds) + 1 or min(weights) < 0:
            raise UsageError(
                "weights of the balanced loss",
                found=list(weights),
                allowed=f"{len(thresholds) + 1} numbers, none negative",
            )
        self.register_buffer("thresholds", torch.tensor(list(thresholds), dtype=torch.float64), persistent=False)
        self.register_buffer("weights", torch.tensor(list(weights), dtype=torch.float64), persistent=False)

    def cost(self, prediction: Tensor, target: Tensor) -> Tensor:
        """w(t) ((p - t)^2 + |p - t|)"""
        thresholds = self.thresholds.to(target)
        weight = self.weights.to(target)[torch.bucketize(target.detach().contiguous(), thresholds, right=True)]
        error = prediction - target
        return weight * (error.square() + error.abs())


def build_loss(config: LossConfig, thresholds: Sequence[float]) -> MaskedLoss:
    """The loss of a configuration.

    Args:
        config: kind, weights and delta.
        thresholds: ``config.thresholds`` brought into model space; used by ``balanced`` only.

    Raises:
        UsageError: see `BalancedLoss`.
    """
    if config.kind == "mse":
        return MSELoss()
    if config.kind == "mae":
        return MAELoss()
    if config.kind == "huber":
        return HuberLoss(delta=config.delta)
    return BalancedLoss(thresholds=thresholds, weights=config.weights)
