"""Members of an ensemble from any network, with noise or without."""

from __future__ import annotations

from torch import nn

from cubecast.shapes import Forecast, Frames, Noise


def draw_noise(network: nn.Module, frames: Frames, horizon: int, *, members: int, seed: int) -> Noise | None:
    """What `EncoderForecaster.draw_noise` gives, or None for a network that takes no noise."""
    draw = getattr(network, "draw_noise", None)
    return None if draw is None else draw(frames, horizon, members=members, seed=seed)


def forecast_members(network: nn.Module, frames: Frames, horizon: int, *, members: int, seed: int) -> Forecast:
    """``members`` forecasts of each sample, one after the other; one forecast where the network takes no noise."""
    noise = draw_noise(network, frames, horizon, members=members, seed=seed)
    return network(frames, horizon) if noise is None else network(frames, horizon, noise)
