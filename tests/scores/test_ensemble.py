import numpy as np
import pytest
import xarray as xr

from cubecast.scores import scores_from, statistics

LEAD = {"lead_time": np.array([5], "timedelta64[m]").astype("timedelta64[ns]")}


def _scores(members, observed, **options):
    """Members (member, point) and observations (point)."""
    dims = ("forecast_reference_time", "realization", "lead_time", "station")
    f = xr.DataArray(np.asarray(members, float)[None, :, None], dims=dims, coords=LEAD)
    o = xr.DataArray(np.asarray(observed, float)[None, None], dims=[d for d in dims if d != "realization"])
    return scores_from(statistics(f, o, **options)).isel(lead_time=0)


def test_worked_example():
    # members 0 and 2 at both points; errors of the members 1, 1 and 3, 1; |0 - 2| is there twice among four pairs
    scores = _scores([[0, 0], [2, 2]], [1, 3])
    assert scores["crps"].item() == pytest.approx(((1 - 4 / 8) + (2 - 4 / 8)) / 2)
    assert scores["crps_fair"].item() == pytest.approx(((1 - 4 / 4) + (2 - 4 / 4)) / 2)
    # variance 2 of two members, times 3/2; errors of the mean 0 and 2
    assert scores["spread_error"].item() == pytest.approx(np.sqrt(3 / 2))
    assert scores["rank_histogram"].values.tolist() == [0, 0.5, 0.5]
    assert scores["mse"].item() == 2


def test_a_single_member_has_the_mae_and_no_spread():
    scores = _scores([[1, 5, 2]], [2, 2, 2])
    assert scores["crps"].item() == scores["mae"].item() == pytest.approx(4 / 3)
    assert np.isnan(scores["crps_fair"].item())
    assert np.isnan(scores["spread_error"].item())


def test_ties_are_split_evenly_and_points_without_any_difference_are_flat():
    assert _scores([[0], [1], [1]], [1])["rank_histogram"].values == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])
    dry = _scores([[0, 0], [0, 3]], [0, 1])
    assert dry["rank_histogram"].values == pytest.approx([1 / 6, 1 / 6 + 1 / 2, 1 / 6])
    assert dry["rank_histogram_untied"].values == pytest.approx([0, 1, 0])
    nothing = _scores([[0], [0]], [0])
    assert nothing["rank_histogram"].values == pytest.approx([1 / 3] * 3)
    assert nothing["rank_histogram_untied"].isnull().all()


def test_probabilities_by_hand():
    # both, one, none and one member reach 1; it happens at the first two points
    scores = _scores([[1, 1, 0, 0], [2, 0, 0, 1]], [1, 1, 0, 0], thresholds=(1.0,)).sel(threshold=1.0)
    assert scores["probability"].values.tolist() == [0, 0.5, 1]
    assert scores["brier"].item() == pytest.approx((0 + 1 / 4 + 0 + 1 / 4) / 4)
    assert scores["said_share"].values.tolist() == [0.25, 0.5, 0.25]
    assert scores["reliability"].values.tolist() == [0, 0.5, 1]
    assert scores["hit_rate"].values.tolist() == [1, 1, 0.5]
    assert scores["false_alarm_rate"].values.tolist() == [1, 0.5, 0]
    assert scores["roc_area"].item() == pytest.approx(1 / 2 * (1 / 2 + 1) / 2 + 1 / 2)


def test_a_single_forecast_is_certain():
    # 1 hit, 1 miss, 1 false alarm, 2 correct negatives
    scores = _scores([[1, 0, 1, 0, 0]], [1, 1, 0, 0, 0], thresholds=(1.0,)).sel(threshold=1.0)
    assert scores["brier"].item() == pytest.approx(2 / 5)
    assert scores["roc_area"].item() == pytest.approx((1 + 1 / 2 - 1 / 3) / 2)


def test_without_an_event_there_is_no_roc():
    scores = _scores([[0, 0], [1, 0]], [0, 0], thresholds=(1.0,)).sel(threshold=1.0)
    assert np.isnan(scores["roc_area"].item())
    assert scores["brier"].item() == pytest.approx(1 / 8)


def test_weights_work_like_repeated_points():
    rng = np.random.default_rng(0)
    members, observed = rng.integers(0, 4, (5, 6)), rng.integers(0, 4, 6)
    times = [1, 3, 2, 1, 0, 2]
    weights = xr.DataArray(np.array(times, float), dims="station")
    weighted = _scores(members, observed, weights=weights, thresholds=(2.0,))
    repeated = _scores(members.repeat(times, axis=1), observed.repeat(times), thresholds=(2.0,))
    for name in set(weighted.data_vars) - {"pixels"}:
        np.testing.assert_allclose(weighted[name], repeated[name], rtol=1e-12, err_msg=name)


def test_members_of_the_same_distribution_as_the_truth_are_reliable():
    rng = np.random.default_rng(0)
    centre = rng.normal(size=20_000)
    members, observed = centre + rng.normal(size=(9, 20_000)), centre + rng.normal(size=20_000)
    scores = _scores(members, observed, thresholds=(0.5,))
    assert scores["spread_error"].item() == pytest.approx(1, abs=0.02)
    assert scores["rank_histogram"].values == pytest.approx(np.full(10, 0.1), abs=0.01)
    narrow = _scores(centre + 0.5 * (members - centre), observed)
    assert narrow["spread_error"].item() < 0.7
    assert narrow["rank_histogram"][[0, -1]].values.min() > 0.15
