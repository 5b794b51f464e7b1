import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib import _pylab_helpers
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from cubecast.baselines import persistence
from cubecast.charts import plot_scores, plot_series, plot_training
from cubecast.errors import InputError, UsageError
from cubecast.scores import to_table, verify_forecasts


@pytest.fixture
def table(rain):
    cube = rain(30)
    reference = cube["time"].values[4:20:4]
    base = persistence(cube, reference=reference, horizon=6)
    better = base.assign(rainfall_rate=(base["rainfall_rate"] * 0.8).assign_attrs(base["rainfall_rate"].attrs))
    return to_table(verify_forecasts({"persistence": base, "model": better}, cube))


def _draw(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    assert pixels[..., :3].std() > 1
    return pixels


def _texts(figure):
    return [t.get_text() for ax in figure.axes for t in (ax.title, ax._left_title, ax.yaxis.label, ax.xaxis.label)]


def test_one_panel_a_score_with_its_values_units_and_direction(table):
    figure = plot_scores(table, scores=["mse", "csi_1", "fss_1_10km", "frequency_bias_5", "bias"])
    panels = [ax for ax in figure.axes if ax.axison]
    assert len(panels) == 5
    for ax, column in zip(panels, ["mse", "csi_1", "fss_1_10km", "frequency_bias_5", "bias"], strict=True):
        lines = {line.get_label(): line for line in ax.get_lines()}
        for system in ("model", "persistence"):
            rows = table[table["system"] == system]
            np.testing.assert_array_equal(lines[system].get_xdata(), rows["lead_time"])
            np.testing.assert_array_equal(lines[system].get_ydata(), rows[column])
    low, high = panels[3].get_ylim()
    assert low == 0
    assert high >= 1.1  # the perfect frequency bias is well inside
    words = " | ".join(_texts(figure))
    for text in ("(mm h⁻¹)²  (lower is better)", "higher is better", "≥ 1 mm h⁻¹, 10 km", "1 is best", "0 is best"):
        assert text in words
    assert figure._supxlabel.get_text() == "lead time (min)"
    assert _draw(figure).shape[1] == 1200


def test_models_are_solid_and_coloured_and_the_others_grey_and_dashed(table):
    def looks(figure):
        return {line.get_label(): line for line in figure.axes[0].get_lines()}

    def is_grey(line):
        return len(set(to_rgb(line.get_color()))) == 1

    lines = looks(plot_scores(table))
    assert lines["model"].get_linestyle() == "-"
    assert not is_grey(lines["model"])
    assert lines["persistence"].get_linestyle() == "--"
    assert is_grey(lines["persistence"])
    assert lines["model"].get_linewidth() > lines["persistence"].get_linewidth()
    assert is_grey(looks(plot_scores(table, models=["persistence"]))["model"])


def test_bounds_are_drawn_as_bands(table):
    bounds = {"mse_low": 0.5 * table["mse"], "mse_high": 2 * table["mse"]}
    bare, banded = (plot_scores(t, scores=["mse"]).axes[0] for t in (table, table.assign(**bounds)))
    assert len(bare.collections) == 0
    assert len(banded.collections) == 2
    high = max(path.vertices[:, 1].max() for band in banded.collections for path in band.get_paths())
    assert high == pytest.approx(bounds["mse_high"].max())
    assert len(plot_scores(table.assign(**bounds)).axes) == 8


def test_a_length_has_the_units_of_its_column(table):
    words = " | ".join(_texts(plot_scores(table, scores=["blur_km", "csi_1_mean"])))
    assert "km  (lower is better)" in words
    assert "critical success index, mean of cases\n≥ 1 mm h⁻¹" in words


def test_default_panels(table):
    figure = plot_scores(table)
    assert [ax._left_title.get_text().split("\n")[0] for ax in figure.axes] == [
        "mean squared error",
        "bias (forecast - observed)",
        *["critical success index"] * 3,
        *["fractions skill score"] * 3,
    ]
    few = table[["system", "lead_step", "lead_time", "lead_units", "units", "mse", "rmse", "mae", "bias", "corr"]]
    assert len(plot_scores(few).axes) == 4


def test_a_table_from_csv_draws_the_same(table, tmp_path):
    table.to_csv(tmp_path / "scores.csv", index=False)
    again, before = plot_scores(pd.read_csv(tmp_path / "scores.csv")), plot_scores(table)
    assert _texts(again) == _texts(before)
    for ax, other in zip(again.axes, before.axes, strict=True):
        for line, like in zip(ax.get_lines(), other.get_lines(), strict=True):
            np.testing.assert_array_equal(line.get_xydata(), like.get_xydata())


def test_unknown_scores_are_refused(table):
    for wanted in (["skill"], [], ["lead_time", "nothing"]):
        with pytest.raises(UsageError, match=r"scores to draw: found .*allowed: 1 to 24 panels of mse, rmse"):
            plot_scores(table, scores=wanted)
    with pytest.raises(UsageError, match="unknown score: found lead_step"):
        plot_scores(table, scores=["lead_step"])


def test_each_variable_has_its_own_panels(table):
    both = pd.concat([table.assign(variable="rain"), table.assign(variable="snow", units="K", mse=table["mse"] * 2)])
    figure = plot_scores(both, scores=["mse"])
    assert [ax._left_title.get_text() for ax in figure.axes] == ["rain mean squared error", "snow mean squared error"]
    rain, snow = (ax.get_lines()[0].get_ydata() for ax in figure.axes)
    np.testing.assert_array_equal(snow, 2 * rain)
    assert "K²  (lower is better)" in _texts(figure)
    many = pd.concat([table.assign(variable=v) for v in "abcd"])
    assert len(plot_scores(many).axes) == 24
    with pytest.raises(UsageError, match="1 to 24 panels"):
        plot_scores(many, scores=["mse"] * 7)


def test_figures_are_unknown_to_pyplot(table):
    plot_scores(table)
    assert _pylab_helpers.Gcf.figs == {}


def test_training_curves_mark_the_best_epoch():
    log = pd.DataFrame(
        {"epoch": [1, 2, 3, 4], "training_loss": [4.0, 2.0, 1.0, 0.01], "validation_loss": [4.0, 1.5, 1.2, 1.3]}
    )
    figure = plot_training(log)
    ax = figure.axes[0]
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert lines["training"].get_ydata().tolist() == [4.0, 2.0, 1.0, 0.01]
    best = lines["best: 1.2 after epoch 3"]
    assert (float(best.get_xdata()[0]), float(best.get_ydata()[0])) == (3.0, 1.2)
    assert ax.get_yscale() == "log"
    _draw(figure)
    assert plot_training(log.assign(validation_loss=np.nan)).axes[0].get_lines()[1].get_label() == "validation"
    with pytest.raises(InputError, match="training log: found"):
        plot_training(log.drop(columns="epoch"))
    with pytest.raises(InputError, match="training log"):
        plot_training(log[:0])


def _stations(count=3):
    time = np.datetime64("2020-01-01", "ns") + np.arange(100) * np.timedelta64(1, "h")
    values = np.sin(np.arange(100)[:, None] / 4 + np.arange(count))
    coords = {"time": time, "station": [f"S{i}" for i in range(count)]}
    return xr.DataArray(values, dims=("time", "station"), coords=coords, name="t", attrs={"units": "degC"})


def test_few_forecasts_start_from_their_last_observed_value():
    cube = _stations()
    figure = plot_series(cube, persistence(cube, reference=cube["time"].values[[50, 70]], horizon=4))
    assert len(figure.axes) == 3
    observed, first, second = figure.axes[1].get_lines()
    np.testing.assert_array_equal(observed.get_ydata(), cube[:, 1])
    np.testing.assert_array_equal(first.get_xdata(), cube["time"].values[50:55])
    np.testing.assert_allclose(second.get_ydata(), [cube.values[70, 1]] * 5, rtol=1e-6)
    assert "t (°C)" in _texts(figure)
    assert "station S1" in _texts(figure)
    _draw(figure)


def test_many_forecasts_are_drawn_by_lead():
    cube = _stations(8)
    figure = plot_series(cube, persistence(cube, reference=cube["time"].values[20:60], horizon=25))
    assert len(figure.axes) == 6
    labels = [line.get_label() for line in figure.axes[0].get_lines()]
    assert labels == ["observed", "forecast 1 h ahead", "forecast 13 h ahead", "forecast 25 h ahead"]
    line = figure.axes[0].get_lines()[2]
    np.testing.assert_array_equal(line.get_xdata(), cube["time"].values[33:73])
    np.testing.assert_allclose(line.get_ydata(), cube.values[20:60, 0], rtol=1e-6)
    _draw(figure)


def test_a_single_series_by_depth_and_by_month():
    depth = 2800 + 0.5 * np.arange(60)
    log = xr.DataArray(np.sin(depth), dims="depth", coords={"depth": depth}, name="gr", attrs={"units": "API"})
    log["depth"].attrs["units"] = "ft"
    figure = plot_series(log, persistence(log, reference=depth[:20], horizon=1))
    assert figure.axes[0].get_xlabel() == "depth (ft)"
    assert figure.axes[0].get_lines()[1].get_label() == "forecast 0.5 ahead"
    time = np.arange("2000-01", "2005-01", dtype="datetime64[M]").astype("datetime64[ns]")
    index = xr.DataArray(np.arange(60.0), dims="time", coords={"time": time}, name="nino", attrs={"units": "K"})
    figure = plot_series(index, persistence(index, reference=time[:30], horizon=3))
    labels = [line.get_label() for line in figure.axes[0].get_lines()]
    assert labels[1:] == ["forecast 1 month ahead", "forecast 2 months ahead", "forecast 3 months ahead"]
    _draw(figure)


def test_fields_and_unknown_variables_are_refused(rain):
    cube = rain(12)
    with pytest.raises(InputError, match="a series to draw"):
        plot_series(cube, persistence(cube, reference=cube["time"].values[5], horizon=2))
    series = _stations()
    with pytest.raises(UsageError, match="variable to draw: found q; allowed: t"):
        plot_series(series, persistence(series, reference=series["time"].values[5], horizon=2), variable="q")
