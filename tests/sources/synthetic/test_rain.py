"""Generated rain: its metadata, its amounts, its motion, and what a seed decides."""

import itertools
import json

import numpy as np
import pytest
import scipy.ndimage
import scipy.special
import xarray as xr

from cubecast.cube import check_cube, cube_crs, cube_step
from cubecast.errors import InputError, UsageError
from cubecast.sources.synthetic import Flow, generate_rain, motion


def displacement(first, second):
    """(dy, dx) in pixels of the best match of two boxes: the peak of their cross-correlation, by parabolas."""
    taper = np.hanning(first.shape[0])[:, None] * np.hanning(first.shape[1])
    a, b = ((f - f.mean()) * taper for f in (first, second))
    match = np.fft.fftshift(np.fft.ifft2(np.conj(np.fft.fft2(a)) * np.fft.fft2(b)).real)
    y, x = np.unravel_index(match.argmax(), match.shape)
    lines = (match[y - 1 : y + 2, x], match[y, x - 1 : x + 2])
    peak = [(low - high) / (2 * (low - 2 * top + high)) for low, top, high in lines]
    return np.array([y, x]) - np.array(match.shape) // 2 + peak


def test_it_is_a_cube_with_cf_metadata():
    cube = check_cube(generate_rain(frames=3, size=(20, 30), step_minutes=2.5, grid_km=2.0))
    assert cube.shape == (3, 20, 30)
    assert cube.dtype == np.float32
    assert cube_step(cube).size == 150
    assert cube.attrs["units"] == "mm h-1"
    assert cube_crs(cube).to_cf()["grid_mapping_name"] == "azimuthal_equidistant"
    assert cube.x.values[0] == -29000
    assert (np.diff(cube.y) == 2000).all()


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("wet_fraction", [0.05, 0.3])
def test_amounts_are_those_of_the_event(wet_fraction, seed):
    cube = generate_rain(frames=20, size=(96, 96), wet_fraction=wet_fraction, seed=seed)
    rain, event = cube.values, json.loads(cube.attrs["event"])
    assert (rain >= 0.1).mean() == pytest.approx(wet_fraction, abs=1e-3)
    assert set(np.unique(rain[rain < 0.1])) == {0.0}
    lowest = scipy.special.ndtr(np.log(0.1 / event["median"]) / event["spread"])
    for quantile in (0.1, 0.5, 0.9, 0.99):
        normal = scipy.special.ndtri(lowest + (1 - lowest) * quantile)
        expected = 100 * np.tanh(event["median"] * np.exp(event["spread"] * normal) / 100)
        assert np.quantile(rain[rain > 0], quantile) == pytest.approx(expected, rel=0.05)
    assert rain.max() < 100


@pytest.mark.parametrize("box", [(0, 0), (0, 64), (64, 0), (64, 64), (32, 32)])
def test_the_rain_moves_as_it_is_said_to(box):
    flow = Flow(speed=8.0, direction=150.0, turn=0.5)
    cube = generate_rain(frames=9, flow=flow, life_time=3000.0, seed=2, kind="convective", wet_fraction=1.0)
    cut = cube.isel(y=slice(box[0], box[0] + 64), x=slice(box[1], box[1] + 64))
    frames = np.log10(cut.values + 0.1)
    found = np.median([displacement(a, b) for a, b in itertools.pairwise(frames)], axis=0)
    u, v = motion(cut.isel(time=4))
    taper = np.hanning(64)[:, None] * np.hanning(64)
    expected = [float((f * taper).sum() / taper.sum()) * 300 / 1000 for f in (v, u)]
    np.testing.assert_allclose(found, expected, atol=0.35)


