"""What rain is like: how much is wet and how strong, its power by scale, how long each scale lives, how it moves.

The same numbers of observed and of generated rain say how alike they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft
import xarray as xr

from cubecast.cube import cube_step, sequence_dim, window_starts
from cubecast.errors import InputError
from cubecast.extrapolation import extrapolation, find_motion
from cubecast.progress import Progress, follow
from cubecast.scores.spatial import cell_km
from cubecast.scores.spectrum import spectrum_sums
from cubecast.units import convert_units

Array = npt.NDArray[Any]

WET, HEAVIEST = 0.1, 50.0
"""mm h-1: below is dry; above is hail or clutter."""
QUANTILES = (0.1, 0.5, 0.9, 0.99, 0.999)
WAVELENGTHS = (8.0, 16.0, 32.0, 64.0, 128.0)
"""km: the middle of each band."""
BREAK_KM, LONGEST_KM = 20.0, 160.0
"""The power spectrum is about a power law on either side of 20 km."""
HISTORY = 6
TILE_KM = 64.0
MINUTES, LATER = 45, 30
"""Minutes that correlations are followed for, and after which growth is measured."""


def rain_statistics(cube: xr.DataArray, *, cases: int = 8, progress: Progress | None = None) -> xr.Dataset:
    """Statistics of a cube of rain, comparable between grids and steps as far as these resolve them.

    Rain weaker than 0.1 mm h-1 is dry. Spectra, correlations and motion are those of a = log(r / 0.1 mm h-1), r cut at
    0.1 and 50 mm h-1. What needs a motion is measured in ``cases`` reference times, evenly spread over the cube: the
    last of 6 frames is extrapolated (`cubecast.extrapolation`) and compared with what came.

    Args:
        cube: rain rates or reflectivity (time, y, x) of known cell size, NaN where missing.
        cases: reference times at most.
        progress: shows how many are done.

    Returns:
        A Dataset with

        - ``wet_fraction (time)``, and the shares of tiles of 64 km that are all but dry (less than 1 % of their pixels
          are wet) and all but wet (more than 90 %): ``dry_tiles``, ``wet_tiles``;
        - ``mean``, ``quantiles (quantile)``: rain rates of wet pixels, mm h-1;
        - ``power (wavelength)``: mean power spectrum of a, its fields tapered (`cubecast.scores.spectrum`), and the
          exponents b of P ~ k^-b: ``slope_large`` at 20 to 160 km, ``slope_small`` at 4 pixels to 20 km;
        - ``correlation (scale, lead)``: of the extrapolated and the observed a, each minus its own wider surroundings
          (a band of wavelengths around ``scale`` km); ``lifetime (scale)``: minutes until it is 1/e, on the line
          through its last two leads where it is not yet;
        - ``growth``: root mean square over tiles of ln(observed / extrapolated mean rain), 30 minutes ahead;
        - ``speed``: mean of the estimated motion where it rains, m s-1; ``vorticity``, ``divergence``: root mean
          squares of what is resolved there, s-1; ``veering``: root mean square of the change of motion in 30 minutes,
          m s-1.

    Raises:
        InputError: a grid whose cells have no known size, or fewer frames in a row than a case needs.
    """
    side, dim = _side(cube), sequence_dim(cube)
    rates = convert_units(cube, "mm h-1").transpose(dim, ...).load()
    power = rain_spectrum(rates)
    length = power["wavelength"]
    slopes = {
        "slope_large": _slope(power.where((length > BREAK_KM) & (length < LONGEST_KM), drop=True)),
        "slope_small": _slope(power.where((length > 4 * side) & (length <= BREAK_KM), drop=True)),
    }
    minutes = float(cube_step(cube).size) / 60
    horizon = max(2, round(MINUTES / minutes))
    starts = window_starts(cube, HISTORY + horizon)
    if not len(starts):
        raise InputError(
            "statistics of rain", found=f"{cube.sizes[dim]} frames", allowed=f"{HISTORY + horizon} in a row or more"
        )
    chosen = starts[np.unique(np.linspace(0, len(starts) - 1, cases).round().astype(int))]
    evolution = _Evolution(side, minutes, horizon)
    for start in follow(chosen.tolist(), "rain statistics", len(chosen), progress):
        evolution.add(rates.isel({dim: slice(start, start + HISTORY + horizon)}))
    found = _amounts(rates, side) | {"power": power} | slopes | evolution.result()
    return xr.Dataset(found, attrs={"cell_km": side, "step_minutes": minutes})


def rain_spectrum(cube: xr.DataArray) -> xr.DataArray:
    """The ``power`` of `rain_statistics` alone: the mean of sixteen frames at most, evenly spread."""
    rates = convert_units(cube, "mm h-1").transpose(sequence_dim(cube), ...)
    some = rates[:: -(-len(rates) // 16)].values
    known = xr.DataArray(np.isfinite(some), dims=("reference", "y", "x")).expand_dims("lead", 1)
    field = known.copy(data=np.nan_to_num(_log(some), nan=0.0)[:, None].astype(float))
    return spectrum_sums(field, field, known, cell=_side(cube))["power_observed"].mean(("reference", "lead"))


def summary(statistics: xr.Dataset) -> dict[str, float]:
    """One number for each statistic: a row of a table."""
    wet = statistics["wet_fraction"]
    row = {"wet": float(wet.mean()), "wet_sd": float(wet.std())}
    row |= {f"q{100 * q:g}": float(statistics["quantiles"].sel(quantile=q)) for q in QUANTILES}
    row |= {f"life_{scale:.0f}km": float(statistics["lifetime"].sel(scale=scale)) for scale in WAVELENGTHS}
    single = ("dry_tiles", "wet_tiles", "mean", "slope_large", "slope_small", "growth", "speed", "vorticity")
    row |= {name: float(statistics[name]) for name in (*single, "divergence", "veering")}
    return row


def _side(cube: xr.DataArray) -> float:
    """Side of a cell in km."""
    side = cell_km(cube)
    if side is None:
        raise InputError("statistics of rain", found="cells of unknown size", allowed="a grid in m, km or degrees")
    return side


def _log(rates: Array) -> Array:
    return np.log(np.clip(rates, WET, HEAVIEST) / WET)


def _tiles(field: Array, pixels: int) -> Array:
    """Means of the finite values of tiles; NaN where less than half of a tile is known."""
    ny, nx = (n // pixels * pixels for n in field.shape[-2:])
    tiles = field[..., :ny, :nx].reshape(*field.shape[:-2], ny // pixels, pixels, nx // pixels, pixels)
    known = np.isfinite(tiles).mean(axis=(-3, -1))
    mean = np.nan_to_num(tiles, nan=0.0).mean(axis=(-3, -1)) / np.maximum(known, 0.5)
    return np.where(known >= 0.5, mean, np.nan)


def _amounts(rates: xr.DataArray, side: float) -> dict[str, Any]:
    """How much is wet, and how strong rain is."""
    values, dim = rates.values, rates.dims[0]
    wet = np.where(np.isfinite(values), values >= WET, np.nan)
    tiles = _tiles(wet, min(max(1, round(TILE_KM / side)), *values.shape[1:]))
    tiles = tiles[np.isfinite(tiles)]
    strength = values[values >= WET] if np.nansum(wet) else np.array([np.nan])
    return {
        "wet_fraction": (dim, np.nanmean(wet, axis=(1, 2))),
        "dry_tiles": float((tiles < 0.01).mean()),
        "wet_tiles": float((tiles > 0.9).mean()),
        "mean": float(strength.mean()),
        "quantiles": xr.DataArray(np.quantile(strength, QUANTILES), {"quantile": list(QUANTILES)}, ("quantile",)),
    }


def _slope(power: xr.DataArray) -> float:
    """b of P ~ k^-b; NaN where the grid is too coarse or too small for it, or all is dry."""
    if power.size < 3 or not (power > 0).all():
        return float("nan")
    return float(np.polyfit(np.log(power["wavelength"]), np.log(power), 1)[0])


class _Evolution:
    """Sums over cases of what needs a motion."""

    def __init__(self, side: float, minutes: float, horizon: int) -> None:
        self.side, self.minutes, self.horizon = side, minutes, horizon
        self.products = np.zeros((3, len(WAVELENGTHS), horizon))
        self.growth: list[Array] = []
        self.moving: list[Array] = []

    def add(self, rates: xr.DataArray) -> None:
        """One case: history and what came after."""
        past, truth = rates[:HISTORY], rates[HISTORY:].values
        moved = extrapolation(rates, reference=past[past.dims[0]].values[-1], horizon=self.horizon, history=HISTORY)
        ahead = moved[rates.name].values[0]
        for lead in range(self.horizon):
            self._correlate(ahead[lead], truth[lead], lead)
        later = min(self.horizon, max(1, round(LATER / self.minutes)))
        self._grow(ahead[later - 1], truth[later - 1])
        self._move(find_motion(past), find_motion(rates[later : later + HISTORY]), past.values[-1])

    def _correlate(self, ahead: Array, truth: Array, lead: int) -> None:
        there = np.isfinite(ahead) & np.isfinite(truth)
        both = _bands(np.stack([_log(np.where(there, f, WET)) for f in (ahead, truth)]), there, self.side)
        for number, (a, b) in both:
            self.products[:, number, lead] += [(a * b).sum(), (a * a).sum(), (b * b).sum()]

    def _grow(self, ahead: Array, truth: Array) -> None:
        there = np.isfinite(ahead) & np.isfinite(truth)
        pixels = min(max(1, round(TILE_KM / self.side)), *truth.shape)
        before, after = (_tiles(np.where(there, np.minimum(f, HEAVIEST), np.nan), pixels) for f in (ahead, truth))
        with np.errstate(invalid="ignore"):
            rainy = np.maximum(before, after) >= WET
        self.growth.append(np.log((after[rainy] + 0.02) / (before[rainy] + 0.02)))

    def _move(self, motion: Array, later: Array, last: Array) -> None:
        """Speed, vorticity, divergence and change of motion, each at wet pixels, in SI units."""
        unit, metres = self.side * 1e3 / (self.minutes * 60), self.side * 1e3
        (vy, vx), (uy, ux) = (np.gradient(component * unit, metres) for component in motion)
        change = (later - motion) * unit
        terms = [np.hypot(*motion) * unit, (vx - uy) ** 2, (vy + ux) ** 2, (change**2).sum(axis=0)]
        wet = np.nan_to_num(last, nan=0.0) >= WET
        self.moving.append(np.stack([term[wet] for term in terms]))

    def result(self) -> dict[str, Any]:
        both, one, other = self.products
        correlation = np.divide(both, np.sqrt(one * other), out=np.full_like(both, np.nan), where=one * other > 0)
        leads = self.minutes * np.arange(1, self.horizon + 1)
        coords = {"scale": list(WAVELENGTHS), "lead": leads}
        growth, moving = np.concatenate(self.growth), np.concatenate(self.moving, axis=1)
        means = moving.mean(axis=1) if moving.size else np.full(4, np.nan)
        named = zip(("speed", "vorticity", "divergence", "veering"), (1, 0.5, 0.5, 0.5), means, strict=True)
        return {
            "correlation": xr.DataArray(correlation, coords, ("scale", "lead")),
            "lifetime": ("scale", [_lifetime(leads, c) for c in correlation]),
            "growth": float(np.sqrt((growth**2).mean())) if growth.size else float("nan"),
        } | {name: float(mean) ** power for name, power, mean in named}


def _bands(fields: Array, there: Array, side: float) -> Iterator[tuple[int, Array]]:
    """Known pixels of fields (n, y, x) in each band that the grid holds: (number of the band, (n, pixels)).

    A band is what is left between Gaussian means of the known pixels, one of twice the width of the other: most of it
    are waves of about 6.54 widths.
    """
    chosen = [i for i, length in enumerate(WAVELENGTHS) if 4 * side <= length <= min(there.shape) * side / 2]
    shape = [scipy.fft.next_fast_len(n + n // 4, real=True) for n in there.shape]
    k = np.hypot(scipy.fft.fftfreq(shape[0], side)[:, None], scipy.fft.rfftfreq(shape[1], side))
    found = scipy.fft.rfft2(np.concatenate([fields * there, there[None]]), s=shape)
    inside = (slice(None), *(slice(n) for n in there.shape))
    means = {}
    for i in chosen:
        for width in (WAVELENGTHS[i] / 6.54, WAVELENGTHS[i] / 3.27):
            if width not in means:
                mean = scipy.fft.irfft2(found * np.exp(-2 * (np.pi * k * width) ** 2), s=shape)[inside][:, there]
                means[width] = mean[:-1] / np.maximum(mean[-1], 1e-3)
        yield i, means[WAVELENGTHS[i] / 6.54] - means[WAVELENGTHS[i] / 3.27]


def _lifetime(leads: Array, correlation: Array) -> float:
    """Minutes until a correlation is 1/e, its logarithm linear between leads and after the last; 1 at lead 0."""
    if not np.isfinite(correlation).all():
        return float("nan")
    time, fall = np.append(0.0, leads), -np.log(np.clip(np.append(1.0, correlation), 1e-3, 1.0))
    after = int(np.argmax(fall >= 1)) if (fall >= 1).any() else len(fall) - 1
    slope = (fall[after] - fall[after - 1]) / (time[after] - time[after - 1])
    if fall[after] < 1:
        slope = fall[after] / time[after]
    return float(time[after] + (1 - fall[after]) / slope) if slope > 0 else float("inf")
