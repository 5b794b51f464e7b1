"""A model beside its baselines: the same reference times, pixels and leads for all, pooled over cases."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from cubecast.atomic import atomic_path
from cubecast.baselines import anomaly_persistence, climatology, damped_persistence, persistence
from cubecast.climate import Climate, fit_climate
from cubecast.cube import channel_names, check_cube, cube_step, select_channel, sequence_dim, space_dims
from cubecast.errors import CubecastError, InputError, UsageError
from cubecast.extrapolation import extrapolation, is_rain_field
from cubecast.forecast import possible_references
from cubecast.nowcaster import Nowcaster
from cubecast.progress import Progress, follow
from cubecast.scores import SCORES, explain, pool, to_table, verify_forecasts

log = logging.getLogger(__name__)

MODEL = "model"
BASELINES: dict[str, Callable[..., xr.Dataset]] = {
    "persistence": persistence,
    "extrapolation": extrapolation,
    "climatology": climatology,
    "anomaly_persistence": anomaly_persistence,
    "damped_persistence": damped_persistence,
}
"""By name."""
FITTED = ("climatology", "anomaly_persistence", "damped_persistence")
"""Those that need frames to fit a climatology on."""

_ENDS = ((0, "first"), (-1, "last"))

CHUNK = 8
"""Reference times that are forecast, scored and forgotten together."""


def verify(
    cube: xr.DataArray,
    model: Nowcaster,
    *,
    baselines: Sequence[str] | None = None,
    start: Any = None,
    end: Any = None,
    every: int = 1,
    horizon: int | None = None,
    thresholds: Sequence[float] | None = None,
    windows: Sequence[int | str] | None = None,
    region: Mapping[str, tuple[float, float]] | None = None,
    never_below: float | None = None,
    static: xr.Dataset | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Scores of a model and its baselines by lead time.

    All systems are scored on the same pixels: where the truth and the forecasts of all of them are finite. So with
    extrapolation among the baselines nobody is scored where air came in from outside of the domain or of the radars'
    coverage: nothing was known there. The column ``pixels`` says how many are left.

    Args:
        cube: the observations; history comes from them too, and may lie before ``start``.
        model: a trained model.
        baselines: names in `BASELINES`; None: persistence, for fields of rain extrapolation too, and for monthly data
            the three with a climatology, where persistence is that of the anomaly. Extrapolation sees as many frames
            as the model.
        start, end: first and last valid time that count (both included; ``"2017"`` is the whole year).
        every: use every n-th possible reference time.
        horizon: leads; None: as many as the model was trained for.
        thresholds, windows: for events and FSS, as in `cubecast.scores.verify_forecasts`.
        region: range of coordinate values kept by space dim, for example ``{"lat": (-60, 60)}``.
        never_below: leave out pixels with any observed value in ``cube`` below this (ice: -1.79 degC).
        static: the model's static fields on the cube's grid.

    Returns:
        The table of `cubecast.scores.to_table`; with several outputs they follow each other, named in ``variable``.

    Raises:
        UsageError: unknown baselines or regions. InputError: no case to verify.
    """
    check_cube(cube)
    steps = model.config.task.horizon if horizon is None else horizon
    truth = _period(cube, start, end)
    reference = _references(cube, truth, history=model.config.task.history, horizon=steps)[::every]
    chosen = _baselines(cube, baselines, model=model, horizon=steps, start=truth[sequence_dim(cube)].values[0])
    options: dict[str, Any] = {
        "thresholds": thresholds,
        "windows": windows,
        "region": _region(cube, region or {}, never_below),
    }
    names = model.outputs if len(model.outputs) > 1 else (channel_names(cube)[0],)
    parts: dict[str, list[Any]] = {name: [] for name in names}
    chunks = [reference[i : i + CHUNK] for i in range(0, len(reference), CHUNK)]
    for times in follow(chunks, "verifying", len(chunks), progress):
        forecasts = {MODEL: model.predict(cube, at=times, horizon=steps, static=static)}
        forecasts |= {name: make(cube, reference=times, horizon=steps) for name, make in chosen.items()}
        for name in names:
            parts[name].append(verify_forecasts(forecasts, truth, variable=name, **options))
    tables = [to_table(pool(part)) for part in parts.values()]
    if len(names) > 1:
        tables = [table.assign(variable=name) for table, name in zip(tables, names, strict=True)]
    return pd.concat(tables, ignore_index=True)