@pytest.mark.parametrize("seed", range(3))
def test_a_drawn_flow_carries_rain_that_does_not_change(seed):
    """Each of two frames is found in the other along the motion half way between them."""
    cube = generate_rain(frames=20, size=(96, 96), life_time=1e8, seed=seed, wet_fraction=1.0)
    before, after = (np.log(cube.values[t]) for t in (18, 19))
    u, v = (m.mean("time").values * 300 / 1000 for m in motion(cube.isel(time=[18, 19])))
    place = np.stack(np.meshgrid(np.arange(96.0), np.arange(96.0), indexing="ij"))
    half = np.stack([v, u]) / 2
    forward = scipy.ndimage.map_coordinates(before, place - half, order=3)
    backward = scipy.ndimage.map_coordinates(after, place + half, order=3)
    inner = (slice(12, -12),) * 2
    moved = np.sqrt(((backward - forward)[inner] ** 2).mean())
    assert moved < 0.2 * np.sqrt(((after - before)[inner] ** 2).mean())
    assert np.hypot(u, v).mean() > 0.8


def test_motion_survives_a_crop_and_wants_a_cube_of_the_generator():
    cube = generate_rain(frames=3, size=(40, 50))
    u, v = motion(cube)
    assert u.dims == v.dims == cube.dims
    assert u.attrs["units"] == v.attrs["units"] == "m s-1"
    assert np.abs(u[2] - u[0]).max() > 0, "eddies move"
    part = {"time": 1, "y": slice(3, 9), "x": slice(20, 22)}
    xr.testing.assert_allclose(motion(cube.isel(part))[0], u.isel(part))
    with pytest.raises(InputError, match="the motion is unknown"):
        motion(cube.drop_attrs())


def test_a_coarser_grid_and_a_longer_step_show_rain_of_the_same_kind():
    """Differences over 8 km and over 10 minutes, relative to the deviation of all, are those of the finer grid."""
    found = {}
    for grid, minutes in ((1.0, 5.0), (2.0, 10.0)):
        options = {"grid_km": grid, "step_minutes": minutes, "size": (round(128 / grid),) * 2, "wet_fraction": 1.0}
        cubes = [generate_rain(frames=round(60 / minutes), seed=s, flow=Flow(speed=0), **options) for s in range(6)]
        log = np.log([cube.values for cube in cubes])
        if grid == 1.0:
            log = log.reshape(*log.shape[:2], 64, 2, 64, 2).mean(axis=(3, 5))
        steps = round(10 / minutes)
        apart = log[:, :, 4:] - log[:, :, :-4], log[:, steps:] - log[:, :-steps]
        found[grid] = [np.sqrt((d**2).mean()) / log.std() for d in apart]
    np.testing.assert_allclose(found[1.0], found[2.0], rtol=0.1)


def test_what_is_given_is_kept_and_the_rest_is_drawn():
    one, other = (
        json.loads(generate_rain(frames=1, size=(32, 32), seed=6, **options).attrs["event"])
        for options in ({}, {"wet_fraction": 0.11, "life_time": 55.0})
    )
    assert (other["wet_fraction"], other["life_time"]) == (0.11, 55.0)
    assert {k: v for k, v in one.items() if other[k] != v}.keys() == {"wet_fraction", "life_time"}


def test_the_seed_makes_the_rain():
    first, again, other = (generate_rain(frames=3, size=(32, 32), seed=s, wet_fraction=0.5) for s in (5, 5, 6))
    assert first.identical(again)
    assert abs(np.corrcoef(first.values.ravel(), other.values.ravel())[0, 1]) < 0.5


def test_a_longer_cube_begins_as_a_shorter_one():
    short, long = (generate_rain(frames=n, size=(32, 32), seed=5, wet_fraction=1.0).values for n in (4, 9))
    order = [np.argsort(values.ravel(), kind="stable") for values in (short[3], long[3])]
    np.testing.assert_array_equal(*order)


@pytest.mark.parametrize(
    "wrong",
    [
        {"frames": 0},
        {"size": (4, 64)},
        {"step_minutes": 0},
        {"grid_km": -1},
        {"wet_fraction": 1.2},
        {"life_time": -1},
        {"seed": -3},
        {"kind": "drizzle"},
    ],
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError, match=f"{next(iter(wrong))}: found .*allowed: "):
        generate_rain(**wrong)
