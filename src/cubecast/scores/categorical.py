"""Yes/no scores at thresholds: POD, FAR, CSI and frequency bias, from weighted contingency tables.

CSI comes in two ways: pooled (one table of all cases), and as the mean of the cases' own CSI. Large events rule the
first, and every case counts the same in the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from scores.categorical import BasicContingencyManager

SLACK = 1e-5
"""Relative slack of ``value >= threshold``: packed values are rounded, and 0.1 may come back as 0.09999999."""


def at_least(values: Any, threshold: float) -> Any:
    """Whether ``values`` reach the threshold, with the slack for packed values."""
    return values >= threshold - SLACK * abs(threshold)


def contingency_sums(
    forecast: xr.DataArray,
    observed: xr.DataArray,
    weights: xr.DataArray,
    *,
    thresholds: Sequence[float],
    over: Sequence[str],
) -> dict[str, xr.DataArray]:
    """Weighted contingency tables at each threshold (a last dim ``threshold``): the weights summed over ``over``.

    Besides, ``case_csi``, the CSI of each table, and ``case_csi_defined``, whether it has one (else ``case_csi`` is 0):
    summed over cases they give the mean CSI.
    """
    found: dict[str, list[xr.DataArray]] = {"hits": [], "misses": [], "false_alarms": [], "correct_negatives": []}
    total = weights.sum(over, skipna=False)
    for threshold in thresholds:
        yes_f, yes_o = at_least(forecast, threshold), at_least(observed, threshold)
        hits, forecast_yes, observed_yes = (xr.dot(weights, yes, dim=over) for yes in (yes_f & yes_o, yes_f, yes_o))
        found["hits"].append(hits)
        found["misses"].append(observed_yes - hits)
        found["false_alarms"].append(forecast_yes - hits)
        found["correct_negatives"].append(total - forecast_yes - observed_yes + hits)
    axis = xr.DataArray(np.asarray(thresholds, float), dims="threshold", name="threshold")
    tables = {name: xr.concat(parts, axis).transpose(..., "threshold") for name, parts in found.items()}
    events = tables["hits"] + tables["misses"] + tables["false_alarms"]
    defined = events > 0
    case_csi = (tables["hits"] / events.where(defined)).fillna(0.0)
    return {**tables, "case_csi": case_csi, "case_csi_defined": defined.astype(int)}


def contingency_scores(sums: xr.Dataset) -> dict[str, xr.DataArray]:
    """The scores of pooled contingency tables by `scores.categorical`; NaN where the denominator is 0.

    With hits h, misses m and false alarms f::

        pod = h / (h + m)    far = f / (h + f)    csi = h / (h + m + f)    frequency_bias = (h + f) / (h + m)

    ``csi`` is that of the pooled table, as are the others; ``csi_mean`` is the mean of h / (h + m + f) of each case
    over the cases in which it is defined (an event was forecast or observed).
    """
    if "hits" not in sums:
        return {}
    counts = {
        "tp_count": sums["hits"],
        "fn_count": sums["misses"],
        "fp_count": sums["false_alarms"],
        "tn_count": sums["correct_negatives"],
        "total_count": sums["hits"] + sums["misses"] + sums["false_alarms"] + sums["correct_negatives"],
    }
    table = BasicContingencyManager(counts)
    scores = {
        "pod": table.probability_of_detection(),
        "far": table.false_alarm_ratio(),
        "csi": table.critical_success_index(),
        "frequency_bias": table.frequency_bias(),
    }
    scores["csi_mean"] = sums["case_csi"] / sums["case_csi_defined"].where(sums["case_csi_defined"] > 0)
    return {name: score.where(np.isfinite(score)) for name, score in scores.items()}
