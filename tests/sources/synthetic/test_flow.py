"""The flow of synthetic rain is what its formula says, and a drawn one turns and gathers as much as was asked."""

import numpy as np
import pytest

from cubecast.errors import UsageError
from cubecast.sources.synthetic.flow import LONGEST_KM, SHORTEST_KM, Eddy, Flow, draw_flow

PERIOD = (400e3, 300e3)


def gradients(flow, seconds=0.0, n=80):
    """(vorticity, divergence) on n x n points of the whole period, by central differences."""
    y, x = np.meshgrid(*(np.arange(n) * length / n for length in PERIOD), indexing="ij")
    near = 10.0
    (va, ua), (vb, ub) = (flow.at(y, x + d, seconds, period=PERIOD) for d in (near, -near))
    (vc, uc), (vd, ud) = (flow.at(y + d, x, seconds, period=PERIOD) for d in (near, -near))
    return ((va - vb) - (uc - ud)) / (2 * near), ((ua - ub) + (vc - vd)) / (2 * near)


def test_the_mean_wind_blows_where_it_is_said_to_and_veers():
    zero = np.zeros(1)
    for direction, expected in ((0, (8, 0)), (90, (0, 8)), (225, (-8 / np.sqrt(2), -8 / np.sqrt(2)))):
        found = Flow(speed=8, direction=direction).at(zero, zero, 0.0, period=PERIOD)
        np.testing.assert_allclose(np.ravel(found), expected, atol=1e-9)
    v, u = Flow(speed=8, direction=0, veer=45).at(zero, zero, 7200.0, period=PERIOD)
    np.testing.assert_allclose([v[0], u[0]], [0, 8], atol=1e-9)


def test_eddies_turn_or_gather_and_move():
    turning = Eddy((2, 1), 3.0, phase=1.0)
    vorticity, divergence = gradients(Flow(speed=5, eddies=(turning,)))
    k = 2 * np.pi * np.hypot(2 / PERIOD[0], 1 / PERIOD[1])
    assert np.abs(vorticity).max() == pytest.approx(3 * k, rel=0.01)
    assert np.abs(divergence).max() < 1e-3 * 3 * k
    gathering = Eddy((2, 1), 3.0, phase=1.0, rate=1e-4, divergent=True)
    flow = Flow(speed=5, eddies=(gathering,))
    vorticity, divergence = gradients(flow)
    assert np.abs(divergence).max() == pytest.approx(3 * k, rel=0.01)
    assert np.abs(vorticity).max() < 1e-3 * 3 * k
    later = gradients(flow, seconds=2 * np.pi / 1e-4)[1]
    half = gradients(flow, seconds=np.pi / 1e-4)[1]
    np.testing.assert_allclose(later, divergence, atol=1e-9)
    np.testing.assert_allclose(half, -divergence, atol=1e-9)


def test_turn_is_cyclonic_around_the_middle():
    flow = Flow(speed=10, direction=90, turn=0.4)
    v, u = flow.at(np.array([-50e3, 50e3, 0.0, 0.0]), np.array([0.0, 0.0, -50e3, 50e3]), 0.0, period=PERIOD)
    assert u[0] > 10 > u[1]
    assert v[2] < 0 < v[3]


@pytest.mark.parametrize("seed", range(3))
def test_a_drawn_flow_has_the_vorticity_and_divergence_that_were_asked(seed):
    flow = draw_flow(np.random.default_rng(seed), PERIOD, speed=12.0, vorticity=8e-5, divergence=2e-5)
    vorticity, divergence = (np.sqrt((field**2).mean()) for field in gradients(flow))
    # Eddies that happen to have the same waves add up or take away from each other.
    assert vorticity == pytest.approx(8e-5, rel=0.5)
    assert divergence == pytest.approx(2e-5, rel=0.6)
    y, x = np.meshgrid(*(np.linspace(0, length, 40) for length in PERIOD), indexing="ij")
    v, u = flow.at(y, x, 0.0, period=PERIOD)
    assert np.hypot(v.mean(), u.mean()) == pytest.approx(12, rel=0.1)


@pytest.mark.parametrize("period", [(60e3, 50e3), (400e3, 300e3), (3000e3, 2000e3)])
def test_eddies_are_of_a_size_that_can_be_seen(period):
    flow = draw_flow(np.random.default_rng(1), period, speed=10.0, vorticity=5e-5, divergence=2e-5)
    lengths = np.array([1e-3 / np.hypot(e.waves[0] / period[0], e.waves[1] / period[1]) for e in flow.eddies])
    if min(period) < SHORTEST_KM * 1e3:
        assert set(lengths) <= {60.0, 50.0}
    else:
        assert ((lengths >= SHORTEST_KM) & (lengths <= LONGEST_KM)).all()
    assert max(abs(e.speed) for e in flow.eddies) < 10


def test_an_eddy_has_waves():
    with pytest.raises(UsageError, match=r"waves of an eddy: found \(0, 0\); allowed"):
        Eddy((0, 0), 1.0)
