"""Verification of a model beside baselines: same cases for all, the period, the region, the sentences."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from cubecast.baselines import persistence
from cubecast.errors import InputError, UsageError
from cubecast.extrapolation import extrapolation
from cubecast.nowcaster import Nowcaster
from cubecast.report import write_evaluation
from cubecast.scores import to_table, verify_forecasts
from cubecast.units import convert_units
from cubecast.verification import compare, evaluate, verify, write_scores


@pytest.fixture(scope="module")
def model(rain):
    return Nowcaster(history=3, horizon=2, hidden_channels=[8], patch=4, crop=16, epochs=1).fit(rain(40))


def test_the_table_equals_a_plain_computation(model, rain):
    cube = rain(20)
    table = verify(cube, model, baselines=["persistence"]).set_index(["system", "lead_step"])
    times = cube.time.values[2:-1]
    forecast = model.predict(cube, at=times)["rainfall_rate"].values
    for lead in (1, 2):
        cases = [i for i in range(len(times)) if i + 2 + lead < 20]
        truth = np.stack([cube.values[i + 2 + lead] for i in cases])
        last = np.stack([cube.values[i + 2] for i in cases])
        mine = np.stack([forecast[i, lead - 1] for i in cases])
        assert table.loc[("model", lead), "mse"] == pytest.approx(((mine - truth) ** 2).mean(), rel=1e-4)
        assert table.loc[("persistence", lead), "mse"] == pytest.approx(((last - truth) ** 2).mean(), rel=1e-4)
        assert table.loc[("model", lead), "cases"] == len(cases)


def test_start_and_end_are_valid_times_and_history_may_lie_before(model, rain):
    cube = rain(30)
    table = verify(cube, model, start=cube.time.values[20], end=cube.time.values[24])
    assert list(table.loc[table.system == "model", "cases"]) == [5, 5]


def test_region_and_never_below_choose_pixels(model, rain):
    cube = rain(12)
    options = {"baselines": ["persistence"]}
    whole = verify(cube, model, **options)
    half = verify(cube, model, region={"y": (0.0, 11_000.0)}, **options)
    assert (half["pixels"] * 2 == whole["pixels"]).all()
    wet = verify(cube, model, never_below=0.1, **options)
    always = int((cube.min("time") >= 0.1).sum())
    assert always > 0
    assert (wet["pixels"] == always * wet["cases"]).all()


def test_rain_is_compared_with_extrapolation_on_pixels_that_all_have(model, rain):
    cube = rain(20)
    table = verify(cube, model).set_index(["system", "lead_step"])
    assert list(table.index.unique("system")) == ["model", "persistence", "extrapolation"]
    carried = extrapolation(cube, reference=cube.time.values[2:-1], horizon=2, history=3)["rainfall_rate"].values
    for lead in (1, 2):
        truth = np.full((len(carried), *cube.shape[1:]), np.nan)
        truth[: 18 - lead] = cube.values[2 + lead :]
        both = np.isfinite(carried[:, lead - 1]) & np.isfinite(truth)
        assert 0.8 * truth.size < both.sum() < np.isfinite(truth).sum()
        assert set(table.xs(lead, level="lead_step")["pixels"]) == {both.sum()}
        expected = ((carried[:, lead - 1] - truth)[both] ** 2).mean()
        assert table.loc[("extrapolation", lead), "mse"] == pytest.approx(expected, rel=1e-4)
        assert table.loc[("extrapolation", lead), "mse"] < 0.3 * table.loc[("persistence", lead), "mse"]


def test_other_fields_are_not_extrapolated_unless_asked_to(model, rain):
    still = rain(20).assign_attrs(units="K", standard_name="air_temperature")
    warm = Nowcaster(history=3, horizon=2, hidden_channels=[4], patch=4, crop=16, epochs=1).fit(
        still.copy(data=still.values + 1)
    )
    assert set(verify(still, warm)["system"]) == {"model", "persistence"}
    assert set(verify(still, warm, baselines=["extrapolation"])["system"]) == {"model", "extrapolation"}


def test_reference_times_can_be_named(model, rain):
    cube = rain(20)
    times = cube.time.values
    assert np.array_equal(evaluate(cube, model, at=times[[5, 9, 14]], every=2).reference, times[[5, 14]])


def test_every_skips_reference_times(model, rain):
    assert list(verify(rain(20), model, every=4).groupby("system")["cases"].first()) == [5, 5, 5]


def test_sentences_say_by_how_much(model):
    table = pd.DataFrame(
        {
            "system": ["model", "model", "persistence", "persistence"],
            "lead_step": [1, 2, 1, 2],
            "mse": [0.8, 1.0, 1.0, 2.0],
            "csi_1": [0.3, 0.2, 0.4, 0.1],
        }
    )
    assert compare(table) == [
        "mse: model ahead of persistence at 2 of 2 leads (0.8 against 1 at the first, 1 against 2 at the last)",
        "csi_1: model ahead of persistence at 1 of 2 leads (0.3 against 0.4 at the first, 0.2 against 0.1 at the last)",
    ]


def test_sentences_say_what_is_not_known_and_keep_variables_apart(model):
    """A false alarm of what never happened, and what no baseline forecasts: no score of the baseline is known."""
    row = {"system": ["model", "persistence"], "lead_step": [1, 1]}
    assert compare(pd.DataFrame({**row, "csi_5": [0.0, None]})) == [
        "csi_5: model ahead of persistence at 0 of 1 leads (0 against nan at the first, 0 against nan at the last)"
    ]
    rain, heat = (pd.DataFrame({**row, "mse": [own, 2.0], "variable": name}) for own, name in ((1.0, "r"), (3.0, "t")))
    assert compare(pd.concat([rain, heat])) == [
        "r: mse: model ahead of persistence at 1 of 1 leads (1 against 2 at the first, 1 against 2 at the last)",
        "t: mse: model ahead of persistence at 0 of 1 leads (3 against 2 at the first, 3 against 2 at the last)",
    ]


def test_scores_are_written_as_csv(model, rain, tmp_path):
    table = verify(rain(12), model)
    write_scores(table, tmp_path / "scores.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "scores.csv"), table)


def test_wrong_wishes_are_refused(model, rain):
    with pytest.raises(UsageError, match=r"thresholds: found .*nan.*; allowed: finite numbers"):
        verify(rain(12), model, thresholds=[float("nan")])
    with pytest.raises(UsageError, match="baselines: found optical_flow"):
        verify(rain(12), model, baselines=["optical_flow"])
    with pytest.raises(UsageError, match="region: found lat; allowed: y, x"):
        verify(rain(12), model, region={"lat": (0, 1)})
    with pytest.raises(InputError, match="no case to verify"):
        verify(rain(3), model)
    with pytest.raises(InputError, match="no frames to verify"):
        verify(rain(12), model, start="2031")


def test_no_echo_is_dry_and_not_missing(rain):
    """-inf dBZ: the events of persistence are those of the rain, and extrapolation knows as many pixels."""
    cube = rain(14)
    echo = convert_units(cube, "dBZ")
    assert np.isinf(echo).any()
    times, tables, known = cube.time.values[6:8], [], []
    for field, limit in ((cube, 1.0), (echo, 10 * np.log10(200.0))):
        made = {"persistence": persistence(field, reference=times, horizon=2)}
        tables.append(to_table(verify_forecasts(made, field, thresholds=[limit], windows=[])))
        known.append(float(np.isfinite(extrapolation(field, reference=times, horizon=2)[str(field.name)]).mean()))
    assert tables[0]["pixels"].tolist() == tables[1]["pixels"].tolist()
    csi = [table.filter(regex="^csi_[^_]+$").to_numpy() for table in tables]
    np.testing.assert_allclose(*csi, rtol=1e-6)
    assert known[0] == pytest.approx(known[1], abs=0.01)


def test_two_outputs_are_both_verified(rain, tmp_path):
    cube = rain(40)
    both = xr.concat([cube, 2 * cube], "channel").transpose("time", "channel", "y", "x")
    both = both.assign_coords(channel=["a", "b"], channel_units=("channel", ["mm h-1", "mm h-1"]))
    model = Nowcaster(history=3, horizon=2, hidden_channels=[4], patch=4, crop=16, epochs=1).fit(both)
    table = verify(both, model)
    mse = table[table.system == "persistence"].set_index(["variable", "lead_step"])["mse"]
    assert mse["b", 1] == pytest.approx(4 * mse["a", 1])
    evaluation = evaluate(both, model)
    write_evaluation(evaluation, tmp_path, cube=both)
    assert "a, persistence" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_bootstrap_adds_bounds_and_changes_no_score(model, rain):
    cube = rain(14)
    plain, table = verify(cube, model), verify(cube, model, bootstrap=50)
    pd.testing.assert_frame_equal(table[list(plain.columns)], plain, rtol=1e-12)
    for score in ("mse", "csi_1", "csi_1_mean", "fss_1_10km", "blur_km"):
        assert (table[f"{score}_low"] <= table[f"{score}_high"]).all(), score
    assert (table["mse_low"] < table["mse_high"]).all()
    pd.testing.assert_frame_equal(verify(cube, model, bootstrap=50), table)
    assert (verify(cube, model, bootstrap=50, seed=1)["mse_low"] != table["mse_low"]).any()


def test_blocks_are_as_long_as_forecasts_overlap(model, rain):
    cube = rain(24)
    assert evaluate(cube, model, bootstrap=9).block == 2
    thin = evaluate(cube, model, every=8, bootstrap=9)
    assert thin.block == 1
    assert thin.table["mse_low"].notna().all()
    assert verify(cube, model, every=12, bootstrap=9)["mse_low"].isna().all()  # two cases tell nothing


def test_an_evaluation_has_curves_and_the_wettest_case(model, rain):
    cube = rain(20)
    flood = cube.copy()
    flood[11] += 50.0
    found = evaluate(flood, model)
    # lead 1 of the case at 10, lead 2 of the case at 9; the others have no frame at 11, or not both leads alike
    assert found.example["model"]["forecast_reference_time"].values[0] in cube.time.values[[9, 10]]
    assert list(found.example) == ["model", "persistence", "extrapolation"]
    assert found.scores["rainfall_rate"]["power_ratio"].sizes["wavelength"] > 5
    assert found.bootstrap == 0
    again = model.predict(flood, at=found.example["model"]["forecast_reference_time"].values)
    np.testing.assert_array_equal(found.example["model"]["rainfall_rate"], again["rainfall_rate"])
