"""The motion of synthetic rain: a mean wind that veers, with eddies in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cubecast.errors import UsageError

Array = npt.NDArray[Any]

SHORTEST_KM, LONGEST_KM = 90.0, 700.0
"""Wavelengths of drawn eddies; what is shorter does not live long enough to be seen in radar rain."""


@dataclass(frozen=True, slots=True)
class Eddy:
    """A plane wave in the velocity: across its crests when ``divergent``, else along them."""

    waves: tuple[int, int]
    """How often it repeats along y and x of the periodic domain."""
    speed: float
    """Amplitude in m s-1."""
    phase: float = 0.0
    """In radians, in the middle of the grid at the first frame."""
    rate: float = 0.0
    """Radians per second by which the phase grows."""
    divergent: bool = False

    def __post_init__(self) -> None:
        if self.waves == (0, 0):
            raise UsageError("waves of an eddy", found=self.waves, allowed="whole numbers, not both 0")


@dataclass(frozen=True, slots=True)
class Flow:
    """The motion of the rain.

    With a = ``direction`` + ``veer`` t, and for each eddy the unit vector n along its wave vector k and
    w = ``speed`` sin(k . x + ``phase`` + ``rate`` t)::

        (u, v) = speed (sin a, cos a) + sum over eddies  w (n_x, n_y) if divergent else w (-n_y, n_x)

    x and y are counted from the middle of the grid, t from the first frame. A divergent eddy gathers and spreads rain;
    the others turn and shear it.
    """

    speed: float = 7.0
    """m s-1."""
    direction: float = 60.0
    """Where the rain moves to, in degrees clockwise from the y axis (north)."""
    turn: float = 0.0
    """Share of ``speed`` in two steady eddies as wide as the domain, which turn cyclonically around the middle."""
    veer: float = 0.0
    """Degrees per hour by which the direction turns clockwise."""
    eddies: tuple[Eddy, ...] = ()

    def at(self, y: Array, x: Array, seconds: Any, *, period: tuple[float, float]) -> tuple[Array, Array]:
        """(v, u) in m s-1 towards +y and +x, at y and x in m; ``period`` is (Ly, Lx) in m. Arrays broadcast."""
        angle = np.radians(self.direction + self.veer * np.asarray(seconds) / 3600)
        v, u = self.speed * np.cos(angle) + 0 * (y + x), self.speed * np.sin(angle) + 0 * (y + x)
        whirl = (Eddy((1, 0), self.turn * self.speed), Eddy((0, 1), self.turn * self.speed)) if self.turn else ()
        for eddy in (*whirl, *self.eddies):
            ky, kx = (2 * math.pi * n / length for n, length in zip(eddy.waves, period, strict=True))
            along, across = ky / math.hypot(ky, kx), kx / math.hypot(ky, kx)
            wave = eddy.speed * np.sin(ky * y + kx * x + eddy.phase + eddy.rate * seconds)
            v = v + wave * (along if eddy.divergent else across)
            u = u + wave * (across if eddy.divergent else -along)
        return v, u


def draw_flow(
    rng: np.random.Generator, period: tuple[float, float], *, speed: float, vorticity: float, divergence: float
) -> Flow:
    """A flow in a random direction, with ten eddies of random wave vectors and phases.

    Each eddy has the same share of the mean squared vorticity or divergence, so that the longer ones are the faster
    ones, and moves downstream at up to the mean speed.

    Args:
        rng: decides.
        period: (Ly, Lx) of the domain in m; a small domain has none but its longest waves.
        speed: of the mean wind, m s-1.
        vorticity, divergence: their root mean squares, s-1.
    """
    direction, veer = float(rng.uniform(0, 360)), float(rng.normal(0, 6))
    heading = (math.cos(math.radians(direction)), math.sin(math.radians(direction)))
    choice, share = _wave_vectors(period)
    eddies = []
    for number in range(10):
        divergent = number >= 6
        waves = choice[int(rng.choice(len(choice), p=share))]
        k = [2 * math.pi * n / length for n, length in zip(waves, period, strict=True)]
        strength = divergence * math.sqrt(2 / 4) if divergent else vorticity * math.sqrt(2 / 6)
        drift = -float(rng.uniform(0, 1)) * speed * (k[0] * heading[0] + k[1] * heading[1])
        phase = float(rng.uniform(0, 2 * math.pi))
        eddies.append(Eddy(waves, strength / math.hypot(*k), phase, drift, divergent))
    return Flow(speed, direction, veer=veer, eddies=tuple(eddies))


def _wave_vectors(period: tuple[float, float]) -> tuple[list[tuple[int, int]], Array]:
    """Waves that fit a domain and are in the range, one of each pair of opposites, and their probabilities.

    Octaves of wavelength are about as likely. A domain smaller than the range has its longest waves.
    """
    most = [max(1, int(length / SHORTEST_KM / 1e3)) for length in period]
    every = [(m, n) for m in range(most[0] + 1) for n in range(-most[1], most[1] + 1) if (m, n) > (0, 0)]
    wavelength = {w: 1 / math.hypot(w[0] / period[0], w[1] / period[1]) / 1e3 for w in every}
    within = [w for w in every if SHORTEST_KM <= wavelength[w] <= LONGEST_KM] or [(0, 1), (1, 0)]
    weight = np.array([wavelength[w] ** 2 for w in within])
    return within, weight / weight.sum()
