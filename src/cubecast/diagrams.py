"""Diagrams of a verification besides curves by lead: spectra, and what probabilities of an ensemble are worth.

As in `charts`, every function returns a ``matplotlib.figure.Figure`` of 1200 pixels that pyplot does not know of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cubecast.charts import GREYS, line_styles, plain_axes
from cubecast.errors import InputError
from cubecast.product import lead_texts
from cubecast.scores import SYSTEM
from cubecast.units import printed

_THRESHOLDS = 3
Styles = Mapping[str, dict[str, Any]]


def plot_spectra(scores: xr.Dataset, *, models: Sequence[str] = ("model",)) -> Figure:
    """Power by wavelength at the first, the middle and the last lead; below, the power as a share of the observed.

    A line below 1 has lost detail of that wavelength; a dotted line marks one half.

    Args:
        scores: as `scores.scores_from` makes them of `verify_forecasts` statistics.
        models: the systems to draw as models.

    Raises:
        InputError: scores without a spectrum.
    """
    if "power_ratio" not in scores:
        raise InputError("spectra to draw", found="scores without spectra", allowed="those of fields of 8 x 8 or more")
    lead = str(scores.attrs["lead"])
    chosen = list(dict.fromkeys([0, (scores.sizes[lead] - 1) // 2, scores.sizes[lead] - 1]))
    styles = line_styles([str(s) for s in scores[SYSTEM].values], models)
    figure = Figure(figsize=(12, 6.6), layout="constrained")
    axes = figure.subplots(2, len(chosen), sharex=True, sharey="row", squeeze=False)
    words = lead_texts(scores[lead].values)
    for j, k in enumerate(chosen):
        at = scores.isel({lead: k})
        above, below = axes[:, j]
        above.plot(at["wavelength"], at["power_observed"].isel({SYSTEM: 0}), color="black", lw=1.2, label="observed")
        for system, style in styles.items():
            one = at.sel({SYSTEM: system})
            label = system.replace("_", " ")
            above.plot(at["wavelength"], one["power_forecast"].where(one["power_forecast"] > 0), label=label, **style)
            below.plot(at["wavelength"], one["power_ratio"], **style)
        above.set_title(f"{words[k]} ahead", loc="left", fontsize=10.5)
        known = (at["power_observed"] > 0).any() or (at["power_forecast"] > 0).any()
        above.set(xscale="log", yscale="log" if known else "linear")
        below.set_ylim(0, float(np.clip(np.nanmax(np.append(scores["power_ratio"].values, 1.0)) * 1.05, 1.3, 3.0)))
        below.axhline(1.0, color="#999999", lw=0.8, zorder=1)
        below.axhline(0.5, color="#999999", lw=0.8, dashes=(1, 2), zorder=1)
        for ax in (above, below):
            plain_axes(ax)
    unit = str(scores.attrs["wavelength_units"])
    axes[0, 0].invert_xaxis()
    ticks = [2.0**i for i in range(-3, 16) if scores["wavelength"].min() <= 2.0**i <= scores["wavelength"].max()]
    axes[0, 0].set_xticks(ticks, labels=[f"{t:g}" for t in ticks], minor=False)
    axes[0, 0].set_xticks([], minor=True)
    axes[0, 0].set_ylabel(f"power of a wave, ({printed(str(scores.attrs['units'])) or '1'})²", fontsize=9.5)
    axes[1, 0].set_ylabel("forecast / observed power (1 is best)", fontsize=9.5)
    figure.supxlabel(f"wavelength ({unit}), long to short", fontsize=11)
    _legend(figure, axes[0, 0])
    return figure


def plot_ensembles(scores: xr.Dataset, *, lead: int | None = None, models: Sequence[str] = ("model",)) -> Figure:
    """What ensembles are worth at one lead: rank histogram and spread; for up to three thresholds, reliability and ROC.

    The rank histogram leaves out the points where all members equal the observation. In the reliability diagrams the
    size of a dot says how often the probability was foretold, and the dotted lines how often the event happened.

    Args:
        scores: as `scores.scores_from` makes them of `verify_forecasts` statistics.
        lead: position of the lead, from 0; None: the middle one.
        models: the systems to draw as models.

    Raises:
        InputError: scores without an ensemble.
    """
    if "rank_histogram" not in scores:
        raise InputError("ensembles to draw", found="scores of single forecasts", allowed="those of an ensemble")
    dim = str(scores.attrs["lead"])
    at = scores.isel({dim: (scores.sizes[dim] - 1) // 2 if lead is None else lead})
    styles = line_styles([str(s) for s in scores[SYSTEM].values], models)
    ensembles = {s: y for s, y in styles.items() if scores["spread_error"].sel({SYSTEM: s}).notnull().any()}
    events = list(at["threshold"].values[:_THRESHOLDS]) if "brier" in at else []
    figure = Figure(figsize=(12, 7), layout="constrained")
    axes = figure.subplots(2, 1 + len(events), squeeze=False)
    _draw_ranks(axes[0, 0], at, ensembles)
    _draw_spread(axes[1, 0], scores, ensembles)
    for j, threshold in enumerate(events, start=1):
        event = f"≥ {threshold:g} {printed(str(scores.attrs['units']))}".rstrip()
        _draw_reliability(axes[0, j], at.sel(threshold=threshold), ensembles, title=f"reliability {event}")
        _draw_roc(axes[1, j], at.sel(threshold=threshold), styles, title=f"ROC {event}")
    for ax in axes.flat:
        plain_axes(ax)
    figure.suptitle(f"{lead_texts(at[dim].values[None])[0]} ahead", fontsize=11, x=0.01, ha="left")
    _legend(figure, axes[1, -1] if events else axes[0, 0])
    return figure


def _draw_ranks(ax: Axes, at: xr.Dataset, ensembles: Styles) -> None:
    """Heights relative to a flat histogram, so that ensembles of different sizes can be compared."""
    for system, style in ensembles.items():
        share = at["rank_histogram_untied"].sel({SYSTEM: system}).dropna("rank")
        place = (share["rank"].values - 0.5) / share.sizes["rank"]
        ax.plot(place, share * share.sizes["rank"], label=system.replace("_", " "), **style)
    ax.axhline(1.0, color="#999999", lw=0.8, zorder=1)
    ax.set_ylim(bottom=0)
    ax.set_title("rank histogram (flat is best)", loc="left", fontsize=10.5)
    ax.set(xlabel="rank of the observation (0 lowest)", ylabel="frequency / flat")


def _draw_spread(ax: Axes, scores: xr.Dataset, ensembles: Styles) -> None:
    for system, style in ensembles.items():
        ax.plot(scores["lead_step"], scores["spread_error"].sel({SYSTEM: system}), **style)
    ax.axhline(1.0, color="#999999", lw=0.8, zorder=1)
    ax.set_ylim(0, max(1.1, ax.get_ylim()[1]))
    ax.set_title("ensemble spread / error (1 is best)", loc="left", fontsize=10.5)
    ax.set(xlabel="lead (steps)")


def _draw_reliability(ax: Axes, at: xr.Dataset, ensembles: Styles, *, title: str) -> None:
    ax.plot([0, 1], [0, 1], color=GREYS[3], lw=0.8, zorder=1)
    for system, style in ensembles.items():
        one = at.sel({SYSTEM: system})
        p, happened, share = (one[n].values for n in ("probability", "reliability", "said_share"))
        there = np.isfinite(p) & np.isfinite(happened)
        line = {k: v for k, v in style.items() if k not in ("marker", "ms", "lw")}
        ax.plot(p[there], happened[there], lw=1.4, **line)
        ax.scatter(p[there], happened[there], s=4 + 160 * np.sqrt(share[there]), color=style["color"], zorder=4)
        climate = float(np.nansum(np.where(there, happened * share, 0.0)))
        ax.axhline(climate, color=style["color"], lw=0.8, dashes=(1, 2), zorder=1)
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="forecast probability", ylabel="observed frequency")
    ax.set_title(title, loc="left", fontsize=10.5)


def _draw_roc(ax: Axes, at: xr.Dataset, styles: Styles, *, title: str) -> None:
    ax.plot([0, 1], [0, 1], color=GREYS[3], lw=0.8, zorder=1)
    for system, style in styles.items():
        one = at.sel({SYSTEM: system})
        rates = [np.append(one[n].dropna("yes_members").values, 0.0) for n in ("false_alarm_rate", "hit_rate")]
        area = float(one["roc_area"])
        label = system.replace("_", " ")
        if len(rates[0]) == len(rates[1]):
            ax.plot(*rates, label=label, **style)
        ax.text(0.97, 0.04 + 0.075 * list(styles).index(system), f"{label} {area:.3f}", ha="right", fontsize=9,
                color=style["color"], transform=ax.transAxes)  # fmt: skip
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="false alarm rate", ylabel="hit rate")
    ax.set_title(f"{title}, with its area", loc="left", fontsize=10.5)


def _legend(figure: Figure, ax: Axes) -> None:
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(max(len(labels), 1), 6), frameon=False)
