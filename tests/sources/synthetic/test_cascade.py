"""The Gaussian field has the spectrum and the life times that were asked for, at any step, and goes with the flow."""

import itertools

import numpy as np
import pytest

from cubecast.sources.synthetic.cascade import MEMORY, Envelope, Waves, evolve
from cubecast.sources.synthetic.domain import Domain
from cubecast.sources.synthetic.flow import Eddy, Flow

CALM, NO_ENVELOPE = Flow(speed=0.0), Envelope(0.0, 0.5, 100.0)


def waves(domain, *, slope=3.0, life=100.0):
    """Power k^-slope below 100 km, and life times of ``life`` minutes at 32 km that grow with the wavelength."""
    k = np.hypot(*domain.wave_numbers())
    wavelength = 1 / np.hypot(k, 1 / 100)
    return Waves(wavelength ** (slope / 2), 60 * life * wavelength / 32)


def fields(count, *, size=(64, 64), flow=CALM, minutes=5.0, seed=0, envelope=NO_ENVELOPE, **options):
    domain = Domain.around(size, 1.0)
    evolution = evolve(domain, waves(domain, **options), envelope, flow, minutes * 60, np.random.default_rng(seed))
    return np.stack(list(itertools.islice(evolution, count))).astype(float)


def rings(values):
    """Fourier coefficients of tapered fields and the wave number of each, in cycles per pixel."""
    ny, nx = values.shape[1:]
    found = np.fft.fft2(values * np.hanning(ny)[:, None] * np.hanning(nx))
    return found, np.hypot(np.fft.fftfreq(ny)[:, None], np.fft.fftfreq(nx))


def test_values_have_mean_0_and_variance_1():
    values = np.concatenate([fields(1, size=(128, 128), seed=s) for s in range(40)])
    assert values.mean() == pytest.approx(0, abs=0.15)
    assert values.var() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("slope", [2.0, 3.0])
def test_the_spectrum_is_as_asked_and_stays_in_a_flow(slope):
    flow = Flow(speed=11.0, direction=70, eddies=(Eddy((1, 1), 2.0), Eddy((2, -1), 1.0, divergent=True)))
    values = fields(60, size=(96, 96), slope=slope, life=60, flow=flow)
    powers = []
    for part in (values[:15:3], values[-15::3]):
        found, k = rings(part)
        inner = (k > 0.04) & (k < 0.3)
        power = (np.abs(found) ** 2).mean(axis=0)
        powers.append(power[inner])
        assert np.polyfit(np.log(k[inner]), np.log(power[inner]), 1)[0] == pytest.approx(-slope, abs=0.25)
    assert np.log(powers[1] / powers[0]).mean() == pytest.approx(0, abs=0.25)


@pytest.mark.parametrize("minutes", [2.5, 5.0, 10.0])
def test_each_wave_lives_as_long_as_asked_at_any_step(minutes):
    found, k = rings(fields(round(450 / minutes), size=(96, 96), life=100.0, minutes=minutes))
    for length, lag in ((32, 30), (16, 20), (8, 10)):
        ring, steps = np.abs(k * length - 1) < 0.12, round(lag / minutes)
        now, later = found[:-steps, ring], found[steps:, ring]
        got = (now * later.conj()).real.sum() / np.sqrt((np.abs(now) ** 2).sum() * (np.abs(later) ** 2).sum())
        life = 100 / 32 / np.hypot(1 / length, 1 / 100)
        one, other = (1 - MEMORY) * life, MEMORY * life
        expected = (one * np.exp(-lag / one) - other * np.exp(-lag / other)) / (one - other)
        assert got == pytest.approx(expected, abs=0.1)


def test_frozen_waves_are_carried_without_loss():
    """Half a pixel a step, over two renewals."""
    values = fields(25, size=(64, 80), life=1e9, flow=Flow(speed=1000 / 600, direction=90))
    before, after = values[0][:, :-12], values[24][:, 12:]
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.999
    assert after.std() == pytest.approx(before.std(), rel=0.01)


def test_calm_air_that_lives_for_ever_does_not_change():
    values = fields(14, life=1e9)
    np.testing.assert_allclose(values[13], values[0], atol=1e-2)


def test_edges_do_not_repeat():
    values = fields(300, size=(48, 48), life=5.0)
    across = np.corrcoef(values[:, :, 0].ravel(), values[:, :, -1].ravel())[0, 1]
    beside = np.corrcoef(values[:, :, 0].ravel(), values[:, :, 1].ravel())[0, 1]
    assert abs(across) < 0.35
    assert beside > 0.8


def test_an_envelope_sinks_what_is_outside_and_leaves_the_texture():
    plain, sunk = (fields(1, size=(160, 160), seed=3, envelope=Envelope(d, 0.5, 80.0)) for d in (0.0, 6.0))
    depth = plain[0] - sunk[0]
    assert depth.min() < -2.9
    assert depth.max() > 2
    assert ((np.abs(depth) > 2).mean()) > 0.6, "most places are well inside or well outside"
    assert np.abs(np.gradient(depth, axis=0)).max() < 0.6, "with smooth edges"
