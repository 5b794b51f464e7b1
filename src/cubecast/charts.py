"""Curves: scores by lead time, the losses of a training run, and point series beside their forecasts.

Every function returns a ``matplotlib.figure.Figure`` that pyplot does not know of; the caller saves it. Figures are
1200 pixels wide at matplotlib's 100 dots per inch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cubecast.cube import CHANNEL, select_channel, sequence_dim, space_dims
from cubecast.errors import InputError, UsageError
from cubecast.product import REALIZATION, forecast_dim, lead_texts, names
from cubecast.scores import explain, score_columns
from cubecast.units import labelled, printed

STRONG = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
"""Colours of models, from Okabe & Ito (https://jfly.uni-koeln.de/color/): told apart by colour-blind readers."""
GREYS = ("#333333", "#6b6b6b", "#8c8c8c", "#a6a6a6", "#4f4f4f")
DASHES = ((5, 2), (1, 1.5), (7, 2, 1, 2), (3, 1.5), (9, 2, 1, 2, 1, 2))
MARKERS = ("s", "^", "D", "v", "P", "X")
PANELS = 24
_TRAJECTORIES = 12
_STATIONS = 6


def plot_scores(
    table: pd.DataFrame, *, scores: Sequence[str] | None = None, models: Sequence[str] = ("model",)
) -> Figure:
    """Scores by lead time: one panel a score, one line a system.

    Models are solid lines in strong colours, every other system is grey and dashed. A thin line marks the perfect
    score where better is neither higher nor lower. Where the table has bounds of a score, a band shows them.

    Args:
        table: as `scores.to_table` makes it or its CSV holds it; with a column ``variable``, each has its own panels.
        scores: columns to draw, at most 24 panels; None: with thresholds MSE, bias and every CSI and FSS, else RMSE,
            MAE, bias and correlation; with an ensemble CRPS and spread / error (the first 24 of them).
        models: the systems to draw as models.

    Raises:
        UsageError: an unknown score, or none to draw.
    """
    parts = dict(list(table.groupby("variable", sort=False))) if "variable" in table else {"": table}
    panels = [
        (part, str(name) if len(parts) > 1 else "", column)
        for name, part in parts.items()
        for column in (scores if scores is not None else _main_scores(part))
    ]
    panels = panels if scores is not None else panels[:PANELS]
    if not panels or len(panels) > PANELS or not all(column in part for part, _, column in panels):
        known = score_columns(table)
        raise UsageError(
            "scores to draw", found=[c for *_, c in panels], allowed=f"1 to {PANELS} panels of {', '.join(known)}"
        )
    across = min(len(panels), 4 if len(panels) > 6 or len(panels) == 4 else 3)
    down = -(-len(panels) // across)
    figure = Figure(figsize=(12, 0.9 + 3.1 * down), layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    styles = line_styles(list(dict.fromkeys(table["system"])), models)
    for ax, (part, name, column) in zip(axes, panels, strict=False):
        _draw_score(ax, part, column, styles, variable=name)
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    figure.supxlabel(f"lead time ({table['lead_units'].iloc[0]})", fontsize=11)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 5), frameon=False, fontsize=11)
    return figure


def plot_training(log: pd.DataFrame) -> Figure:
    """Training and validation loss by epoch; the epoch with the best validation loss is marked.

    Args:
        log: columns ``epoch``, ``training_loss`` and ``validation_loss``, as in a model's log.

    Raises:
        InputError: another table, or an empty one.
    """
    absent = [c for c in ("epoch", "training_loss", "validation_loss") if c not in log]
    if absent or log.empty:
        raise InputError("training log", found=list(log.columns), allowed="epoch, training_loss and validation_loss")
    figure = Figure(figsize=(12, 5), layout="constrained")
    ax = figure.subplots()
    ax.plot(log["epoch"], log["training_loss"], color=GREYS[1], dashes=DASHES[0], marker="o", ms=4, label="training")
    ax.plot(log["epoch"], log["validation_loss"], color=STRONG[0], lw=2.2, marker="o", ms=4, label="validation")
    if log["validation_loss"].notna().any():
        epoch, lowest = log.sort_values("validation_loss")[["epoch", "validation_loss"]].to_numpy(float)[0]
        label = f"best: {lowest:.4g} after epoch {epoch:g}"
        ax.plot(epoch, lowest, "o", ms=12, mfc="none", mew=2, color=STRONG[1], label=label)
    losses = log[["training_loss", "validation_loss"]].to_numpy(float)
    losses = losses[np.isfinite(losses)]
    if losses.size and losses.min() > 0 and losses.max() > 20 * losses.min():
        ax.set_yscale("log")
    ax.set(xlabel="epoch", ylabel="loss in model space (lower is better)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(frameon=False)
    plain_axes(ax)
    return figure


def plot_series(observed: xr.DataArray, forecast: xr.Dataset, *, variable: str | None = None) -> Figure:
    """A point series and its forecasts; one panel a station, at most six.

    Up to twelve forecasts are drawn each from its last observed value on. More are drawn as one line for each of up
    to three leads (the first, the middle and the last), against the valid time.

    Args:
        observed: cube (time,) or (time, station), or with channels.
        forecast: forecasts of the same stations.
        variable: the forecast variable to draw; None: the first.

    Raises:
        InputError: fields instead of series, or an ensemble.
        UsageError: an unknown variable.
    """
    name = variable if variable is not None else str(next(iter(forecast.data_vars)))
    if name not in forecast:
        raise UsageError("variable to draw", found=name, allowed=", ".join(map(str, forecast.data_vars)))
    truth = select_channel(observed, name) if CHANNEL in observed.dims else observed
    field = forecast[name]
    if len(space_dims(truth)) > 1 or REALIZATION in field.dims:
        raise InputError("a series to draw", found=f"dims {field.dims}", allowed="one value a time and station")
    station = next(iter(space_dims(truth)), None)
    count = min(_STATIONS, truth.sizes[station]) if station is not None else 1
    figure = Figure(figsize=(12, 1.4 + 2.8 * count), layout="constrained")
    axes = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    for i, ax in enumerate(axes):
        pick = {station: i} if station is not None else {}
        _draw_series(ax, truth.isel(pick), field.isel(pick))
        if station is not None:
            label = truth[station].values[i] if station in truth.coords else i
            ax.set_title(f"{station} {label}", loc="left", fontsize=11)
        ax.set_ylabel(labelled(name, str(truth.attrs.get("units", "1"))))
    dim = sequence_dim(truth)
    unit = str(truth[dim].attrs.get("units", "")) if truth[dim].dtype.kind != "M" else ""
    axes[-1].set_xlabel(f"{dim} ({unit})" if unit else dim)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 5), frameon=False)
    return figure


