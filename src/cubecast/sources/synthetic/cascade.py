"""A Gaussian field whose waves are born and die in the air that carries them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.ndimage
import scipy.special

from cubecast.sources.synthetic.domain import Domain
from cubecast.sources.synthetic.flow import Flow

Array = npt.NDArray[Any]

MEMORY = 0.08
"""Share of a wave's life time for which it goes on growing or decaying as it did."""
STEEP = 2.5
"""How sharp the edge of an envelope is."""
RENEWAL = 3600.0
"""Seconds after which the carried field becomes the new start, before the flow has wound it up."""
NODE_KM = 12.0
"""Displacements are followed at points about as far apart, and interpolated by cubic splines: the flow is smooth."""


@dataclass(frozen=True, slots=True)
class Waves:
    """Amplitude and life time (s) of every coefficient of the real FFT on a domain."""

    amplitude: Array
    life_time: Array


@dataclass(frozen=True, slots=True)
class Envelope:
    """Where rain can be: areas much wider than what rain looks like within them."""

    depth: float
    """How far the field sinks from within to outside, in its standard deviations; 0: no envelope."""
    cover: float
    """Share of the area within, on average."""
    smallest_km: float
    """Wavelengths above this make the envelope."""


def evolve(
    domain: Domain, waves: Waves, envelope: Envelope, flow: Flow, seconds: float, rng: np.random.Generator
) -> Iterator[Array]:
    """The field on the cube's part of the domain, float32, every ``seconds``, without end.

    In coordinates that move along, each coefficient g is a stationary AR(2) process in continuous time, that of
    ``g'' + (1 / A + 1 / B) g' + g / (A B) = noise``, with the correlation

        rho(t) = (A exp(-t / A) - B exp(-t / B)) / (A - B),   A + B = life time,   B = 0.08 life time

    which is the difference of two AR(1) processes with the same noise. The field is carried along the flow semi-
    Lagrangian: the place of the air of each pixel at the last renewal is followed, and interpolated there by cubic
    splines, so that interpolation costs the finest scales little power, and only once an hour for good.
    """
    process, carrier, shape = _Process(waves, seconds), _Carrier(domain, flow), _Shape(domain, waves, envelope)
    every = max(1, round(RENEWAL / seconds))
    states = process.start(rng)
    for number in itertools.count(1):
        yield carrier.bring(shape.of(states[0] - states[1]), whole=False)
        carrier.move(seconds)
        states = process.step(states, rng)
        if number % every == 0:
            states = np.stack([scipy.fft.rfft2(carrier.bring(state, whole=True)) for state in states])
            carrier.renew()


class _Process:
    """Two AR(1) processes of each wave, (2, ny, nx // 2 + 1) complex64, whose difference is the field's."""

    def __init__(self, waves: Waves, seconds: float) -> None:
        times = np.stack([(1 - MEMORY) * waves.life_time, MEMORY * waves.life_time])
        one, other = times
        keep = np.exp(-seconds / times)
        # Covariances of the two at one time, each driven by the same white noise; their difference has variance 1.
        scale = 2 * (one + other) / (one - other) ** 2
        stationary = np.stack([one / 2, one * other / (one + other), other / 2]) * scale * waves.amplitude**2
        renewed = stationary * (1 - np.stack([keep[0] ** 2, keep[0] * keep[1], keep[1] ** 2]))
        self._keep = keep.astype(np.float32)
        self._first, self._noise = _root(stationary), _root(renewed)

    def start(self, rng: np.random.Generator) -> Array:
        return _draw(self._first, rng)

    def step(self, states: Array, rng: np.random.Generator) -> Array:
        """One step on."""
        return np.asarray(self._keep * states + _draw(self._noise, rng))


def _root(covariance: Array) -> Array:
    """The lower root (11, 21, 22) of 2 x 2 covariances (11, 21, 22)."""
    first = np.sqrt(covariance[0])
    second = np.divide(covariance[1], first, out=np.zeros_like(first), where=first > 0)
    return np.stack([first, second, np.sqrt(np.maximum(covariance[2] - second**2, 0))]).astype(np.float32)


def _draw(root: Array, rng: np.random.Generator) -> Array:
    """Complex normal numbers with covariances of the given root, for each coefficient of a real FFT."""
    noise = rng.standard_normal((2, *root.shape[1:], 2), np.float32).view(np.complex64)[..., 0]
    # The inverse FFT takes half of the first column: they should be their own opposites.
    noise[:, :, 0] *= math.sqrt(2)
    return np.stack([root[0] * noise[0], root[1] * noise[0] + root[2] * noise[1]])