def write_scores(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table of scores as CSV, whole or not at all."""
    text = io.StringIO()
    table.to_csv(text, index=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def compare(table: pd.DataFrame) -> list[str]:
    """A sentence for each baseline and main score: at how many leads, and by how much, the model is ahead."""
    lines = []
    for score in [c for c in table.columns if re.fullmatch(r"mse|csi_[^_]+", c)]:
        wide = table.pivot_table(index="lead_step", columns="system", values=score)
        lower = SCORES[explain(score)[0]].better.startswith("lower")
        for against in [s for s in table["system"].unique() if s != MODEL and s in wide]:
            model, base = wide[MODEL], wide[against]
            ahead = int(((model < base) if lower else (model > base)).sum())
            ends = ", ".join(f"{model.iloc[i]:.3g} against {base.iloc[i]:.3g} at the {where}" for i, where in _ENDS)
            lines.append(f"{score}: {MODEL} ahead of {against} at {ahead} of {len(wide)} leads ({ends})")
    return lines


def _period(cube: xr.DataArray, start: Any, end: Any) -> xr.DataArray:
    dim = sequence_dim(cube)
    try:
        part = cube.sel({dim: slice(start, end)})
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"period {start} to {end}", found=str(error), allowed=f"values of {dim!r}") from None
    if part.shape[0] < 2:
        first, last = cube[dim].values[[0, -1]]
        raise InputError("no frames to verify", found=f"none from {start} to {end}", allowed=f"{first} to {last}")
    return part


def _references(cube: xr.DataArray, truth: xr.DataArray, *, history: int, horizon: int) -> Any:
    """Reference times with a complete history and at least one valid time among the frames of the period."""
    dim = sequence_dim(cube)
    step = cube_step(cube)
    times = possible_references(cube, history=history)
    first, last = truth[dim].values[[0, -1]]
    reference = times[(step.add(times, horizon) >= first) & (step.add(times, 1) <= last)]
    if not len(reference):
        raise InputError(
            "no case to verify",
            found=f"{cube.shape[0]} frames",
            allowed=f"{history} frames in a row and a frame after them in the period",
        )
    return reference


def _baselines(
    cube: xr.DataArray, wanted: Sequence[str] | None, *, model: Nowcaster, horizon: int, start: Any
) -> dict[str, Callable[..., xr.Dataset]]:
    """The baselines by name, each called as ``make(cube, reference=..., horizon=...)``."""
    unknown = [name for name in wanted or () if name not in BASELINES]
    if unknown:
        raise UsageError("baselines", found=", ".join(unknown), allowed=", ".join(BASELINES))
    history = model.config.task.history
    ready: dict[str, Callable[..., xr.Dataset]] = {
        "persistence": persistence,
        "extrapolation": partial(extrapolation, history=history),
    }
    names = list(dict.fromkeys(wanted or _usual(cube, history)))
    if not set(names) & set(FITTED):
        return {n: ready[n] for n in names}
    try:
        climate = fit_climate(_before(cube, model, start), leads=horizon)
    except CubecastError as error:
        if wanted is not None:
            raise
        log.warning("no climatology for the baselines: %s", error)
        return {"persistence": persistence}
    return {n: ready[n] if n in ready else _with(BASELINES[n], climate) for n in names}


def _usual(cube: xr.DataArray, history: int) -> tuple[str, ...]:
    """The baselines that fit the data."""
    if cube_step(cube).kind == "months":
        return FITTED
    return ("persistence", "extrapolation") if is_rain_field(cube) and history > 1 else ("persistence",)


def _with(make: Callable[..., xr.Dataset], climate: Climate) -> Callable[..., xr.Dataset]:
    return lambda cube, **options: make(cube, training=climate, **options)


def _before(cube: xr.DataArray, model: Nowcaster, start: Any) -> xr.DataArray:
    """The frames a climatology may be fitted on: those before the period, else those the model was trained on."""
    dim = sequence_dim(cube)
    values = cube[dim].values
    before = cube.isel({dim: values < start})
    if before.shape[0] or model.training_period is None:
        return before
    first, last = model.training_period
    return cube.isel({dim: (values >= first) & (values <= last)})


def _region(
    cube: xr.DataArray, ranges: Mapping[str, tuple[float, float]], never_below: float | None
) -> xr.DataArray | None:
    """True where a pixel counts, by ranges of its coordinates and by all its observed values."""
    if not ranges and never_below is None:
        return None
    space = space_dims(cube)
    region = xr.DataArray(np.ones([cube.sizes[d] for d in space], bool), dims=space)
    for dim, (low, high) in ranges.items():
        if dim not in space or dim not in cube.coords:
            raise UsageError("region", found=dim, allowed=", ".join(d for d in space if d in cube.coords))
        coordinate = cube[dim].values
        region = region & xr.DataArray((coordinate >= low) & (coordinate <= high), dims=dim)
    if never_below is not None:
        first = select_channel(cube, channel_names(cube)[0])
        region = region & xr.DataArray(first.min(sequence_dim(cube)).values >= never_below, dims=space)
    return region.transpose(*space)
