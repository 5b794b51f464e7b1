"""The synthetic rain: its motion, wet fraction, spectrum and life times are what was asked for."""

import itertools

import numpy as np
import pytest
import xarray as xr

from cubecast.cube import check_cube, cube_crs, cube_step
from cubecast.errors import InputError, UsageError
from cubecast.sources.synthetic import Flow, generate_rain, motion

CALM = Flow(speed=0.0, turn=0.0)


def log_rain(**options):
    """A cube without dry pixels, whose logarithm is the Gaussian field itself, as an array of variance 1."""
    values = np.log(generate_rain(wet_fraction=1.0, **options).values.astype(float))
    return (values - values.mean()) / values.std()


def displacement(first, second):
    """(dy, dx) in pixels of the best match of two boxes: the peak of their cross-correlation, by parabolas."""
    taper = np.hanning(first.shape[0])[:, None] * np.hanning(first.shape[1])
    a, b = ((f - f.mean()) * taper for f in (first, second))
    match = np.fft.fftshift(np.fft.ifft2(np.conj(np.fft.fft2(a)) * np.fft.fft2(b)).real)
    y, x = np.unravel_index(match.argmax(), match.shape)
    lines = (match[y - 1 : y + 2, x], match[y, x - 1 : x + 2])
    peak = [(low - high) / (2 * (low - 2 * top + high)) for low, top, high in lines]
    return np.array([y, x]) - np.array(match.shape) // 2 + peak


def spectrum(values, grid_km=1.0):
    """Radially averaged power of a stack of fields, and the wavenumber of each ring (cycles per km)."""
    ny, nx = values.shape[1:]
    taper = np.hanning(ny)[:, None] * np.hanning(nx)
    power = (np.abs(np.fft.fft2((values - values.mean()) * taper)) ** 2).mean(axis=0)
    k = np.hypot(np.fft.fftfreq(ny, grid_km)[:, None], np.fft.fftfreq(nx, grid_km))
    ring = np.rint(k * grid_km * ny).astype(int)
    count = np.bincount(ring.ravel())
    return np.bincount(ring.ravel(), k.ravel()) / count, np.bincount(ring.ravel(), power.ravel()) / count


def test_it_is_a_cube_with_cf_metadata():
    cube = check_cube(generate_rain(frames=3, size=(20, 30), step_minutes=2.5, grid_km=2.0))
    assert cube.shape == (3, 20, 30)
    assert cube.dtype == np.float32
    assert cube_step(cube).size == 150
    assert cube.attrs["units"] == "mm h-1"
    assert cube_crs(cube).to_cf()["grid_mapping_name"] == "azimuthal_equidistant"
    assert cube.x.values[0] == -29000
    assert (np.diff(cube.y) == 2000).all()


@pytest.mark.parametrize("box", [(0, 0), (0, 64), (64, 0), (64, 64), (32, 32)])
def test_the_rain_moves_as_it_is_said_to(box):
    cube = generate_rain(frames=9, flow=Flow(speed=8.0, direction=150.0, turn=0.5), life_time=600.0, seed=2)
    cut = cube.isel(y=slice(box[0], box[0] + 64), x=slice(box[1], box[1] + 64))
    frames = np.log10(cut.values + 0.1)
    found = np.median([displacement(a, b) for a, b in itertools.pairwise(frames)], axis=0)
    u, v = motion(cut)
    taper = np.hanning(64)[:, None] * np.hanning(64)
    expected = [float((f * taper).sum() / taper.sum()) * 300 / 1000 for f in (v, u)]
    np.testing.assert_allclose(found, expected, atol=0.35)


def test_the_flow_curves_and_does_not_diverge():
    u, v = motion(generate_rain(frames=1, size=(64, 48)))
    assert float(np.hypot(u, v).min()) < 6
    assert float(np.hypot(u, v).max()) > 8
    np.testing.assert_allclose(u.differentiate("x") + v.differentiate("y"), 0, atol=1e-12)
    middle = (v.differentiate("x") - u.differentiate("y")).isel(y=32, x=24)
    assert float(middle) > 1e-5


