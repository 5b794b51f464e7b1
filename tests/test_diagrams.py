"""Diagrams of spectra and ensembles: what is drawn is what the scores say."""

import numpy as np
import pytest
import xarray as xr
from matplotlib import _pylab_helpers
from matplotlib.backends.backend_agg import FigureCanvasAgg

from cubecast.baselines import persistence
from cubecast.diagrams import plot_ensembles, plot_spectra
from cubecast.errors import InputError
from cubecast.scores import scores_from, verify_forecasts


@pytest.fixture(scope="module")
def scores(rain):
    cube = rain(24)
    base = persistence(cube, reference=cube["time"].values[4:16:3], horizon=3)
    values = base["rainfall_rate"]
    members = xr.concat([values * f for f in (0.6, 0.9, 1.3)], xr.IndexVariable("realization", np.arange(3)))
    ensemble = base.assign(rainfall_rate=members.assign_attrs(values.attrs))
    return scores_from(verify_forecasts({"model": ensemble, "persistence": base}, cube))


def _pixels(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def _lines(ax):
    return {line.get_label(): line for line in ax.get_lines()}


def test_spectra_at_the_first_the_middle_and_the_last_lead(scores):
    figure = plot_spectra(scores)
    assert [ax._left_title.get_text() for ax in figure.axes[:3]] == [f"{m} min ahead" for m in (5, 10, 15)]
    for k, ax in enumerate(figure.axes[:3]):
        lines = _lines(ax)
        at = scores.isel(lead_time=k)
        np.testing.assert_array_equal(lines["model"].get_xdata(), scores["wavelength"])
        np.testing.assert_array_equal(lines["model"].get_ydata(), at["power_forecast"].sel(system="model"))
        np.testing.assert_array_equal(lines["observed"].get_ydata(), at["power_observed"].isel(system=0))
        below = figure.axes[3 + k].get_lines()[0]
        np.testing.assert_array_equal(below.get_ydata(), at["power_ratio"].sel(system="model"))
    low, high = figure.axes[0].get_xlim()
    assert low > high  # long waves first
    assert figure._supxlabel.get_text() == "wavelength (km), long to short"
    assert _pixels(figure).shape[1] == 1200
    assert len(plot_spectra(scores.isel(lead_time=[0])).axes) == 2


def test_ranks_spread_reliability_and_roc(scores):
    figure = plot_ensembles(scores, lead=1)
    ranks, reliability, spread, roc = (figure.axes[i] for i in (0, 1, 4, 5))
    at = scores.isel(lead_time=1)
    assert list(_lines(ranks)) == ["model", "_child1"]  # a single forecast has no rank histogram
    np.testing.assert_allclose(
        _lines(ranks)["model"].get_ydata(), 4 * at["rank_histogram_untied"].sel(system="model"), rtol=1e-12
    )
    np.testing.assert_array_equal(spread.get_lines()[0].get_ydata(), scores["spread_error"].sel(system="model"))
    one = at.sel(system="model", threshold=0.1)
    said = one["said_share"].values > 0
    drawn = reliability.get_lines()[1].get_xydata()
    np.testing.assert_array_equal(drawn, np.stack([one["probability"], one["reliability"]], 1)[said])
    curve = _lines(roc)["model"].get_xydata()
    np.testing.assert_array_equal(curve[:-1], np.stack([one["false_alarm_rate"], one["hit_rate"]], 1))
    assert curve[-1].tolist() == [0, 0]
    assert -np.trapezoid(curve[:, 1], curve[:, 0]) == pytest.approx(one["roc_area"].item())
    assert len(_lines(roc)["persistence"].get_xydata()) == 3
    assert _pixels(figure).shape[1] == 1200
    assert figure._suptitle.get_text() == "10 min ahead"


def test_without_thresholds_ranks_and_spread_are_left(scores):
    bare = scores[["rank_histogram", "rank_histogram_untied", "spread_error"]]
    assert len(plot_ensembles(bare.assign_coords(lead_step=scores["lead_step"])).axes) == 2


def test_scores_without_spectra_or_ensembles_are_refused(scores):
    with pytest.raises(InputError, match="spectra to draw"):
        plot_spectra(scores[["mse"]])
    with pytest.raises(InputError, match="ensembles to draw"):
        plot_ensembles(scores[["mse"]])
    assert _pylab_helpers.Gcf.figs == {}
