"""What kind of rain falls: the numbers that make one event, drawn from a climate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cubecast.sources.synthetic.cascade import Envelope, Waves
from cubecast.sources.synthetic.domain import Domain
from cubecast.sources.synthetic.flow import Flow, draw_flow

Array = npt.NDArray[Any]

BREAK_KM, REFERENCE_KM = 20.0, 64.0
Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Event:
    """The numbers of one event."""

    kind: str
    """``stratiform`` or ``convective``."""
    wet_fraction: float
    """Share of pixels, of all frames, with 0.1 mm h-1 or more."""
    median: float
    """mm h-1: of the log-normal distribution of wet rates, before it is cut off at 0.1 mm h-1."""
    spread: float
    """Standard deviation of the natural logarithm of wet rates, before that."""
    slopes: tuple[float, float]
    """Exponents b of the power spectrum k^-b of the Gaussian field at wavelengths above and below 20 km."""
    outer_km: float
    """Wavelength beyond which the spectrum is flat."""
    life_time: float
    """Minutes that waves of 64 km live, seen from within."""
    life_exponent: float
    """Life time ~ wavelength^exponent."""
    stretch: float
    """How much longer systems are along their axis than across."""
    axis: float
    """Direction of that axis, in degrees clockwise from the y axis (north)."""
    depth: float
    """How far the Gaussian field sinks outside of the areas where rain can be, in its standard deviations."""
    cover: float
    """Size of these areas, relative to the wet fraction."""
    smallest_km: float
    """Wavelengths above this make these areas."""
    flow: Flow

    def envelope(self) -> Envelope:
        """Where rain can be."""
        return Envelope(self.depth, min(self.cover * self.wet_fraction, 0.99), self.smallest_km)

    def waves(self, domain: Domain) -> Waves:
        """``amplitude^2 = (k^2 + k_outer^2)^(-b1 / 2) (1 + (k / k_break)^2)^((b1 - b2) / 2)``.

        k is measured in a plane stretched across the axis, less so for shorter waves. The life time is that of the true
        wavelength, and of the outermost one beyond.
        """
        ky, kx = domain.wave_numbers()
        angle = math.radians(self.axis)
        along, across = ky * math.cos(angle) + kx * math.sin(angle), ky * math.sin(angle) - kx * math.cos(angle)
        # Fronts are long, the showers in them round.
        stretch = self.stretch ** (1 / (1 + np.hypot(ky, kx) * BREAK_KM))
        squared = along**2 * stretch + across**2 / stretch
        large, small = self.slopes
        power = (squared + self.outer_km**-2) ** (-large / 2) * (1 + squared * BREAK_KM**2) ** ((large - small) / 2)
        wavelength = 1 / np.sqrt(ky**2 + kx**2 + self.outer_km**-2)
        life = 60 * self.life_time * (wavelength / REFERENCE_KM) ** self.life_exponent
        return Waves(np.sqrt(power), life)


# Lowest and highest values of what is drawn: evenly between them, or between their logarithms where ratios matter.
CLIMATE: dict[str, dict[str, Range]] = {
    "stratiform": {
        "wet_fraction": (0.2, 0.8),
        "median": (0.3, 1.6),
        "spread": (0.65, 1.05),
        "large": (1.2, 2.4),
        "small": (3.2, 4.8),
        "outer_km": (120, 400),
        "life_time": (90, 250),
        "life_exponent": (0.65, 1.05),
        "stretch": (1, 4),
        "depth": (2, 5),
        "cover": (0.7, 1.2),
        "smallest_km": (80, 200),
        "speed": (4, 28),
        "vorticity": (3e-5, 1.4e-4),
        "divergence": (1e-5, 5e-5),
    },
    "convective": {
        "wet_fraction": (0.04, 0.3),
        "median": (0.12, 3),
        "spread": (0.9, 1.6),
        "large": (0.6, 2.4),
        "small": (2.8, 4.8),
        "outer_km": (30, 250),
        "life_time": (90, 360),
        "life_exponent": (0.75, 1.2),
        "stretch": (1, 2.5),
        "depth": (0.4, 5),
        "cover": (1, 3),
        "smallest_km": (40, 150),
        "speed": (3, 22),
        "vorticity": (3e-5, 1.4e-4),
        "divergence": (1e-5, 5e-5),
    },
}
KINDS = tuple(CLIMATE)
_RATIOS = {"smallest_km", "cover", "median", "outer_km", "life_time", "stretch", "depth", "vorticity", "divergence"}


def draw_event(kind: str | None, period: tuple[float, float], rng: np.random.Generator) -> Event:
    """An event of a kind, or of either, as likely."""
    drawn = rng.integers(len(KINDS))
    kind = KINDS[int(drawn)] if kind is None else kind
    value: dict[str, float] = {}
    for name, (low, high) in CLIMATE[kind].items():
        share = float(rng.random())
        value[name] = low * (high / low) ** share if name in _RATIOS else low + (high - low) * share
    flow = draw_flow(rng, period, **{name: value.pop(name) for name in ("speed", "vorticity", "divergence")})
    slopes = (value.pop("large"), value.pop("small"))
    return Event(kind, slopes=slopes, axis=float(rng.uniform(0, 180)), flow=flow, **value)