def test_motion_survives_a_crop_and_wants_a_cube_of_the_generator():
    cube = generate_rain(frames=2, size=(40, 50))
    u, v = motion(cube)
    assert u.attrs["units"] == v.attrs["units"] == "m s-1"
    part = {"y": slice(3, 9), "x": slice(20, 22)}
    xr.testing.assert_identical(motion(cube.isel(part))[0], u.isel(part))
    with pytest.raises(InputError, match="the motion is unknown"):
        motion(cube.drop_attrs())


@pytest.mark.parametrize("wet_fraction", [0.05, 0.3])
def test_wet_fraction_and_strong_rain_are_as_asked(wet_fraction):
    rain = generate_rain(frames=20, size=(64, 64), wet_fraction=wet_fraction).values
    assert (rain >= 0.1).mean() == pytest.approx(wet_fraction, abs=1e-3)
    assert set(np.unique(rain[rain < 0.1])) == {0.0}
    assert np.quantile(rain[rain > 0], 0.99) == pytest.approx(6.0, rel=0.02)
    assert 10 < rain.max() < 300


@pytest.mark.parametrize("slope", [2.5, 3.5])
def test_the_spectrum_is_as_asked_and_stays(slope):
    values = log_rain(frames=80, slope=slope)
    inner, powers = slice(10, 45), []  # small against 64 km, large against a pixel
    for part in (values[:20:4], values[-20::4]):
        k, power = spectrum(part)
        found = np.polyfit(np.log(k[inner]), np.log(power[inner]), 1)[0]
        assert found == pytest.approx(-slope, abs=0.25)
        powers.append(power[inner])
    assert np.log(powers[1] / powers[0]).mean() == pytest.approx(0, abs=0.2)


def test_a_coarser_grid_shows_the_same_weather():
    # The 64-km systems fill twice as many pixels of 0.5 km as of 1 km.
    fine, coarse = (spectrum(log_rain(frames=30, size=(128, 128), grid_km=g, seed=4), g) for g in (0.5, 1.0))
    shape = [np.interp([0.05, 0.2], k, p / np.interp(0.1, k, p)) for k, p in (fine, coarse)]
    np.testing.assert_allclose(shape[0], shape[1], rtol=0.35)


def test_small_systems_die_first():
    values = log_rain(frames=100, size=(96, 96), life_time=100.0, flow=CALM)
    power = np.fft.fft2(values * np.hanning(96)[:, None] * np.hanning(96))
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(96), np.fft.fftfreq(96)))
    for length, lag in ((16, 2), (8, 2), (5, 1)):
        ring = np.abs(k * length - 1) < 0.1
        now, later = power[:-lag, ring], power[lag:, ring]
        found = (now * later.conj()).real.sum() / np.sqrt((np.abs(now) ** 2).sum() * (np.abs(later) ** 2).sum())
        expected = np.exp(-5 * lag / (100 * (length / 64) ** 0.8))
        assert found == pytest.approx(expected, abs=0.06)


def test_calm_air_that_lives_for_ever_does_not_change():
    values = log_rain(frames=4, size=(32, 32), life_time=1e9, flow=CALM)
    np.testing.assert_allclose(values[3], values[0], atol=1e-3)


def test_the_seed_makes_the_rain():
    first, again, other = (generate_rain(frames=3, size=(32, 32), seed=s) for s in (5, 5, 6))
    assert first.identical(again)
    assert abs(np.corrcoef(first.values.ravel(), other.values.ravel())[0, 1]) < 0.5


def test_edges_do_not_repeat():
    values = log_rain(frames=200, size=(48, 48), life_time=20.0)
    across = np.corrcoef(values[::10, :, 0].ravel(), values[::10, :, -1].ravel())[0, 1]
    beside = np.corrcoef(values[::10, :, 0].ravel(), values[::10, :, 1].ravel())[0, 1]
    assert across < 0.4 < beside


@pytest.mark.parametrize(
    "wrong", [{"frames": 0}, {"size": (4, 64)}, {"step_minutes": 0}, {"wet_fraction": 1.2}, {"life_time": -1}]
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError, match=f"{next(iter(wrong))}: found"):
        generate_rain(**wrong)
