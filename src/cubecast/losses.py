"""Training losses over the observed pixels, in model space.

Each is called as ``loss(prediction, target, mask)`` and gives the mean over the pixels where ``mask`` is True; all but
the CRPS take one prediction for each target. Where the mask is False the target may be NaN. A NaN in the prediction is
a bug and makes the loss NaN wherever it stands. A
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
from cubecast.shapes import Forecast, Mask, Target


class MaskedLoss(nn.Module, ABC):
    """Abstract: the mean of a cost over the observed pixels."""

    def forward(self, prediction: Forecast, target: Target, mask: Mask) -> Float[Tensor, ""]:
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
        _check_weights("balanced", thresholds, weights)
        self.register_buffer("thresholds", torch.tensor(list(thresholds), dtype=torch.float64), persistent=False)
        self.register_buffer("weights", torch.tensor(list(weights), dtype=torch.float64), persistent=False)

    def cost(self, prediction: Tensor, target: Tensor) -> Tensor:
        """w(t) ((p - t)^2 + |p - t|)"""
        thresholds = self.thresholds.to(target)
        weight = self.weights.to(target)[torch.bucketize(target.detach().contiguous(), thresholds, right=True)]
        error = prediction - target
        return weight * (error.square() + error.abs())


@final
class CRPSLoss(MaskedLoss):
    """Almost fair continuous ranked probability score of M members, of fields and of their means over wider areas.

        a = 1/M sum_j |p_j - t|  -  (1 - e) / (2 M (M - 1)) sum_j sum_k |p_j - p_k|,   e = (1 - alpha) / M

    and the loss is the mean of a over the areas of 1, 2, 4 and 8 pixels' side, as far as the field is that large; p and
    t are means of v(values) over an area, which counts where all of it was observed. With alpha = 1 the score is fair:
    the mean over infinitely many members is judged, whatever M; a little less keeps M - 1 members from being as far
    off as they like. Pixels alone would say nothing of whether members rain together over an area: its mean does.

    v is a piecewise linear, rising function with the slopes ``weights`` below, between and above the ``thresholds``: as
    with weights, differences of heavy rain count more, but the score stays proper, because v does not depend on what
    is observed (threshold weighting). It comes before the means: rain is what areas are judged by, not its logarithm,
    of which a blurred field has too much.

    Sources: Lang et al. (2024), DOI 10.48550/arXiv.2412.15832 (almost fair CRPS); Gneiting and Ranjan (2011),
    DOI 10.1198/jbes.2010.08110 (threshold weighting); Pacchiardi et al. (2024), DOI 10.48550/arXiv.2112.08217
    (scores of patches).

    Args:
        thresholds: increasing, in model space; may be none.
        weights: the slopes, one more than thresholds, positive.

    Raises:
        UsageError: thresholds that do not increase, weights that are not positive, or a wrong number of them.
    """

    thresholds: Tensor
    weights: Tensor
    ALPHA = 0.95
    SIDES = (1, 2, 4, 8)

    def __init__(self, *, thresholds: Sequence[float], weights: Sequence[float]) -> None:
        super().__init__()
        _check_weights("crps", thresholds, weights)
        if min(weights) <= 0:
            raise UsageError("weights of the crps loss", found=list(weights), allowed="positive numbers")
        self.register_buffer("thresholds", torch.tensor(list(thresholds), dtype=torch.float64), persistent=False)
        self.register_buffer("weights", torch.tensor(list(weights), dtype=torch.float64), persistent=False)

    def forward(self, prediction: Forecast, target: Target, mask: Mask) -> Float[Tensor, ""]:
        """The loss as a scalar, at least in float32.

        Args:
            prediction: two or more members of each target, the members of the first target first.
            target: what was observed; any value, NaN too, where it was not.
            mask: True where it was observed.

        Raises:
            UsageError: not the same number of members, 2 or more, of every target.
        """
        if len(prediction) % len(target) or len(prediction) < 2 * len(target):
            given = f"{len(prediction)} forecasts of {len(target)} targets"
            raise UsageError("members of the crps loss", found=given, allowed="2 or more of each")
        wide = torch.promote_types(prediction.dtype, torch.float32)
        members, truth = (self._weighted(f.to(wide)) for f in (prediction, target.masked_fill(~mask, 0.0)))
        seen, found = mask.to(wide), []
        for side in (s for s in self.SIDES if s <= min(target.shape[-2:])):
            whole = _means(seen, side) > 1 - 1e-3
            found.append(super().forward(_means(members, side), _means(truth, side), whole))
        return torch.stack(found).mean()

    def cost(self, prediction: Tensor, target: Tensor) -> Tensor:
        """a"""
        members = prediction.unflatten(0, (len(target), -1))
        count = members.shape[1]
        error = (members - target[:, None]).abs().mean(dim=1)
        pairs = sum((a - b).abs() for a, b in itertools.combinations(members.unbind(1), 2))
        return error - (1 - (1 - self.ALPHA) / count) * pairs / (count * (count - 1))

    def _weighted(self, values: Tensor) -> Tensor:
        """v(values)"""
        slopes, edges = self.weights.to(values), self.thresholds.to(values)
        found = slopes[0] * values
        for edge, rise in zip(edges, slopes.diff(), strict=True):
            found = found + rise * (values - edge).clamp(min=0)
        return found


def _means(fields: Tensor, side: int) -> Tensor:
    """Means over areas of ``side`` x ``side`` pixels."""
    return fields if side == 1 else F.avg_pool2d(fields.flatten(0, 1), side).unflatten(0, fields.shape[:2])


def _check_weights(kind: str, thresholds: Sequence[float], weights: Sequence[float]) -> None:
    if any(b <= a for a, b in itertools.pairwise(thresholds)):
        raise UsageError(f"thresholds of the {kind} loss", found=list(thresholds), allowed="increasing values")
    if len(weights) != len(thresholds) + 1 or min(weights) < 0:
        raise UsageError(
            f"weights of the {kind} loss", found=list(weights), allowed=f"{len(thresholds) + 1} numbers, none negative"
        )


def build_loss(config: LossConfig, thresholds: Sequence[float]) -> MaskedLoss:
    """The loss of a configuration.

    Args:
        config: kind, weights and delta.
        thresholds: ``config.thresholds`` brought into model space; used by ``balanced`` and ``crps`` only.

    Raises:
        UsageError: see `BalancedLoss` and `CRPSLoss`.
    """
    if config.kind == "mse":
        return MSELoss()
    if config.kind == "mae":
        return MAELoss()
    if config.kind == "huber":
        return HuberLoss(delta=config.delta)
    if config.kind == "crps":
        return CRPSLoss(thresholds=thresholds, weights=config.weights)
    return BalancedLoss(thresholds=thresholds, weights=config.weights)
