"""Scores of ensembles: CRPS, spread beside error, rank histogram; and of their probabilities: Brier, reliability, ROC.

All are functions of sums over points. The probability of an event is the share of the members that reach the
threshold, so one table - how many members said yes, and whether it happened - holds Brier score, reliability diagram
and ROC exactly. A single forecast is an ensemble of one: its CRPS is the MAE, its probabilities are 0 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from cubecast.scores.categorical import at_least

RANK = "rank"
"""1 where the observation lies below all members, M + 1 where it lies above them."""
YES = "yes_members"
"""How many members are at or above the threshold, 0 to M."""

Array = npt.NDArray[Any]


def ensemble_sums(
    members: xr.DataArray, observed: xr.DataArray, weights: xr.DataArray, *, thresholds: Sequence[float]
) -> dict[str, xr.DataArray]:
    """Weighted sums over places, for each case and lead.

    Args:
        members: (reference, realization, lead, *space), finite where the weight is above 0.
        observed, weights: (reference, lead, *space).
        thresholds: of events.

    Returns:
        ``members`` (M times the weight); ``crps`` and ``crps_fair``; ``spread``, the variance of the members about
        their mean, of the population (M - 1), times (M + 1) / M; ``ranks`` by `RANK`, of the points where members
        and observation are not all the same; with thresholds ``said`` and ``happened`` by threshold and `YES`: the
        weight of all points, and of those with the observed event. NaN where one member is too few.
    """
    cases, count = observed.shape[:2], members.shape[1]
    found = {name: np.zeros(cases) for name in ("members", "crps", "crps_fair", "spread")}
    found["ranks"] = np.zeros((*cases, count + 1))
    found |= {name: np.zeros((*cases, len(thresholds), count + 1)) for name in ("said", "happened")}
    for case in np.ndindex(*cases):
        counts = weights.values[case] > 0
        x = np.asarray(members.values[case[0], :, case[1]][:, counts], np.float64)
        y, w = observed.values[case][counts], weights.values[case][counts]
        found["members"][case] = count * w.sum()
        for i, threshold in enumerate(thresholds):
            said, event = at_least(x, threshold).sum(axis=0), at_least(y, threshold)
            found["said"][case][i] = np.bincount(said, w, minlength=count + 1)
            found["happened"][case][i] = np.bincount(said[event], w[event], minlength=count + 1)
        apart = (x != y).any(axis=0)  # elsewhere all errors are 0: most of a field of rain is dry for all
        for name, value in _distances(np.sort(x[:, apart], axis=0), y[apart], w[apart]).items():
            found[name][case] = value
    dims = tuple(str(d) for d in observed.dims[:2])
    axes = {"ranks": (RANK,), "said": ("threshold", YES), "happened": ("threshold", YES)}
    axis = {RANK: np.arange(1, count + 2), YES: np.arange(count + 1), "threshold": np.asarray(thresholds, float)}
    return {
        name: xr.DataArray(values, dims=dims + axes.get(name, ()), coords={d: axis[d] for d in axes.get(name, ())})
        for name, values in found.items()
        if thresholds or name not in ("said", "happened")
    }


def _distances(x: Array, y: Array, w: Array) -> dict[str, Any]:
    """Sums over the points of sorted members (member, point)."""
    m = len(x)
    error = np.abs(x - y).mean(axis=0)
    pairs = (2.0 * np.arange(1, m + 1) - m - 1) @ x  # half the sum of |x_i - x_j| over all i and j
    below, equal = (x < y).sum(axis=0), (x == y).sum(axis=0)
    share = w / (equal + 1)
    begin, end = (np.bincount(at, share, minlength=m + 2) for at in (below, below + equal + 1))
    single = m == 1
    return {
        "crps": w @ (error - pairs / m**2),
        "crps_fair": np.nan if single else w @ (error - pairs / (m * (m - 1))),
        "spread": np.nan if single else w @ x.var(axis=0, ddof=1) * (m + 1) / m,
        "ranks": np.cumsum(begin - end)[:-1].clip(min=0.0),
    }


def ensemble_scores(sums: xr.Dataset) -> dict[str, xr.DataArray]:
    """The scores of pooled sums; M is the number of members x_i, y the observation, <.> the weighted mean of points.

    Scores by lead::

        crps         = < 1/M sum |x_i - y| - 1/(2 M^2)       sum_ij |x_i - x_j| >    (of the ensemble as it is)
        crps_fair    = < 1/M sum |x_i - y| - 1/(2 M (M - 1)) sum_ij |x_i - x_j| >    (of the distribution behind it)
        spread_error = sqrt((M + 1)/M <variance of the members, with M - 1>) / sqrt(<(mean of members - y)^2>)

    Gneiting & Raftery (2007), https://doi.org/10.1198/016214506000001437; Ferro (2014),
    https://doi.org/10.1002/qj.2270 (fair); Fortin et al. (2014), https://doi.org/10.1175/JHM-D-14-0008.1 (spread).

    Curves: ``rank_histogram`` (share of points by rank of y among the members; a tie is split evenly among its
    ranks), and ``rank_histogram_untied``, without the points where all members equal y, such as dry ground that all
    foresaw: they are flat by themselves and hide the rest. Hamill (2001),
    https://doi.org/10.1175/1520-0493(2001)129<0550:IORHFV>2.0.CO;2.

    With thresholds, see `probability_scores`.
    """
    if "crps" not in sums:
        return {}
    weight = sums["weight"].where(sums["weight"] > 0)
    members = sums["members"] / weight
    untied = sums["ranks"].sum(RANK)
    real = sums[RANK] <= members + 1.5
    ranks = sums["ranks"].where(real)
    return {
        "crps": sums["crps"] / weight,
        "crps_fair": sums["crps_fair"] / weight,
        "spread_error": (sums["spread"] / sums["squared_error"].where(sums["squared_error"] > 0)) ** 0.5,
        "rank_histogram": (ranks + (sums["weight"] - untied) / (members + 1)) / weight,
        "rank_histogram_untied": ranks / untied.where(untied > 0),
        **(probability_scores(sums, members) if "said" in sums else {}),
    }


def probability_scores(sums: xr.Dataset, members: xr.DataArray) -> dict[str, xr.DataArray]:
    """Scores of the probabilities p = k / M of events, k the members that reach the threshold, o = 1 if it happened.

    Scores: ``brier`` = <(p - o)^2> (Brier 1950, https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2), and
    ``roc_area``, the area under the ROC: hit rate against false alarm rate when the event is foretold from k members
    on, joined by straight lines (Mason & Graham 2002, https://doi.org/10.1256/003590002320603584); NaN where
    it happened nowhere or everywhere.

    Curves by `YES`: ``probability``; ``said_share``, how often it was said; ``reliability``, how often it then
    happened (Murphy & Winkler 1977, https://doi.org/10.2307/2346866); ``hit_rate`` and ``false_alarm_rate`` of the
    ROC, for k members or more.
    """
    said, happened = sums["said"], sums["happened"]
    p = (said[YES] / members).where(said[YES] <= members + 0.5)
    total, events = said.sum(YES), happened.sum(YES)
    known = total.where(total > 0)
    hits, alarms = (_from_k_on(a) for a in (happened, said - happened))
    hit_rate, false_alarm_rate = hits / events.where(events > 0), alarms / (total - events).where(total - events > 0)
    # trapezoids between k + 1 members or more and k or more; k = 0 is the corner (1, 1), beyond M is (0, 0)
    after_h, after_f = (rate.shift({YES: -1}, fill_value=0.0) for rate in (hit_rate, false_alarm_rate))
    area = ((false_alarm_rate - after_f) * (hit_rate + after_h) / 2).sum(YES, skipna=False)
    return {
        "brier": (said * p**2 - 2 * p * happened + happened).sum(YES) / known,
        "roc_area": area,
        "probability": p,
        "said_share": (said / known).where(p.notnull()),
        "reliability": happened / said.where(said > 0),
        "hit_rate": hit_rate.where(p.notnull()),
        "false_alarm_rate": false_alarm_rate.where(p.notnull()),
    }


def _from_k_on(counts: xr.DataArray) -> xr.DataArray:
    """The sum of the counts of k members and more."""
    flipped = counts.isel({YES: slice(None, None, -1)}).cumsum(YES)
    return flipped.isel({YES: slice(None, None, -1)}).assign_coords({YES: counts[YES]})
