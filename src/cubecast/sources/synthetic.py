"""A seeded stochastic rain generator: radar-like cubes whose true motion is known."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import scipy.fft
import scipy.ndimage
import xarray as xr

from cubecast.errors import InputError, UsageError

Array = npt.NDArray[Any]

DRIZZLE = 0.1
"""mm h-1: the weakest rain; everything below is dry."""
STRONG = 6.0
"""mm h-1: the 99th percentile of wet values, as in frontal rain with embedded showers (Netherlands, Finland)."""
OUTER_KM = 64.0
"""Size of the largest systems; the spectrum is flat beyond."""
PADDING = 1.5
"""The field is periodic over this many times the grid: no edge repeats, and what leaves does not soon come back."""


@dataclass(frozen=True, slots=True)
class Flow:
    """The motion of the rain: a mean wind, and shear on top of it that makes its paths curve.

    ``u = speed (sin(a) - turn sin(2 pi y / Ly))`` and ``v = speed (cos(a) + turn sin(2 pi x / Lx))`` with
    a = ``direction``, x and y from the middle of the grid, and Lx, Ly 1.5 times the size of the grid (or a little
    more). It is the same at all times, does not diverge, and turns cyclonically around the middle.
    """

    speed: float = 7.0
    """m s-1."""
    direction: float = 60.0
    """Where the rain moves to, in degrees clockwise from the y axis (north)."""
    turn: float = 0.3
    """Share of ``speed`` that curves."""

    def at(self, y: Array, x: Array, *, period: tuple[float, float]) -> tuple[Array, Array]:
        """(v, u) in m s-1 towards +y and +x, at y and x in m; ``period`` is (Ly, Lx) in m."""
        angle = math.radians(self.direction)
        v = self.speed * (math.cos(angle) + self.turn * np.sin(2 * np.pi * x / period[1]))
        u = self.speed * (math.sin(angle) - self.turn * np.sin(2 * np.pi * y / period[0]))
        return v, u


def generate_rain(
    *,
    frames: int = 300,
    size: tuple[int, int] = (128, 128),
    step_minutes: float = 5.0,
    grid_km: float = 1.0,
    seed: int = 0,
    wet_fraction: float = 0.25,
    slope: float = 3.5,
    life_time: float = 300.0,
    flow: Flow | None = None,
) -> xr.DataArray:
    """Rain with known motion, growth and decay, made in memory.

    A Gaussian field g with the power spectrum ``P(k) ~ (k^2 + k0^2)^(-slope / 2)``, 1 / k0 = 64 km, is carried along
    the flow (semi-Lagrangian, cubic splines) while each wavelength L of it is renewed as an AR(1) process::

        g(t + dt) = p g(t) + sqrt(1 - p^2) e,   p = exp(-dt / T),   T = life_time min(1, L / 64 km)^0.8

    so that small showers die first (Seed 2003, https://doi.org/10.1175/1520-0450(2003)042<0381:ADASSA>2.0.CO;2); the
    innovations e have the same spectrum. Interpolation costs the finest scales, 2 to 3 pixels, a tenth of their power.
    Rain is log-normal in g, and dry below a threshold (Pegram and Clothier 2001,
    https://doi.org/10.1016/S0022-1694(00)00373-5): r = 0.1 exp(s (g - g0)) for g >= g0. Over all frames, g0 gives the
    wet fraction, and s gives the wet values a 99th percentile of 6 mm h-1.

    Args:
        frames: number of frames.
        size: (ny, nx).
        step_minutes: step of the frames.
        grid_km: side of a pixel.
        seed: the same seed gives the same rain.
        wet_fraction: share of pixels with 0.1 mm h-1 or more.
        slope: steepness of the power spectrum of log(rain); 2.5 is rough, 4 smooth.
        life_time: minutes in which systems of 64 km lose all but 1/e of their correlation, seen from within.
        flow: the motion; None: the default `Flow`. `motion` gives it on the grid.

    Returns:
        A cube ``rainfall_rate(time, y, x)`` in mm h-1, float32, on an azimuthal equidistant grid around 52N 5E.

    Raises:
        UsageError: a value out of range.
    """
    for name, found, good, allowed in (
        ("frames", frames, frames >= 1, "1 or more"),
        ("size", size, len(size) == 2 and min(size) >= 8, "(ny, nx) of 8 or more each"),
        ("step_minutes", step_minutes, step_minutes > 0, "above 0"),
        ("grid_km", grid_km, grid_km > 0, "above 0"),
        ("wet_fraction", wet_fraction, 0 < wet_fraction <= 1, "above 0, at most 1"),
        ("life_time", life_time, life_time > 0, "above 0"),
    ):
        if not good:
            raise UsageError(name, found=found, allowed=allowed)
    domain, flow = _Domain.around(size, grid_km), flow or Flow()
    field = np.empty((frames, *size), np.float32)
    evolution = _evolve(domain, flow, step_minutes, slope, life_time, np.random.default_rng(seed))
    for index in range(frames):
        field[index] = next(evolution)[: size[0], : size[1]]
    return _cube(_rain(field, wet_fraction), domain, step_minutes, flow, seed)


def motion(cube: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """The true motion (u, v) in m s-1 towards +x and +y, on the grid of a cube (or part of one) of `generate_rain`.

    Raises:
        InputError: the cube does not come from `generate_rain`.
    """
    try:
        saved = json.loads(cube.attrs["flow"])
        period = tuple(saved.pop("period"))
        flow = Flow(**saved)
    except (KeyError, TypeError, ValueError):
        raise InputError(
            "the motion is unknown", found="no attribute 'flow'", allowed="a cube of cubecast.generate_rain"
        ) from None
    y, x = xr.broadcast(cube["y"].drop_attrs(), cube["x"].drop_attrs())
    v, u = flow.at(y.values, x.values, period=period)
    units = {"units": "m s-1"}
    return y.copy(data=u).rename("u").assign_attrs(units), y.copy(data=v).rename("v").assign_attrs(units)


@dataclass(frozen=True, slots=True)
class _Domain:
    """The periodic grid on which rain is made; the grid of the cube is its first part, around y = x = 0."""

    size: tuple[int, int]
    shape: tuple[int, int]
    grid_km: float

    @classmethod
    def around(cls, size: tuple[int, int], grid_km: float) -> _Domain:
        ny, nx = (scipy.fft.next_fast_len(math.ceil(PADDING * n), real=True) for n in size)
        return cls(size, (ny, nx), grid_km)

    @property
    def period(self) -> tuple[float, float]:
        """(Ly, Lx) in m."""
        return self.shape[0] * self.grid_km * 1e3, self.shape[1] * self.grid_km * 1e3

    def coordinate(self, axis: int, pixel: Array) -> Array:
        """y (axis 0) or x (axis 1) in m of pixels counted from the first."""
        return (pixel - (self.size[axis] - 1) / 2) * self.grid_km * 1e3

    def wavenumber(self) -> Array:
        """Cycles per km of every coefficient of the real FFT."""
        rows = scipy.fft.fftfreq(self.shape[0], self.grid_km)[:, None]
        return np.hypot(rows, scipy.fft.rfftfreq(self.shape[1], self.grid_km))

    def departure(self, flow: Flow, seconds: float) -> Array:
        """Where the air at every pixel was one step before, in pixels (2, y, x): the midpoint rule, iterated."""
        here = np.stack(np.meshgrid(*(np.arange(n, dtype=float) for n in self.shape), indexing="ij"))
        there = here
        for _ in range(5):
            y, x = (self.coordinate(axis, p) for axis, p in enumerate((here + there) / 2))
            there = here - np.stack(flow.at(y, x, period=self.period)) * seconds / (self.grid_km * 1e3)
        return there


def _evolve(
    domain: _Domain, flow: Flow, step_minutes: float, slope: float, life_time: float, rng: np.random.Generator
) -> Iterator[Array]:
    """The Gaussian field of one frame after the other, on the whole domain, without end."""
    shape, wavenumber = domain.shape, domain.wavenumber()
    amplitude = (wavenumber**2 + OUTER_KM**-2) ** (-slope / 4)
    amplitude[0, 0] = 0  # neither this mean nor the variance matters: the rain is scaled by quantiles
    life = life_time * np.minimum(1, 1 / np.maximum(wavenumber * OUTER_KM, 1e-9)) ** 0.8
    keep = np.exp(-step_minutes / life)
    renew = amplitude * np.sqrt(1 - keep**2)
    origin = domain.departure(flow, step_minutes * 60)
    spectrum = amplitude * scipy.fft.rfft2(rng.standard_normal(shape, np.float32))
    while True:
        field = scipy.fft.irfft2(spectrum, s=shape)
        yield field
        carried = scipy.fft.rfft2(scipy.ndimage.map_coordinates(field, origin, order=3, mode="grid-wrap"))
        spectrum = keep * carried + renew * scipy.fft.rfft2(rng.standard_normal(shape, np.float32))


def _rain(field: Array, wet_fraction: float) -> Array:
    """Rain rates of the Gaussian field."""
    lowest, strong = np.quantile(field, [1 - wet_fraction, 1 - 0.01 * wet_fraction])
    steep = math.log(STRONG / DRIZZLE) / (strong - lowest)
    return np.where(field >= lowest, DRIZZLE * np.exp(steep * (field - lowest)), 0).astype(np.float32)


def _cube(rain: Array, domain: _Domain, step_minutes: float, flow: Flow, seed: int) -> xr.DataArray:
    """The cube of rain rates with its CF metadata."""
    step = np.timedelta64(round(step_minutes * 60e9), "ns")
    crs = pyproj.CRS.from_dict({"proj": "aeqd", "lat_0": 52.0, "lon_0": 5.0, "datum": "WGS84"})
    coords: dict[str, Any] = {
        "time": ("time", np.datetime64("2024-06-01", "ns") + np.arange(len(rain)) * step, {"standard_name": "time"}),
        "crs": ((), np.int32(0), crs.to_cf()),
    }
    for axis, dim in enumerate("yx"):
        values = domain.coordinate(axis, np.arange(domain.size[axis]))
        coords[dim] = (
            dim,
            values,
            {"standard_name": f"projection_{dim}_coordinate", "units": "m", "axis": dim.upper()},
        )
    attrs = {
        "standard_name": "rainfall_rate",
        "long_name": "rain rate",
        "units": "mm h-1",
        "grid_mapping": "crs",
        "cell_methods": "time: point",
        "comment": f"synthetic rain of cubecast.generate_rain, seed {seed}",
        "flow": json.dumps({**asdict(flow), "period": domain.period}),
    }
    return xr.DataArray(rain, dims=("time", "y", "x"), coords=coords, attrs=attrs, name="rainfall_rate")
