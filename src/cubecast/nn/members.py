"""Members of an ensemble from any network, with noise or without."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cubecast.shapes import Field, Forecast, Frames, Noise

Forecasts = Callable[[Noise | None], Forecast]
"""Forecasts of one history, given the noise of some members or none."""
Leads = Callable[[Noise | None], Iterable[Field]]
"""The same lead by lead."""
BLOCK = 32
"""Side of the blocks that noise is drawn in, in points of its grid."""


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


def forecasts(network: nn.Module, frames: Frames, horizon: int, *, steady: bool) -> Forecasts:
    """Forecasts of a network, for one noise after the other: what all share is done once.

    ``steady``: for one forecast, the mean over what members are renewed by and how they stray.
    """
    shared = getattr(network, "forecasts", None)
    if shared is not None:
        found: Forecasts = shared(frames, horizon, steady=steady)
        return found
    return lambda noise: network(frames, horizon, *([] if noise is None else [noise]))


def lead_by_lead(network: nn.Module, frames: Frames, horizon: int, **how: Any) -> Leads:
    """The leads of `forecasts`, one by one where the network has them so; ``how`` is of `EncoderForecaster.leads`."""
    leads = getattr(network, "leads", None)
    if leads is not None:
        found: Leads = leads(frames, horizon, **how)
        return found
    forecast = forecasts(network, frames, horizon, steady=how["steady"])
    return lambda noise: forecast(noise).unbind(1)


def forecast_members(network: nn.Module, frames: Frames, horizon: int, *, members: int, seed: int) -> Forecast:
    """``members`` forecasts of each sample, one after the other; one forecast where the network takes no noise."""
    noise = draw_noise(network, frames, horizon, members=members, seed=seed)
    return network(frames, horizon) if noise is None else network(frames, horizon, noise)


def draw_normal(shape: Sequence[int], key: Sequence[int]) -> Tensor:
    """Standard normal numbers that depend on ``key`` alone, on the CPU: the same on every device."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(int(state[0])))


def draw_blocks(shape: Sequence[int], *, seed: int, first: tuple[int, int]) -> Tensor:
    """Standard normal noise (member, time, plane, rows, columns), block by block, on the CPU.

    That of a window of a grid, whose first point is ``first``, is the noise of the grid there.
    """
    noise, (rows, columns) = torch.empty(tuple(shape)), shape[-2:]

    def draw(place: tuple[int, int, int]) -> None:
        number, y, x = place
        block = draw_normal((*shape[1:3], BLOCK, BLOCK), [seed, *place])
        top, left = y * BLOCK - first[0], x * BLOCK - first[1]
        here = noise[number, ..., max(top, 0) : top + BLOCK, max(left, 0) : left + BLOCK]
        here.copy_(block[..., max(-top, 0) :, max(-left, 0) :][..., : here.shape[-2], : here.shape[-1]])

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # torch draws on one thread
        list(pool.map(draw, product(range(shape[0]), _blocks(first[0], rows), _blocks(first[1], columns))))
    return noise


def _blocks(first: int, count: int) -> range:
    """The blocks of noise that hold ``count`` points from point ``first`` on."""
    return range(first // BLOCK, -(-(first + count) // BLOCK))
