import numpy as np
import pytest
import xarray as xr

from cubecast.scores import pool, scores_from, statistics
from cubecast.scores.categorical import at_least

DIMS = ("forecast_reference_time", "lead_time", "y", "x")
LEAD = {"lead_time": np.array([5], "timedelta64[m]").astype("timedelta64[ns]")}


def _field(values):
    return xr.DataArray(np.asarray(values, float)[None, None], dims=DIMS, coords=LEAD)


def test_worked_example():
    # 3 hits, 2 misses, 1 false alarm, 2 correct negatives
    forecast = _field([[2, 2, 2, 0], [0, 5, 0, 0]])
    observed = _field([[1, 3, 1, 1], [9, 0, 0, 0]])
    sums = statistics(forecast, observed, thresholds=(1.0,))
    table = [sums[n].item() for n in ("hits", "misses", "false_alarms", "correct_negatives")]
    assert table == [3, 2, 1, 2]
    scores = scores_from(sums)
    assert scores["pod"].item() == pytest.approx(3 / 5)
    assert scores["far"].item() == pytest.approx(1 / 4)
    assert scores["csi"].item() == pytest.approx(3 / 6)
    assert scores["frequency_bias"].item() == pytest.approx(4 / 5)


def test_no_event_is_nan_never_infinite():
    dry, wet = _field(np.zeros((2, 2))), _field(np.ones((2, 2)))
    none = scores_from(statistics(dry, dry, thresholds=(0.5,)))
    assert all(np.isnan(none[n].item()) for n in ("pod", "far", "csi", "frequency_bias"))
    only_forecast = scores_from(statistics(wet, dry, thresholds=(0.5,)))
    assert only_forecast["csi"].item() == 0
    assert only_forecast["far"].item() == 1
    assert np.isnan(only_forecast["frequency_bias"].item())


def test_packed_values_reach_their_threshold():
    packed = np.float32(0.1) * np.float32(0.99999946)
    assert packed < 0.1
    assert at_least(np.array([packed]), 0.1).all()
    assert not at_least(np.array([0.0999]), 0.1).any()
    assert at_least(np.array([-2.00001]), -2.0).all()
    assert not at_least(np.array([-2.01]), -2.0).any()
    assert at_least(np.array([0.0]), 0.0).all()


def test_csi_pooled_and_averaged_over_cases():
    # case 1: 1 hit, 3 misses; case 2: 1 hit alone; case 3: no event at all
    forecast, observed = (
        np.array([f, [1, 0, 0, 0], [0, 0, 0, 0]], float).reshape(3, 1, 2, 2) for f in ([1, 0, 0, 0], [1, 1, 1, 1])
    )
    f, o = (xr.DataArray(a, dims=DIMS, coords=LEAD) for a in (forecast, observed))
    scores = scores_from(statistics(f, o, thresholds=(1.0,)))
    assert scores["csi"].item() == pytest.approx(2 / 5)
    assert scores["csi_mean"].item() == pytest.approx((1 / 4 + 1) / 2)
    parts = [statistics(f[[i]], o[[i]], thresholds=(1.0,)) for i in range(3)]
    assert scores_from(pool(parts))["csi_mean"].item() == pytest.approx(5 / 8)
    assert np.isnan(scores_from(parts[2])["csi_mean"].item())