class _Shape:
    """The field of rain from the Gaussian one, both as coefficients."""

    def __init__(self, domain: Domain, waves: Waves, envelope: Envelope) -> None:
        self._domain, self._depth = domain, envelope.depth
        wavelength = 1 / np.maximum(np.hypot(*domain.wave_numbers()), 1e-9)
        wide = np.exp(-((envelope.smallest_km / wavelength) ** 2))
        # Each coefficient but those of the first column stands for two waves.
        twice = np.where(np.arange(wide.shape[1]) > 0, 4.0, 2.0)
        deviation = [math.sqrt((twice * p**2).sum()) for p in (waves.amplitude, waves.amplitude * wide)]
        unit = np.prod(domain.shape)
        self._texture, self._wide = np.float32(unit / deviation[0]), (wide * unit / deviation[1]).astype(np.float32)
        self._level = float(scipy.special.ndtri(1 - envelope.cover))

    def of(self, coefficients: Array) -> Array:
        """The Gaussian field plus ``depth tanh(STEEP (E - level))``, E its wide waves; each of variance 1."""
        texture = self._texture * coefficients
        if not self._depth:
            return texture
        inside = np.tanh(STEEP * (scipy.fft.irfft2(self._wide * coefficients, s=self._domain.shape) - self._level))
        return np.asarray(texture + scipy.fft.rfft2(self._depth / 2 * inside))


class _Carrier:
    """Where the air of each place was at the last renewal."""

    def __init__(self, domain: Domain, flow: Flow) -> None:
        self._domain, self._flow, self._clock = domain, flow, 0.0
        nodes = [int(np.clip(round(n * domain.grid_km / NODE_KM), 8, max(8, n // 2))) for n in domain.shape]
        self._spacing = np.array([n / m for n, m in zip(domain.shape, nodes, strict=True)])[:, None, None]
        self._nodes = np.stack(np.meshgrid(*(np.arange(m, dtype=float) for m in nodes), indexing="ij"))
        self._splines = [_splines(n, m) for n, m in zip(domain.shape, nodes, strict=True)]
        self._spectral = _spline_response(domain.shape)
        self.renew()

    def renew(self) -> None:
        self._displacement = np.zeros_like(self._nodes)

    def move(self, seconds: float) -> None:
        """Follow the air ``seconds`` back, by the mid-point rule, and from there as before; in pixels."""
        unit = seconds / (self._domain.grid_km * 1e3)
        here, middle = self._nodes * self._spacing, self._clock + seconds / 2
        shift = np.zeros_like(here)
        for _ in range(3):
            y, x = (self._domain.coordinate(axis, p) for axis, p in enumerate(here - shift / 2))
            shift = np.stack(self._flow.at(y, x, middle, period=self._domain.period)) * unit
        at = (here - shift) / self._spacing
        earlier = [scipy.ndimage.map_coordinates(d, at, order=3, mode="grid-wrap") for d in self._displacement]
        self._displacement = shift + np.stack(earlier)
        self._clock += seconds

    def bring(self, coefficients: Array, *, whole: bool) -> Array:
        """The field of these coefficients where it is now: on the cube's part of the domain, or the whole of it."""
        field = scipy.fft.irfft2(coefficients / self._spectral, s=self._domain.shape)
        ny, nx = self._domain.shape if whole else self._domain.size
        rows, columns = self._splines[0][:ny], self._splines[1][:nx]
        at = np.stack([np.arange(ny)[:, None] + np.zeros(nx), np.arange(nx) + np.zeros((ny, 1))])
        at -= rows @ self._displacement @ columns.T
        return np.asarray(
            scipy.ndimage.map_coordinates(field, at, np.float32, order=3, mode="grid-wrap", prefilter=False)
        )


def _splines(pixels: int, nodes: int) -> Array:
    """The matrix (pixels, nodes) of periodic cubic-spline interpolation."""
    at = np.arange(pixels) * (nodes / pixels)
    return np.stack(
        [scipy.ndimage.map_coordinates(row, [at], order=3, mode="grid-wrap") for row in np.eye(nodes)], axis=1
    )


def _spline_response(shape: tuple[int, int]) -> Array:
    """What cubic B-splines make of each wave: dividing by it makes spline coefficients of values."""
    y, x = scipy.fft.fftfreq(shape[0])[:, None], scipy.fft.rfftfreq(shape[1])
    return np.asarray((2 + np.cos(2 * np.pi * y)) * (2 + np.cos(2 * np.pi * x)) / 9, np.float32)
