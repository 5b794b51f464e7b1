"""A verification as sums that add up: pooling the sums of chunks of cases gives the scores of all of them.

`statistics` makes an ``xarray.Dataset`` of sums by lead, `pool` adds such Datasets, and `scores_from` turns the total
into scores (the idea of WeatherBench-X, https://github.com/google-research/weatherbenchX).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import xarray as xr

from cubecast.errors import InputError, UsageError
from cubecast.product import REALIZATION, forecast_dim, names
from cubecast.scores.categorical import contingency_scores, contingency_sums
from cubecast.scores.continuous import continuous_scores, continuous_sums
from cubecast.scores.spatial import fss_scores, fss_sums

Statistics = xr.Dataset
"""Sums by ``lead_time`` [x ``system``] [x ``threshold`` [x ``window``]]; every variable may be added up."""


def statistics(
    forecast: xr.DataArray,
    observed: xr.DataArray,
    *,
    weights: xr.DataArray | None = None,
    thresholds: Sequence[float] = (),
    fss_windows: Mapping[str, int] | None = None,
) -> Statistics:
    """The sums of one forecast variable over all reference times and places, by lead.

    A point counts where forecast and observation are finite and its weight is above 0.

    Args:
        forecast: (forecast_reference_time, lead_time, *space), one variable of a forecast Dataset, in its units.
        observed: the same dims and sizes, the truth at each valid time.
        weights: broadcastable to the forecast, not negative; None: 1. They weigh errors, contingency tables and the
            sums of the FSS alike.
        thresholds: events are values at or above these (in the forecast's units), with a slack of 1e-5 of the
            threshold for packed values.
        fss_windows: label and odd number of cells of each FSS window; needs two space dims.

    Returns:
        Sums by lead. ``pixels``: points that count; ``cases``: reference times with any such point; ``weight`` and
        weighted sums as in `continuous`, `categorical` and `spatial`.

    Raises:
        InputError: an ensemble, or an observation of another shape.
        UsageError: FSS windows for point series.
    """
    ref, lead, _ = names(forecast_dim(forecast))
    if REALIZATION in forecast.dims:
        raise InputError(
            "verification of an ensemble",
            found=f"dim {REALIZATION!r} of {forecast.sizes[REALIZATION]}",
            allowed="a single forecast",
            remedy=f"verify its mean: forecast.mean('{REALIZATION}')",
        )
    space = [str(d) for d in forecast.dims if d not in (ref, lead)]
    if set(observed.dims) != set(forecast.dims) or any(observed.sizes[d] != forecast.sizes[d] for d in forecast.dims):
        raise InputError("observations", found=dict(observed.sizes), allowed=f"the forecast's {dict(forecast.sizes)}")
    if fss_windows and len(space) != 2:
        raise UsageError("FSS windows", found=f"space dims {tuple(space)}", allowed="fields with two space dims")
    f, o, w = _counted(forecast.transpose(ref, lead, *space), observed.transpose(ref, lead, *space), weights)
    counts = (w > 0).sum(space)
    sums = {"cases": (counts > 0).astype(int), "pixels": counts, **continuous_sums(f, o, w, over=space)}
    if thresholds:
        sums |= contingency_sums(f, o, w, thresholds=thresholds, over=space)
    if thresholds and fss_windows:
        sums |= fss_sums(f, o, w, thresholds=thresholds, windows=fss_windows)
    total = xr.Dataset(sums).sum(ref)
    return total.assign_coords({lead: forecast[lead].drop_vars([c for c in forecast[lead].coords if c != lead])})


def _counted(
    forecast: xr.DataArray, observed: xr.DataArray, weights: xr.DataArray | None
) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Forecast, observation and weight in float64 without coordinates; all are 0 where a point does not count."""
    dims = forecast.dims
    f, o = (np.array(a.values, np.float64) for a in (forecast, observed))
    counts = np.isfinite(f) & np.isfinite(o)
    w = counts.astype(np.float64)
    if weights is not None:
        given = xr.DataArray(weights.values, dims=weights.dims).broadcast_like(xr.DataArray(w, dims=dims))
        w *= given.transpose(*dims).values
        counts &= w > 0
    for values in (f, o, w):
        values[~counts] = 0.0
    return xr.DataArray(f, dims=dims), xr.DataArray(o, dims=dims), xr.DataArray(w, dims=dims)


def pool(parts: Iterable[Statistics]) -> Statistics:
    """The sum of the statistics of disjoint chunks of cases.

    Raises:
        InputError: no part, or parts with other leads, systems, thresholds, windows or units.
    """
    total: Statistics | None = None
    for part in parts:
        if total is None:
            total = part
            continue
        if part.attrs != total.attrs or set(part.data_vars) != set(total.data_vars) or not _same_axes(part, total):
            raise InputError(
                "statistics that cannot be pooled",
                found=f"{dict(part.sizes)}, {part.attrs} and {dict(total.sizes)}, {total.attrs}",
                allowed="the same leads, systems, thresholds, windows and units",
            )
        total = total.assign({n: total[n].variable + part[n].variable for n in total.data_vars})
    if total is None:
        raise InputError("no statistics to pool", found="no case", allowed="one chunk of cases or more")
    return total


def _same_axes(a: xr.Dataset, b: xr.Dataset) -> bool:
    return set(a.indexes) == set(b.indexes) and all(a.indexes[k].equals(b.indexes[k]) for k in a.indexes)


def scores_from(sums: Statistics) -> xr.Dataset:
    """The scores of (pooled) statistics, by lead [and system, threshold, window]; NaN where nothing counts.

    ``mse rmse mae bias corr``, with thresholds ``pod far csi frequency_bias csi_mean``, with windows ``fss``; ``cases``
    and ``pixels``. Equations: `continuous.continuous_scores`, `categorical.contingency_scores`, `spatial.fss_scores`.
    """
    scores = {**continuous_scores(sums), **contingency_scores(sums), **fss_scores(sums)}
    return xr.Dataset({**scores, "cases": sums["cases"], "pixels": sums["pixels"]}, attrs=sums.attrs)
