"""Events are drawn from the ranges of their kind, and differ; their waves have the spectrum and the axis they say."""

import dataclasses

import numpy as np
import pytest

from cubecast.sources.synthetic.domain import Domain
from cubecast.sources.synthetic.event import CLIMATE, Event, draw_event
from cubecast.sources.synthetic.flow import Flow

PERIOD = (400e3, 400e3)
PLAIN = Event(
    kind="stratiform", wet_fraction=0.3, median=1.0, spread=1.0, slopes=(2.0, 4.0), outer_km=300.0, life_time=100.0,
    life_exponent=0.9, stretch=1.0, axis=0.0, depth=1.0, cover=1.5, smallest_km=100.0, flow=Flow(),
)  # fmt: skip


def numbers(event):
    """What was drawn from a range."""
    found = {name: getattr(event, name) for name in CLIMATE["convective"] if hasattr(event, name)}
    return found | {"large": event.slopes[0], "small": event.slopes[1], "speed": event.flow.speed}


@pytest.mark.parametrize("kind", CLIMATE)
def test_numbers_fill_the_ranges_of_their_kind(kind):
    drawn = [numbers(draw_event(kind, PERIOD, np.random.default_rng(s))) for s in range(100)]
    for name in drawn[0]:
        low, high = CLIMATE[kind][name]
        values = [d[name] for d in drawn]
        assert low <= min(values) < low + 0.1 * (high - low)
        assert high >= max(values) > high - 0.1 * (high - low)


def test_a_seed_draws_either_kind():
    kinds = [draw_event(None, PERIOD, np.random.default_rng(s)).kind for s in range(200)]
    assert set(kinds) == set(CLIMATE)
    assert 70 < kinds.count("convective") < 130


def test_waves_have_two_slopes_and_life_times_of_a_power():
    domain = Domain.around((1000, 1000), 1.0)
    waves = PLAIN.waves(domain)
    k = np.hypot(*domain.wave_numbers())

    def slope(values, short, long):
        chosen = (k > 1 / long) & (k < 1 / short)
        return np.polyfit(np.log(k[chosen]), np.log(values[chosen]), 1)[0]

    assert slope(waves.amplitude**2, 2, 4) == pytest.approx(-4, abs=0.1)
    assert slope(waves.amplitude**2, 80, 150) == pytest.approx(-2, abs=0.25)
    assert slope(waves.life_time, 2, 100) == pytest.approx(-0.9, abs=0.03)
    assert waves.life_time[np.abs(k * 64 - 1) < 0.02].mean() == pytest.approx(6000, rel=0.05)
    assert np.isfinite(waves.life_time).all()


def test_wide_waves_are_stretched_along_the_axis_and_small_ones_less():
    domain = Domain.around((400, 400), 1.0)
    power = dataclasses.replace(PLAIN, stretch=3.0, axis=90.0).waves(domain).amplitude ** 2
    ky, kx = domain.wave_numbers()

    def ratio(wavelength):
        along, across = np.argmin(np.abs(kx[0] - 1 / wavelength)), np.argmin(np.abs(ky[:, 0] - 1 / wavelength))
        return power[across, 0] / power[0, along]

    assert ratio(100) > 3
    assert 1 < ratio(4) ** 0.5 < ratio(100), "the slope is twice as steep there"


def test_areas_of_rain_are_no_larger_than_the_field():
    assert dataclasses.replace(PLAIN, wet_fraction=0.9).envelope().cover == 0.99
    assert PLAIN.envelope().cover == pytest.approx(0.45)
