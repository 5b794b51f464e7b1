"""A model beside its baselines: the same reference times, pixels and leads for all, pooled over cases."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from cubecast.atomic import atomic_path
from cubecast.baselines import anomaly_persistence, climatology, damped_persistence, persistence
from cubecast.climate import Climate, fit_climate
from cubecast.cube import channel_names, check_cube, cube_step, sequence_dim
from cubecast.ensemble_products import ensemble_mean
from cubecast.errors import CubecastError, UsageError
from cubecast.extrapolation import extrapolation, is_rain_field
from cubecast.matching import match_distribution
from cubecast.nowcaster import Nowcaster
from cubecast.product import REALIZATION
from cubecast.progress import Progress, follow
from cubecast.pysteps_baselines import FRAMES, METHODS, check_pysteps, pysteps_nowcast
from cubecast.scores import (
    SCORES,
    SYSTEM,
    Statistics,
    case_dim,
    explain,
    join_cases,
    over_cases,
    pool,
    scores_from,
    to_table,
    verify_forecasts,
)
from cubecast.selection import overlapping, select_period, select_references, select_region

log = logging.getLogger(__name__)

MODEL, MATCHED = MODELS = ("model", "matched")
BASELINES: dict[str, Callable[..., xr.Dataset]] = {
    "persistence": persistence,
    "extrapolation": extrapolation,
    "climatology": climatology,
    "anomaly_persistence": anomaly_persistence,
    "damped_persistence": damped_persistence,
    **{method: partial(pysteps_nowcast, method=method) for method in METHODS},
}
"""By name."""
FITTED = ("climatology", "anomaly_persistence", "damped_persistence")
"""Those that need frames to fit a climatology on."""

_ENDS = ((0, "first"), (-1, "last"))

CHUNK = 8
"""Reference times that are forecast, scored and forgotten together."""


@dataclass(frozen=True)
class Evaluation:
    """What a verification found: the table, the curves that do not fit into it, and one case to look at."""

    table: pd.DataFrame
    scores: dict[str, xr.Dataset]
    """By output variable: all of `scores.scores_from`, the spectra and the curves of ensembles among them."""
    example: dict[str, xr.Dataset]
    """By system: the forecasts of the case with the highest observed mean (the most rain)."""
    reference: Any
    """The reference times of all cases."""
    bootstrap: int
    block: int
    """Resamples, and how many neighbouring cases were drawn together."""


def verify(cube: xr.DataArray, model: Nowcaster, **options: Any) -> pd.DataFrame:
    """Scores of a model and its baselines by lead time: the table of `evaluate`, which says what the options are."""
    return evaluate(cube, model, **options).table


def evaluate(
    cube: xr.DataArray,
    model: Nowcaster,
    *,
    baselines: Sequence[str] | None = None,
    members: int | None = None,
    matched: bool = False,
    start: Any = None,
    end: Any = None,
    at: Any = None,
    every: int = 1,
    horizon: int | None = None,
    thresholds: Sequence[float] | None = None,
    windows: Sequence[int | str] | None = None,
    region: Mapping[str, tuple[float, float]] | None = None,
    never_below: float | None = None,
    static: xr.Dataset | None = None,
    cache: str | Path | None = None,
    bootstrap: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Scores of a model and its baselines by lead time.

    All systems are scored on the same pixels: where the truth and the forecasts of all of them are finite. So with
    extrapolation among the baselines nobody is scored where air came in from outside of the domain or of the radars'
    coverage: nothing was known there. The column ``pixels`` says how many are left.

    Args:
        cube: the observations; history comes from them too, and may lie before ``start``.
        model: a trained model.
        baselines: names in `BASELINES`; None: persistence, for fields of rain extrapolation too, and for monthly data
            the three with a climatology, where persistence is that of the anomaly. Extrapolation sees as many frames
            as the model; ``sprog``, ``steps`` and ``linda`` are made by pysteps from three
            (`cubecast.pysteps_baselines`).
        members: of the model, which is then scored as an ensemble; None: one forecast.
        matched: score the model's forecasts, of an ensemble its mean, also with their distribution matched
            (`cubecast.match_distribution`).
        start, end: first and last valid time that count (both included; ``"2017"`` is the whole year).
        at, every: reference times, None: all that are possible; and to use every n-th of them.
        horizon: leads; None: as many as the model was trained for.
        thresholds, windows: for events and FSS, as in `cubecast.scores.verify_forecasts`.
        region: range of coordinate values kept by space dim, for example ``{"lat": (-60, 60)}``.
        never_below: leave out pixels with any observed value in ``cube`` below this (ice: -1.79 degC).
        static: the model's static fields on the cube's grid.
        cache: folder that keeps the nowcasts of pysteps for the next time; None: under the user's cache folder.
        bootstrap: resamples of the cases (reference times) for 95 % intervals, columns ``mse_low mse_high`` and so on;
            0: none. Cases are drawn in blocks as long as forecasts overlap; see `cubecast.scores.intervals`.
        seed: of the bootstrap, and of the members.

    Returns:
        The table of `cubecast.scores.to_table` (with several outputs they follow each other, named in ``variable``),
        and what a report needs besides.

    Raises:
        UsageError: unknown baselines or regions, members of a model that has none, pysteps is wanted and not there.
        InputError: no case to verify.
    """
    check_cube(cube)
    steps = model.config.task.horizon if horizon is None else horizon
    truth = select_period(cube, start, end)
    chosen = _baselines(cube, baselines, model=model, horizon=steps, truth=truth, cache=cache)
    history = max(model.config.task.history, FRAMES if set(METHODS) & set(chosen) else 1)
    reference = select_references(cube, truth, history=history, horizon=steps, at=at)[::every]
    options: dict[str, Any] = {
        "thresholds": thresholds,
        "windows": windows,
        "region": select_region(cube, region or {}, never_below),
    }
    names = model.outputs if len(model.outputs) > 1 else (channel_names(cube)[0],)
    own = partial(_predict, model, static=static, members=members, seed=seed)
    systems: dict[str, Callable[..., xr.Dataset]] = {MODEL: own, **chosen}
    make = partial(_forecasts, systems, cube, horizon=steps, matched=matched)
    size = max(1, CHUNK // (members or 1))
    chunks = [reference[i : i + size] for i in range(0, len(reference), size)]
    made = ((times, make(times)) for times in follow(chunks, "verifying", len(chunks), progress))
    sums, wettest = _sums(made, truth, names, options, cases=bool(bootstrap))
    block = overlapping(cube, reference, steps)
    return Evaluation(
        table=_table(sums, bootstrap=bootstrap, block=block, seed=seed),
        scores={name: scores_from(total) for name, total in sums.items()},
        example=make([wettest]),
        reference=reference,
        bootstrap=bootstrap,
        block=block,
    )


def _sums(
    made: Iterable[tuple[Any, dict[str, xr.Dataset]]],
    truth: xr.DataArray,
    names: Sequence[str],
    options: Mapping[str, Any],
    *,
    cases: bool,
) -> tuple[dict[str, Statistics], Any]:
    """The sums of each variable over all forecasts, or of each case; and the reference time of the wettest one."""
    parts: dict[str, list[Any]] = {name: [] for name in names}
    wettest: list[tuple[float, Any]] = []
    for times, forecasts in made:
        for name in names:
            part = verify_forecasts(forecasts, truth, variable=name, per_case=True, **options)
            wettest += [(-np.inf, times[0]), _wettest(part)] if name == names[0] else []
            parts[name].append(part if cases else over_cases(part))
    return {name: join_cases(part) if cases else pool(part) for name, part in parts.items()}, max(wettest)[1]


def _table(sums: Mapping[str, Statistics], **bootstrap: int) -> pd.DataFrame:
    """The tables of all outputs, one after the other; several are named."""
    tables = {name: to_table(total, **bootstrap) for name, total in sums.items()}
    several = len(tables) > 1
    named = [table.assign(variable=name) if several else table for name, table in tables.items()]
    return pd.concat(named, ignore_index=True)


def _forecasts(
    systems: Mapping[str, Callable[..., xr.Dataset]], cube: xr.DataArray, times: Any, horizon: int, *, matched: bool
) -> dict[str, xr.Dataset]:
    """Those of all systems, the matched one after the model."""
    made = {name: make(cube, reference=times, horizon=horizon) for name, make in systems.items()}
    if not matched:
        return made
    own = made.pop(MODEL)
    one = ensemble_mean(own) if REALIZATION in own.dims else own
    return {MODEL: own, MATCHED: match_distribution(one, cube), **made}


def _predict(model: Nowcaster, cube: xr.DataArray, *, reference: Any, **options: Any) -> xr.Dataset:
    """The model, called as the baselines are."""
    return model.predict(cube, at=reference, **options)


def _wettest(sums: Statistics) -> tuple[float, Any]:
    """The highest observed mean of a case that has pixels at all leads, and its reference time."""
    one = sums.isel({SYSTEM: 0})
    lead, cases = str(sums.attrs["lead"]), str(case_dim(sums))
    mean = one["observed"].sum(lead) / one["weight"].sum(lead).where((one["pixels"] > 0).all(lead))
    values = mean.fillna(-np.inf).values
    return float(values.max()), sums[cases].values[values.argmax()]


def write_scores(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table of scores as CSV, whole or not at all."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)


def compare(table: pd.DataFrame) -> list[str]:
    """A sentence for each baseline and main score: at how many leads, and by how much, the model is ahead."""
    if "variable" in table:
        parts = table.groupby("variable", sort=False)
        return [f"{name}: {line}" for name, part in parts for line in compare(part.drop(columns="variable"))]
    lines = []
    for score in [c for c in table.columns if re.fullmatch(r"mse|crps|csi_[^_]+", c)]:
        wide = table.pivot(index="lead_step", columns="system", values=score)
        lower = SCORES[explain(score)[0]].better.startswith("lower")
        ours = [s for s in MODELS if s in wide]
        for own, against in itertools.product(ours, [s for s in table["system"].unique() if s not in MODELS]):
            model, base = wide[own], wide[against]
            ahead = int(((model < base) if lower else (model > base)).sum())
            ends = ", ".join(f"{model.iloc[i]:.3g} against {base.iloc[i]:.3g} at the {where}" for i, where in _ENDS)
            lines.append(f"{score}: {own} ahead of {against} at {ahead} of {len(wide)} leads ({ends})")
    return lines


def _baselines(
    cube: xr.DataArray, wanted: Sequence[str] | None, *, model: Nowcaster, horizon: int, truth: xr.DataArray, cache: Any
) -> dict[str, Callable[..., xr.Dataset]]:
    """The baselines by name, each called as ``make(cube, reference=..., horizon=...)``."""
    unknown = [name for name in wanted or () if name not in BASELINES]
    if unknown:
        raise UsageError("baselines", found=", ".join(unknown), allowed=", ".join(BASELINES))
    history = model.config.task.history
    ready: dict[str, Callable[..., xr.Dataset]] = {
        "persistence": persistence,
        "extrapolation": partial(extrapolation, history=history),
        **{method: partial(BASELINES[method], cache=cache) for method in METHODS},
    }
    names = list(dict.fromkeys(_usual(cube, history) if wanted is None else wanted))
    if set(names) & set(METHODS):
        check_pysteps()
    if not set(names) & set(FITTED):
        return {n: ready[n] for n in names}
    try:
        climate = fit_climate(_before(cube, model, truth), leads=horizon)
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


def _before(cube: xr.DataArray, model: Nowcaster, truth: xr.DataArray) -> xr.DataArray:
    """The frames a climatology may be fitted on: those before the period, else those the model was trained on."""
    dim = sequence_dim(cube)
    values = cube[dim].values
    before = cube.isel({dim: values < truth[dim].values[0]})
    if before.shape[0] or model.training_period is None:
        return before
    first, last = model.training_period
    return cube.isel({dim: (values >= first) & (values <= last)})
