"""The power of forecast and observation by wavelength: is a forecast blurred, and below which wavelength.

The radially averaged power spectrum of a field, as sums over cases that pool exactly. What a spectrum needs and rain
fields lack - no missing points, no edge - is made the same for both sides: each field is taken minus its mean over the
points that count, is 0 where a point does not count (the common mask of all systems), and is multiplied by a Hann
window in both directions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft
import xarray as xr

from cubecast.errors import UsageError

WAVELENGTH = "wavelength"
SMALLEST = 8
"""Cells of the shorter side of a field that has a spectrum."""
PER_OCTAVE = 3

Array = npt.NDArray[Any]


def spectrum_sums(
    forecast: xr.DataArray, observed: xr.DataArray, weights: xr.DataArray, *, cell: float
) -> dict[str, xr.DataArray]:
    """Power spectra of each case and lead, averaged over directions and over third-octave bands of wavelength.

    With a the field minus its mean, h the window and N the number of cells, the power of a wave is
    |FFT(h a)|^2 / (N sum h^2): summed over all waves it is the variance of the field under the window, in the square
    of its units. Waves are counted by k = sqrt(kx^2 + ky^2) up to half a wave a cell; k = 0 is left out.

    Args:
        forecast: float64 (reference, [realization,] lead, y, x), finite where the weight is above 0. The power of
            an ensemble is the mean power of its members.
        observed: (reference, lead, y, x).
        weights: the same; only whether they are above 0 counts.
        cell: side of a cell in the units that wavelengths are to have.

    Returns:
        ``power_forecast`` and ``power_observed`` (reference, lead, wavelength), mean power of a wave of the band;
        the coordinate ``waves`` counts the waves of each band. Longest wavelength first.

    Raises:
        UsageError: a field of fewer than 8 cells to a side.
    """
    size = observed.shape[-2:]
    if min(size) < SMALLEST:
        raise UsageError("a spectrum", found=f"fields of {size[0]} x {size[1]} cells", allowed=f"{SMALLEST} or more")
    band, waves, length = _bands(size)
    hann = [0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n) for n in size]
    window = hann[0][:, None] * hann[1]
    powers = np.zeros((2, *observed.shape[:2], len(length)))
    for case in np.ndindex(*observed.shape[:2]):
        counts = weights.values[case] > 0
        if not counts.any():
            continue
        members = forecast.values[case[0]][..., case[1], :, :].reshape(-1, *size)
        made = [_power(member, counts, window, band, waves) for member in members]
        powers[0][case] = np.mean(made, axis=0)
        powers[1][case] = _power(observed.values[case], counts, window, band, waves)
    dims = (*observed.dims[:2], WAVELENGTH)
    coords = {WAVELENGTH: length * cell, "waves": (WAVELENGTH, waves)}
    named = zip(("power_forecast", "power_observed"), powers, strict=True)
    return {name: xr.DataArray(power, dims=dims, coords=coords) for name, power in named}


def spectrum_scores(sums: xr.Dataset) -> dict[str, xr.DataArray]:
    """The mean spectra, their ratio, and one number: the wavelength below which half of the power is lost.

    ``power_ratio`` = power_forecast / power_observed at each wavelength (1 is best). ``blur`` is the longest
    wavelength L with::

        sum of forecast power at wavelengths <= L  <  1/2 sum of observed power at wavelengths <= L

    in km (cells where the size of a cell is not known), interpolated between bands in the logarithm of L; 0 where the
    forecast lacks half of the power nowhere. Taking all shorter waves together, it does not take noise in the last
    pixels for detail. A forecast that is too weak as a whole lacks short waves as well: ``power``, the forecast's power
    of all wavelengths / the observed, tells weak from blurred, and where it is below 1/2, ``blur`` is the longest
    wavelength of the field. A spectrum does not say whether the detail is in the right place.

    Skamarock (2004), https://doi.org/10.1175/MWR2830.1 (the effective resolution of a model by its spectrum).
    """
    if "power_forecast" not in sums:
        return {}
    cases = sums["cases"].where(sums["cases"] > 0)
    forecast, observed = sums["power_forecast"] / cases, sums["power_observed"] / cases
    all_f, all_o = forecast * sums["waves"], observed * sums["waves"]
    total = all_o.sum(WAVELENGTH)
    blur = xr.apply_ufunc(
        _blur,
        all_f,
        all_o,
        kwargs={"wavelength": sums[WAVELENGTH].values},
        input_core_dims=[[WAVELENGTH], [WAVELENGTH]],
    )
    ratio = forecast / observed.where(observed > 0)
    power = all_f.sum(WAVELENGTH, skipna=False) / total.where(total > 0)
    return {"power_forecast": forecast, "power_observed": observed, "power_ratio": ratio, "power": power, "blur": blur}


def _bands(size: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """The band of each wave of ``rfft2`` (-1: none), the number of waves of each band and their mean wavelength."""
    ny, nx = size
    k = np.hypot(np.fft.fftfreq(ny)[:, None], np.fft.rfftfreq(nx))
    twice = np.full(k.shape, 2.0)  # waves that rfft2 gives once for the two directions
    twice[:, 0] = 1.0
    if nx % 2 == 0:
        twice[:, -1] = 1.0
    inside = (k > 0) & (k <= 0.5 + 1e-9)
    octave = np.floor(PER_OCTAVE * np.log2(k[inside] * max(size)) + 1e-9).astype(int)
    found, index = np.unique(octave, return_inverse=True)
    band = np.full(k.shape, -1)
    band[inside] = index
    waves = np.bincount(index, twice[inside])
    mean = np.bincount(index, twice[inside] * np.log(k[inside])) / waves
    return band, waves, np.exp(-mean[: len(found)])


def _power(field: Array, counts: Array, window: Array, band: Array, waves: Array) -> Array:
    """Mean power of the waves of each band of one field (y, x)."""
    seen = window * counts
    values = np.where(counts, field, 0.0)
    values = seen * (values - (seen * values).sum() / seen.sum())
    found = scipy.fft.rfft2(values)
    power = (found.real**2 + found.imag**2) / (values.size * (window**2).sum())
    power[:, 1 : (field.shape[1] + 1) // 2] *= 2.0
    inside = band >= 0
    return np.asarray(np.bincount(band[inside], power[inside], minlength=len(waves)) / waves)


def _blur(forecast: Array, observed: Array, *, wavelength: Array) -> Array:
    """See `spectrum_scores`; the last axis is that of the wavelengths, the longest first."""
    below_f, below_o = (np.cumsum(power[..., ::-1], axis=-1) for power in (forecast, observed))
    ratio = np.divide(below_f, below_o, out=np.ones_like(below_f), where=below_o > 0)
    length = np.log(wavelength[::-1])
    last = len(length) - 1
    less = ratio < 0.5
    at = last - np.argmax(less[..., ::-1], axis=-1)
    after = np.minimum(at + 1, last)
    low, high = (np.take_along_axis(ratio, i[..., None], axis=-1)[..., 0] for i in (at, after))
    share = np.divide(0.5 - low, high - low, out=np.zeros_like(low), where=high > low)
    found = np.exp(length[at] + share * (length[after] - length[at]))
    known = np.isfinite(below_f[..., -1]) & (below_o[..., -1] > 0)
    return np.where(known, np.where(less.any(axis=-1), found, 0.0), np.nan)
