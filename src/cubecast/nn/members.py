"""Members of an ensemble from any network, with noise or without."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from cubecast.shapes import Forecast, Frames, Noise


def draw_noise(network: nn.Module, frames: Frames, horizon: int, **how: Any) -> Noise | None:
    """What `EncoderForecaster.draw_noise` gives, or None for a network that takes no noise."""
    draw = getattr(network, "draw_noise", None)
    return None if draw is None else draw(frames, horizon, **how)


def draw_pairs(network: nn.Module, frames: Frames, horizon: int, *, members: int, **how: Any) -> Noise | None:
    """Noise of ``members`` in pairs of opposite sign: what is linear in it leaves the mean of the members.

    Members of different pairs are independent. The mean of 12 is as good so as that of 24 independent ones. Not for
    training: the fair CRPS wants members that are independent.

    Source: Hammersley and Morton (1956), DOI 10.1017/S0305004100031455 (antithetic variates).
    """
    noise = draw_noise(network, frames, horizon, members=-(-members // 2), **how)
    if noise is None:
        return None
    each = noise.unflatten(0, (len(frames), -1))
    return torch.stack([each, -each], dim=2).flatten(1, 2)[:, :members].flatten(0, 1)


def forecast_members(network: nn.Module, frames: Frames, horizon: int, *, members: int, seed: int) -> Forecast:
    """``members`` forecasts of each sample, one after the other; one forecast where the network takes no noise."""
    noise = draw_noise(network, frames, horizon, members=members, seed=seed)
    return network(frames, horizon) if noise is None else network(frames, horizon, noise)
