"""Scores as a table: one row for each system and lead, one column for each score; and what each score means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from cubecast.errors import UsageError
from cubecast.scores.bootstrap import intervals
from cubecast.scores.cases import SYSTEM
from cubecast.scores.statistics import Statistics, scores_from


@dataclass(frozen=True)
class Score:
    """What a score is called, its units and which way is better."""

    label: str
    power: int
    """Units: 0 none, 1 those of the variable, 2 their square."""
    better: str
    perfect: float
    length: bool = False
    """A length, in the units that end the name of the column."""


SCORES = {
    "mse": Score("mean squared error", 2, "lower is better", 0.0),
    "rmse": Score("root mean squared error", 1, "lower is better", 0.0),
    "mae": Score("mean absolute error", 1, "lower is better", 0.0),
    "bias": Score("bias (forecast - observed)", 1, "0 is best", 0.0),
    "corr": Score("correlation", 0, "higher is better", 1.0),
    "crps": Score("continuous ranked probability score", 1, "lower is better", 0.0),
    "crps_fair": Score("fair CRPS", 1, "lower is better", 0.0),
    "spread_error": Score("ensemble spread / error", 0, "1 is best", 1.0),
    "power": Score("power, forecast / observed", 0, "1 is best", 1.0),
    "blur": Score("blur: half is missing below", 0, "lower is better", 0.0, length=True),
    "pod": Score("probability of detection", 0, "higher is better", 1.0),
    "far": Score("false alarm ratio", 0, "lower is better", 0.0),
    "csi": Score("critical success index", 0, "higher is better", 1.0),
    "frequency_bias": Score("frequency bias", 0, "1 is best", 1.0),
    "csi_mean": Score("critical success index, mean of cases", 0, "higher is better", 1.0),
    "brier": Score("Brier score", 0, "lower is better", 0.0),
    "roc_area": Score("area under the ROC", 0, "higher is better", 1.0),
    "fss": Score("fractions skill score", 0, "higher is better", 1.0),
}
"""In the order of the table's columns."""


LOW, HIGH = "_low", "_high"
"""Ends of the names of the columns with the bounds of a score."""


def to_table(sums: Statistics, *, bootstrap: int = 0, block: int = 1, seed: int = 0) -> pd.DataFrame:
    """The scores of `verify_forecasts` statistics, as written to scores.csv.

    Columns: ``system``, ``lead_step``, ``lead_time`` (a number) and ``lead_units`` (min, h, d, months ...), ``units``
    (of the variable), then the scores: ``mse rmse mae bias corr``, with an ensemble ``crps crps_fair spread_error``,
    of fields ``power`` and ``blur_km`` (``blur_cells`` where cells have no known size), for each threshold ``pod_0.1
    far_0.1 csi_0.1 frequency_bias_0.1`` (pooled over cases) and ``csi_0.1_mean`` (the mean of the cases' own CSI),
    with an ensemble ``brier_0.1 roc_area_0.1``, for each threshold and window ``fss_0.1_10km``, and ``cases`` and
    ``pixels``.

    Args:
        sums: of `verify_forecasts`; with ``per_case`` for a bootstrap.
        bootstrap: resamples of the cases for 95 % intervals, the columns ``mse_low mse_high`` and so on at the end;
            0: none. `bootstrap.intervals` says what they mean.
        block, seed: as `bootstrap.intervals`.

    Raises:
        UsageError: the statistics do not come from `verify_forecasts`.
        InputError: a bootstrap of sums over all cases.
    """
    if SYSTEM not in sums.dims or "lead_step" not in sums.coords:
        raise UsageError(
            "statistics for a table", found=f"dims {tuple(sums.dims)}", allowed="those of verify_forecasts"
        )
    table = _rows(scores_from(sums), sums)
    if bootstrap:
        for end, scores in zip((LOW, HIGH), intervals(sums, resamples=bootstrap, block=block, seed=seed), strict=True):
            bounds = _rows(scores.assign(cases=0, pixels=0).assign_attrs(sums.attrs), sums)
            columns = [c for c in bounds.columns if c in score_columns(table)]
            table = table.join(bounds[columns].add_suffix(end))
    return table


def score_columns(table: pd.DataFrame) -> list[str]:
    """The columns of a table that are scores, without their bounds."""
    return [c for c in table.columns.astype(str) if not c.endswith((LOW, HIGH)) and _name(c) is not None]


def _rows(scores: xr.Dataset, sums: Statistics) -> pd.DataFrame:
    """One row for each system and lead."""
    lead = str(sums.attrs["lead"])
    numbers, lead_units = _leads(sums)
    rows = []
    for i, system in enumerate(scores[SYSTEM].values):
        for k, step in enumerate(sums["lead_step"].values):
            at = {SYSTEM: i, lead: k}
            one = scores.isel({d: p for d, p in at.items() if d in scores.dims})
            rows.append(
                {
                    "system": str(system),
                    "lead_step": int(step),
                    "lead_time": float(numbers[k]),
                    "lead_units": lead_units,
                }
                | {"units": str(sums.attrs["units"])}
                | _row(one)
            )
    return pd.DataFrame(rows)


def _row(one: xr.Dataset) -> dict[str, Any]:
    """The score columns of one system and lead."""
    ends = {n: f"_{one.attrs['wavelength_units']}" for n, s in SCORES.items() if s.length and n in one}
    row: dict[str, Any] = {n + ends.get(n, ""): float(one[n]) for n in SCORES if n in one and not one[n].dims}
    events = [n for n in SCORES if n in one and one[n].dims == ("threshold",)]
    for t, threshold in enumerate(one["threshold"].values if "threshold" in one.dims else ()):
        row |= {_column(name, threshold): float(one[name][t]) for name in events}
    if "fss" in one:
        for t, threshold in enumerate(one["threshold"].values):
            row |= {f"fss_{threshold:g}_{w}": float(one["fss"][t, j]) for j, w in enumerate(one["window"].values)}
    return row | {"cases": int(one["cases"]), "pixels": int(one["pixels"])}


def _column(name: str, threshold: float) -> str:
    """``csi_0.1`` and ``csi_0.1_mean``: how a score was averaged stands last."""
    score, mean, _ = name.partition("_mean")
    return f"{score}_{threshold:g}{mean}"


def _leads(sums: Statistics) -> tuple[Any, str]:
    """Leads as numbers and their units: months, a time unit that suits them all, or the sequence's own."""
    leads = sums[str(sums.attrs["lead"])].values
    if sums.attrs["step_kind"] == "number":
        return leads.astype(float), str(sums.attrs["step_units"])
    if sums.attrs["step_kind"] == "months":
        return sums["lead_step"].values * float(sums.attrs["step_size"]), "months"
    seconds = leads / np.timedelta64(1, "s")
    for unit, size in (("d", 86400.0), ("min", 60.0)):
        if seconds.min() >= size and (seconds % size == 0).all():
            return seconds / size, unit
    return seconds, "s"


def explain(column: str) -> tuple[str, Score]:
    """Name and meaning of a score column: ``csi_0.1`` gives ``("csi", ...)``, ``csi_0.1_mean`` ``("csi_mean", ...)``.

    Raises:
        UsageError: not a score of the table.
    """
    name = _name(column)
    if name is None:
        raise UsageError("unknown score", found=column, allowed=", ".join(SCORES))
    return name, SCORES[name]


def _name(column: str) -> str | None:
    """The name in `SCORES` of a column."""
    for name in sorted(SCORES, key=len, reverse=True):
        score, mean, _ = name.partition("_mean")
        if column == name or (column.startswith(f"{score}_") and column.endswith(mean)):
            return name
    return None
