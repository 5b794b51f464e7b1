import numpy as np
import pandas as pd
import pytest
import xarray as xr

from cubecast.baselines import climatology, persistence
from cubecast.errors import InputError, UsageError
from cubecast.scores import explain, intervals, score_columns, scores_from, statistics, to_table, verify_forecasts


def test_columns_and_values(rain):
    cube = rain(20)
    args = {"reference": cube["time"].values[[5, 9]], "horizon": 3}
    systems = {"persistence": persistence(cube, **args), "climatology": climatology(cube, **args, training=cube[:8])}
    sums = verify_forecasts(systems, cube, thresholds=(0.1, 5), windows=("10km", 3))
    table = to_table(sums)
    events = [f"{n}_{t}" for t in ("0.1", "5") for n in ("pod", "far", "csi", "frequency_bias")]
    events[4:4], events[9:] = ["csi_0.1_mean"], ["csi_5_mean"]
    fss = ["fss_0.1_10km", "fss_0.1_3cells", "fss_5_10km", "fss_5_3cells"]
    assert list(table.columns) == [
        *(
            "system",
            "lead_step",
            "lead_time",
            "lead_units",
            "units",
            "mse",
            "rmse",
            "mae",
            "bias",
            "corr",
            "power",
            "blur_km",
        ),
        *events,
        *fss,
        *("cases", "pixels"),
    ]
    assert table["system"].tolist() == ["persistence"] * 3 + ["climatology"] * 3
    assert table["lead_step"].tolist() == [1, 2, 3] * 2
    assert table["lead_time"].tolist() == [5.0, 10.0, 15.0] * 2
    assert set(table["lead_units"]) == {"min"}
    scores = scores_from(sums)
    row = table[(table["system"] == "climatology") & (table["lead_step"] == 2)].iloc[0]
    one = scores.sel(system="climatology").isel(lead_time=1)
    assert row["mse"] == one["mse"].item()
    assert row["csi_5"] == one["csi"].sel(threshold=5).item()
    assert row["fss_5_3cells"] == one["fss"].sel(threshold=5, window="3cells").item()
    assert row["cases"] == 2
    assert row["pixels"] == 2 * 24 * 28


@pytest.mark.parametrize(
    ("step", "numbers", "units"),
    [
        (np.timedelta64(10, "ms"), [0.01, 0.02], "s"),
        (np.timedelta64(90, "s"), [90.0, 180.0], "s"),
        (np.timedelta64(1, "h"), [60.0, 120.0], "min"),
        (np.timedelta64(5, "D"), [5.0, 10.0], "d"),
        (None, [1.0, 2.0], "months"),
        (0.5, [0.5, 1.0], "ft"),
    ],
)
def test_lead_times_are_numbers_in_units_that_suit_the_step(step, numbers, units):
    if step is None:
        axis = np.arange("2000-01", "2002-01", dtype="datetime64[M]").astype("datetime64[ns]")
    elif isinstance(step, float):
        axis = 100 + step * np.arange(24)
    else:
        axis = np.datetime64("2000-01-01", "ns") + np.arange(24) * step
    dim = "depth" if isinstance(step, float) else "time"
    cube = xr.DataArray(np.arange(24.0), dims=dim, coords={dim: (dim, axis)}, name="v", attrs={"units": "K"})
    if dim == "depth":
        cube["depth"].attrs["units"] = "ft"
    table = to_table(verify_forecasts({"p": persistence(cube, reference=axis[[3, 9]], horizon=2)}, cube))
    assert table["lead_time"].tolist() == pytest.approx(numbers)
    assert set(table["lead_units"]) == {units}
    assert table["lead_step"].tolist() == [1, 2]
    assert table["mae"].tolist() == pytest.approx([1.0, 2.0])


def test_the_csv_holds_the_table(rain, tmp_path):
    cube = rain(20)
    table = to_table(verify_forecasts({"p": persistence(cube, reference=cube["time"].values[4], horizon=2)}, cube))
    table.to_csv(tmp_path / "scores.csv", index=False)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "scores.csv"), table)


def test_sums_of_unknown_origin_are_refused(rain_pair):
    with pytest.raises(UsageError, match="those of verify_forecasts"):
        to_table(statistics(*rain_pair()))


def test_every_score_column_is_explained():
    assert explain("frequency_bias_0.1")[0] == "frequency_bias"
    assert explain("fss_1_10km")[1].better == "higher is better"
    assert explain("bias")[1].perfect == 0
    assert explain("csi_0.1")[0] == "csi"
    assert explain("csi_0.1_mean")[0] == "csi_mean"
    with pytest.raises(UsageError, match="unknown score: found skill"):
        explain("skill")


def test_bounds_stand_behind_the_scores(rain):
    cube = rain(30)
    systems = {"p": persistence(cube, reference=cube["time"].values[4:24], horizon=2)}
    sums = verify_forecasts(systems, cube, per_case=True)
    table = to_table(sums, bootstrap=30, block=2, seed=1)
    plain = to_table(verify_forecasts(systems, cube))
    pd.testing.assert_frame_equal(table[list(plain.columns)], plain)
    scores = score_columns(plain)
    assert scores == list(plain.columns[5:-2])
    assert list(table.columns[len(plain.columns) :]) == [f"{c}{end}" for end in ("_low", "_high") for c in scores]
    assert score_columns(table) == scores
    low, high = intervals(sums, resamples=30, block=2, seed=1)
    assert table["csi_1_mean_low"].tolist() == low["csi_mean"].sel(system="p", threshold=1.0).values.tolist()
    assert table["blur_km_high"].tolist() == high["blur"].sel(system="p").values.tolist()
    assert (table["mse_low"] <= table["mse"]).all()
    pd.testing.assert_frame_equal(to_table(sums, bootstrap=30, block=2, seed=1), table)
    with pytest.raises(InputError, match="per_case=True"):
        to_table(verify_forecasts(systems, cube), bootstrap=9)
