import numpy as np
import pytest
import xarray as xr

from cubecast.scores import scores_from, statistics
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
