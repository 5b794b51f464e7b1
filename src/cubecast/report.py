"""One page that says what a verification found: an HTML file with everything in it, for a reader without this program.

Pictures are inlined as PNG; there is no script, nothing is fetched, and without the pictures the text still stands.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from cubecast.atomic import atomic_path, make_folder
from cubecast.charts import PANELS, plot_scores
from cubecast.cube import cube_step, sequence_dim, space_dims
from cubecast.diagrams import plot_ensembles, plot_spectra
from cubecast.errors import CubecastError
from cubecast.maps import plot_systems, save_figure
from cubecast.product import REALIZATION, lead_texts
from cubecast.scores import SYSTEM, score_columns
from cubecast.units import labelled
from cubecast.verification import MODEL, MODELS, Evaluation, compare, write_scores

STYLE = """
body { font: 16px/1.45 system-ui, sans-serif; color: #222; background: #fff; max-width: 1200px; margin: 2em auto;
  padding: 0 1em; }
h1 { font-size: 1.5em; }
h2 { font-size: 1.15em; margin-top: 2em; border-bottom: 1px solid #ddd; padding-bottom: .2em; }
img { max-width: 100%; height: auto; }
figure { margin: 0; }
figcaption, .note { color: #555; font-size: .9em; max-width: 60em; }
table { border-collapse: collapse; font-size: .9em; }
th, td { padding: .2em .8em .2em 0; text-align: right; }
th { border-bottom: 1px solid #bbb; }
td:first-child, th:first-child { text-align: left; }
dl { display: grid; grid-template-columns: max-content auto; gap: .1em 1.2em; }
dt { color: #555; }
dd { margin: 0; overflow-wrap: anywhere; }
"""


_MORE = r"mae|corr|power|blur_\w+|crps_fair|(pod|far|frequency_bias|brier|roc_area)_[^_]+"


def write_evaluation(evaluation: Evaluation, folder: str | Path, *, cube: xr.DataArray) -> None:
    """Write ``scores.csv``, ``scores.png`` and ``report.html`` into a folder, which is made when missing.

    Args:
        evaluation, cube: as `write_report`.

    Raises:
        OutputError: one of them cannot be written.
    """
    make_folder(Path(folder))
    write_scores(evaluation.table, Path(folder) / "scores.csv")
    save_figure(plot_scores(evaluation.table, models=MODELS), Path(folder) / "scores.png")
    write_report(evaluation, Path(folder) / "report.html", cube=cube)


def write_report(evaluation: Evaluation, path: str | Path, *, cube: xr.DataArray) -> None:
    """Write the page, whole or not at all.

    It holds what was compared, the sentences of `verification.compare`, the scores averaged over leads, curves by
    lead (with bands where there is a bootstrap), spectra, what ensembles are worth, and maps of the case with the most
    rain.

    Args:
        evaluation: of `cubecast.evaluate`.
        path: ``report.html``; an existing file is replaced.
        cube: the observations that it was evaluated on.

    Raises:
        OutputError: it cannot be written.
    """
    title = f"Verification of {cube.attrs.get('long_name', cube.name)}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        _facts(describe_comparison(evaluation, cube=cube)),
        "<h2>In words</h2><ul>",
        *(f"<li>{escape(line)}</li>" for line in compare(evaluation.table)),
        "</ul>",
        "<h2>Averages over the leads</h2>",
        _means(evaluation.table),
        *_pictures(evaluation, cube),
    ]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    page = f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(parts) + "\n</body></html>\n"
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def describe_comparison(evaluation: Evaluation, *, cube: xr.DataArray) -> dict[str, str]:
    """What was compared, in words: model, data, cases, pixels and leads."""
    dim, table = sequence_dim(cube), evaluation.table
    attrs = evaluation.example[MODEL].attrs
    steps = sorted(table["lead_step"].unique())
    first, last = cube[dim].values[[0, -1]]
    space = space_dims(cube)
    grid = f"{' x '.join(str(cube.sizes[d]) for d in space)} ({', '.join(space)})" if space else "one point"
    sources = Counter(_source(one) for one in json.loads(str(attrs.get("model_trained_on", "[]"))))
    trained = [f"{count} times {text}" if count > 1 else text for text, count in sources.items()]
    source = json.loads(str(attrs.get("input_data", "{}"))).get("source")
    facts = {
        "model": str(attrs.get("source", "")),
        "weights": f"SHA-256 {str(attrs.get('model_weights_sha256', ''))[:16]}",
        "trained on": "; ".join(trained) or "unknown data",
        "against": ", ".join(str(s) for s in table["system"].unique() if s != MODEL).replace("_", " ") or "nothing",
        "observations": f"{labelled(str(cube.name), str(cube.attrs.get('units', '')))}, {cube.shape[0]} frames from "
        f"{_moment(first)} to {_moment(last)}, step {cube_step(cube)}, {grid}" + (f", {source}" if source else ""),
        "cases": f"{len(evaluation.reference)} reference times, {_moment(evaluation.reference[0])} to "
        f"{_moment(evaluation.reference[-1])}; {_range(table['cases'])} of them count at a lead",
        "pixels": f"{_range(table['pixels'])} at a lead, the same for all systems",
        "leads": f"{len(steps)} of {cube_step(cube)}",
    }
    members = {name: made.sizes[REALIZATION] for name, made in evaluation.example.items() if REALIZATION in made.dims}
    if members:
        facts["members"] = ", ".join(f"{name} {count}" for name, count in members.items())
    if evaluation.bootstrap:
        facts["bands"] = (
            f"95 % of {evaluation.bootstrap} resamples of the cases, drawn in blocks of {evaluation.block} neighbours; "
            "they know nothing of events that were not observed"
        )
    return facts


def _pictures(evaluation: Evaluation, cube: xr.DataArray) -> Iterator[str]:
    """The figures, each with its heading and a sentence."""
    yield "<h2>Scores by lead</h2>"
    bands = " Bands are 95 % intervals over cases." if evaluation.bootstrap else ""
    yield _picture(plot_scores(evaluation.table, models=MODELS), f"Scores by lead time, pooled over all cases.{bands}")
    more = [c for c in score_columns(evaluation.table) if re.fullmatch(_MORE, c)]
    more = more[: PANELS // len(evaluation.scores)]
    yield "<h2>More scores by lead</h2>"
    yield _picture(
        plot_scores(evaluation.table, scores=more, models=MODELS), f"The same for the rest of the scores.{bands}"
    )
    for name, scores in evaluation.scores.items():
        of = f" of {name}" if len(evaluation.scores) > 1 else ""
        if "power_ratio" in scores and scores["power_ratio"].notnull().any():
            yield f"<h2>Is it blurred?{escape(of)}</h2>"
            yield _picture(plot_spectra(scores, models=MODELS), _blurred(scores))
        if "rank_histogram" in scores:
            yield f"<h2>What the ensemble is worth{escape(of)}</h2>"
            said = "Ranks without points where all members and the observation agree."
            yield _picture(plot_ensembles(scores, models=MODELS), said)
        if len(space_dims(cube)) == 2:
            yield f"<h2>One case{escape(of)}</h2>"
            yield _map(evaluation, cube, name)


def _map(evaluation: Evaluation, cube: xr.DataArray, name: str) -> str:
    """Maps of the example; a grid that cannot be placed on a map costs the map and not the page."""
    caption = "The case with the highest observed mean: chosen for what there is to see, by the observations alone."
    try:
        return _picture(plot_systems(evaluation.example, cube, variable=name), caption)
    except CubecastError as error:
        return f'<p class="note">No map: {escape(str(error))}</p>'


def _blurred(scores: xr.Dataset) -> str:
    """By how much each system is blurred at the last lead."""
    unit, lead = scores.attrs["wavelength_units"], str(scores.attrs["lead"])
    last = scores["blur"].isel({lead: -1})
    words = lead_texts(scores[lead].values)[-1]
    said = []
    for system in scores[SYSTEM].values:
        value = float(last.sel({SYSTEM: system}))
        lost = "nowhere" if value == 0 else "not known" if np.isnan(value) else f"below {value:.3g} {unit}"
        if value >= float(scores["wavelength"].max()):
            lost = "everywhere (too weak, not just blurred)"
        said.append(f"{str(system).replace('_', ' ')} {lost}")
    return (
        f"Wavelengths at which more than half of the observed power is missing, {words} ahead: {'; '.join(said)}. "
        "Fields are taken minus their mean, 0 where a pixel does not count, under a Hann window."
    )


def _means(table: pd.DataFrame) -> str:
    """One row a system: scores averaged over the leads, and the range of the frequency bias beside CSI."""
    wanted = (
        r"mse|mae|bias|corr|crps|crps_fair|power|blur_\w+|csi_[^_]+|csi_[^_]+_mean|frequency_bias_[^_]+|fss_[^_]+_[^_]+"
    )
    plain = [c for c in score_columns(table) if re.fullmatch(wanted, c)]
    keys = ["variable", "system"] if "variable" in table else ["system"]
    means = table.groupby(keys, sort=False)[plain].mean()
    rows = [[str(i) if isinstance(i, str) else ", ".join(map(str, i)) for i in means.index], *means.to_numpy().T]
    head = "".join(f"<th>{escape(c.replace('_', ' '))}</th>" for c in ["", *rows[0]])
    body = [
        f"<tr><td>{escape(column.replace('_', ' '))}</td>" + "".join(f"<td>{v:.4g}</td>" for v in values) + "</tr>"
        for column, values in zip(plain, rows[1:], strict=True)
    ]
    return f"<table><tr>{head}</tr>{''.join(body)}</table>"


def _facts(facts: dict[str, str]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items()) + "</dl>"


def _picture(figure: Figure, caption: str) -> str:
    """A figure as an inlined PNG with its caption, which is its text for those who cannot see it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi="figure")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    text = escape(caption, quote=True)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'


def _source(about: dict[str, Any]) -> str:
    """A cube that a model was trained on, as its folder describes it, in a line."""
    size = " x ".join(map(str, about.get("shape", [])))
    text = f"{about.get('name')}, {about.get('frames')} frames of {size}, {about.get('first')} to {about.get('last')}"
    return f"{text}, {about['source']}" if about.get("source") else text


def _moment(value: Any) -> str:
    return str(np.datetime64(value, "m")).replace("T", " ") if np.issubdtype(type(value), np.datetime64) else f"{value}"


def _range(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low}" if low == high else f"{low} to {high}"
