"""The report of a verification: one file, nothing to fetch, and the numbers that the table has."""

import base64
import re
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr

from cubecast.errors import OutputError
from cubecast.nowcaster import Nowcaster
from cubecast.report import describe_comparison, write_report
from cubecast.verification import compare, evaluate


@pytest.fixture(scope="module")
def model(rain):
    return Nowcaster(history=3, horizon=2, hidden_channels=[4], patch=4, crop=16, epochs=1).fit(rain(40))


@pytest.fixture(scope="module")
def evaluation(model, rain):
    return evaluate(rain(30), model, bootstrap=40)


class Page(HTMLParser):
    """Tags that are open, what would be fetched or run, and the text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.outside, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in ("img", "meta"):
            self.open.append(tag)
        if tag in ("script", "link", "iframe"):
            self.outside.append(tag)
        self.outside += [v for k, v in attrs if k in ("src", "href") and not v.startswith("data:")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_one_page_with_everything_in_it(evaluation, model, rain, tmp_path):
    write_report(evaluation, tmp_path / "report.html", cube=rain(30))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert page.outside == []
    assert "http" not in re.sub(r'base64,[^"]+', "", text)
    pictures = [base64.b64decode(p) for p in re.findall(r'src="data:image/png;base64,([^"]+)"', text)]
    assert len(pictures) == 4  # curves, more curves, spectra, maps
    assert all(p.startswith(b"\x89PNG") and len(p) > 5000 for p in pictures)
    for sentence in compare(evaluation.table):
        assert sentence in page.text
    for word in ("27 reference times", "40 resamples", "blocks of 2 neighbours", "persistence", "Is it blurred?"):
        assert word in page.text
    mse = evaluation.table.groupby("system")["mse"].mean()["model"]
    assert re.search(rf"<td>mse</td><td>{mse:.4g}</td>", text)


def test_what_was_compared(evaluation, model, rain):
    facts = describe_comparison(evaluation, cube=rain(30))
    assert facts["against"] == "persistence, extrapolation"
    assert facts["observations"].startswith(
        "rainfall_rate (mm h⁻¹), 30 frames from 2020-06-01 00:00 to 2020-06-01 02:25"
    )
    assert "24 x 28 (y, x)" in facts["observations"]
    assert facts["trained on"].startswith("rainfall_rate, ")
    # histories end at frames 2 to 28; the last case has no frame at its second lead
    assert facts["cases"] == (
        "27 reference times, 2020-06-01 00:10 to 2020-06-01 02:20; 26 to 27 of them count at a lead"
    )
    assert facts["leads"] == "2 of 5 min"
    assert len(facts["weights"].split()[-1]) == 16


def test_an_ensemble_has_its_panel_and_names_are_text(evaluation, model, rain, tmp_path):
    scores = evaluation.scores["rainfall_rate"]
    ranks = xr.DataArray(np.full((3, 2, 3), 1 / 3), dims=("system", "lead_time", "rank"), coords={"rank": [1, 2, 3]})
    spread = xr.full_like(scores["mse"], 0.8)
    extra = {"rank_histogram": ranks, "rank_histogram_untied": ranks, "spread_error": spread}
    changed = {"rainfall_rate": scores.assign(extra)}
    cube = rain(30).assign_attrs(long_name="rain <b>&</b>")
    together = type(evaluation)(**{**vars_of(evaluation), "scores": changed})
    write_report(together, tmp_path / "r.html", cube=cube)
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "What the ensemble is worth" in text
    assert text.count("<img") == 5
    assert "<b>" not in text
    assert "Verification of rain <b>&</b>" in unescape(re.search(r"<title>(.*)</title>", text)[1])


def vars_of(evaluation):
    return {name: getattr(evaluation, name) for name in evaluation.__dataclass_fields__}


def test_a_grid_without_a_place_costs_the_map_alone(evaluation, model, rain, tmp_path):
    away = rain(30).isel(y=slice(1, None))
    write_report(evaluation, tmp_path / "r.html", cube=away)
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "No map: the observed cube does not lie on the grid" in text
    assert text.count("<img") == 3


def test_a_report_that_cannot_be_written(evaluation, model, rain, tmp_path):
    with pytest.raises(OutputError):
        write_report(evaluation, tmp_path / "no" / "r.html", cube=rain(30))