def _main_scores(table: pd.DataFrame) -> list[str]:
    drawn = r"csi_[^_]+|fss_[^_]+_[^_]+"
    events = [c for c in table.columns.astype(str) if re.fullmatch(drawn, c) and table[c].notna().any()]
    chosen = ["mse", "bias", *events] if events else ["rmse", "mae", "bias", "corr"]
    chosen += ["crps", "spread_error"]  # where there is an ensemble
    return [c for c in chosen if c in table]


def line_styles(systems: Sequence[str], models: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The line of each system, models last so that they lie on top."""
    strong = [s for s in systems if s in models]
    grey = [s for s in systems if s not in models]
    styles: dict[str, dict[str, Any]] = {}
    for i, system in enumerate(strong):
        styles[system] = {"color": STRONG[i % 4], "lw": 2.6, "marker": "o", "ms": 5, "zorder": 4}
    for i, system in enumerate(grey):
        look = {"color": GREYS[i % 5], "dashes": DASHES[i % 5], "marker": MARKERS[i % 6]}
        styles[system] = {**look, "lw": 1.7, "ms": 4.5, "zorder": 3}
    return styles


def _draw_score(
    ax: Axes, table: pd.DataFrame, column: str, styles: dict[str, dict[str, Any]], *, variable: str
) -> None:
    name, score = explain(column)
    for system, style in styles.items():
        rows = table[table["system"] == system].sort_values("lead_time")
        ax.plot(rows["lead_time"], rows[column], label=system.replace("_", " "), **style)
        if f"{column}_low" in rows:
            band = {"color": style["color"], "alpha": 0.15, "lw": 0, "zorder": style["zorder"] - 2}
            ax.fill_between(rows["lead_time"], rows[f"{column}_low"], rows[f"{column}_high"], **band)
    if "best" in score.better:
        ax.axhline(score.perfect, color="#999999", lw=0.8, zorder=1)
        if score.perfect:  # a ratio: from 0 on, so that a few per cent do not look like much
            ax.set_ylim(0, max(1.1 * score.perfect, ax.get_ylim()[1]))
    elif score.power == 0 and not score.length and name != "corr":
        ax.set_ylim(0, min(1.02, ax.get_ylim()[1] * 1.02))
    elif score.power or score.length:
        ax.set_ylim(bottom=0)
    unit = printed(str(table["units"].iloc[0]))
    suffix = column.removeprefix(f"{name}_")
    event = "" if score.length else _event(column.removesuffix("_mean").removeprefix(name.removesuffix("_mean")), unit)
    ax.set_title(f"{variable} {score.label}{event}".strip(), fontsize=10.5, loc="left")
    squared = f"({unit})²" if " " in unit else f"{unit}²" if unit else ""
    power = suffix if score.length else {0: "", 1: unit, 2: squared}[score.power]
    ax.set_ylabel(f"{power}  ({score.better})" if power else score.better, fontsize=9.5)
    whole = bool((table["lead_time"] % 1 == 0).all())
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=whole))
    plain_axes(ax)


def _event(suffix: str, unit: str) -> str:
    """``_1_10km`` as a second line ``≥ 1 mm h⁻¹, 10 km``."""
    found = re.fullmatch(r"_([^_]+)(?:_([\d.]+)(km|cells))?", suffix)
    if found is None:
        return ""
    window = f", {found[2]} {found[3]}" if found[2] else ""
    return f"\n≥ {found[1]} {unit}".rstrip() + window


def _draw_series(ax: Axes, truth: xr.DataArray, field: xr.DataArray) -> None:
    ref, lead, valid = names(forecast_dim(field))
    dim = sequence_dim(truth)
    field = field.transpose(ref, lead)
    times, values, when = truth[dim].values, truth.values, field[valid].transpose(ref, lead).values
    ax.plot(times, values, color=GREYS[0], lw=1.3, label="observed", zorder=2)
    if field.sizes[ref] <= _TRAJECTORIES:
        for i, start in enumerate(field[ref].values):
            last = values[times == start]
            x, y = when[i], field.values[i]
            if len(last):
                x, y = np.concatenate([[start], x]), np.concatenate([last[:1], y])
            ax.plot(x, y, color=STRONG[0], lw=2, marker="o", ms=3, zorder=3, label="forecast" if i == 0 else None)
    else:
        words = lead_texts(field[lead].values)
        for color, k in zip(STRONG, np.unique([0, (field.sizes[lead] - 1) // 2, field.sizes[lead] - 1]), strict=False):
            order = np.argsort(when[:, k])
            label = f"forecast {words[k]} ahead"
            ax.plot(when[order, k], field.values[order, k], color=color, lw=1.6, zorder=3, label=label)
    if np.issubdtype(times.dtype, np.datetime64):
        locator = AutoDateLocator()
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    plain_axes(ax)


def plain_axes(ax: Axes) -> None:
    """A light grid, no frame above and to the right."""
    ax.grid(color="#e2e2e2", lw=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=9.5)
