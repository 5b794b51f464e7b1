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
from cubecast.scores.ensemble import ensemble_scores, ensemble_sums
from cubecast.scores.spatial import fss_scores, fss_sums
from cubecast.scores.spectrum import spectrum_scores, spectrum_sums

Statistics = xr.Dataset
"""Sums by ``lead_time`` [x ``system``] [x ``threshold`` [x ``window``]], those of curves by one dim more.

Every variable may be added up; with ``forecast_reference_time`` the sums of each case are still apart.
"""


def statistics(
    forecast: xr.DataArray,
    observed: xr.DataArray,
    *,
    weights: xr.DataArray | None = None,
    thresholds: Sequence[float] = (),
    fss_windows: Mapping[str, int] | None = None,
    cell: float | None = None,
    per_case: bool = False,
) -> Statistics:
    """The sums of one forecast variable over all reference times and places, by lead.

    A point counts where forecast (all its members) and observation are finite and its weight is above 0. Of an
    ensemble, errors, events and FSS are those of its mean, the spectrum is the mean of its members' spectra, and the
    sums of `ensemble` are made besides.

    Args:
        forecast: (forecast_reference_time, [realization,] lead_time, *space), one variable of a forecast Dataset, in
            its units.
        observed: the same dims and sizes but for ``realization``, the truth at each valid time.
        weights: broadcastable to the forecast, not negative; None: 1. They weigh errors, contingency tables and the
            sums of the FSS alike.
        thresholds: events are values at or above these (in the forecast's units), with a slack of 1e-5 of the
            threshold for packed values.
        fss_windows: label and odd number of cells of each FSS window; needs two space dims.
        cell: side of a cell in the units of wavelengths; None: no spectrum; needs two space dims.
        per_case: keep the sums of each reference time, for `bootstrap`; `over_cases` adds them up.

    Returns:
        Sums by lead. ``pixels``: points that count; ``cases``: reference times with any such point; ``weight`` and
        weighted sums as in `continuous`, `categorical`, `spatial`, `spectrum` and `ensemble`.

    Raises:
        InputError: an observation of another shape.
        UsageError: FSS windows or a spectrum of point series.
    """
    ref, lead, _ = names(forecast_dim(forecast))
    sizes = {d: n for d, n in forecast.sizes.items() if d != REALIZATION}
    space = [str(d) for d in sizes if d not in (ref, lead)]
    if dict(observed.sizes) != sizes:
        raise InputError("observations", found=dict(observed.sizes), allowed=f"the forecast's {sizes}")
    for what, wanted in (("FSS windows", fss_windows), ("a spectrum", cell)):
        if wanted and len(space) != 2:
            raise UsageError(what, found=f"space dims {tuple(space)}", allowed="fields with two space dims")
    forecast = forecast.transpose(ref, ..., lead, *space)
    ensemble = REALIZATION in forecast.dims
    mean = forecast.mean(REALIZATION, skipna=False, dtype=np.float64) if ensemble else forecast
    f, o, w = _counted(mean, observed.transpose(ref, lead, *space), weights)
    counts = (w > 0).sum(space)
    sums = {"cases": (counts > 0).astype(int), "pixels": counts, **continuous_sums(f, o, w, over=space)}
    if thresholds:
        sums |= contingency_sums(f, o, w, thresholds=thresholds, over=space)
    if thresholds and fss_windows:
        sums |= fss_sums(f, o, w, thresholds=thresholds, windows=fss_windows)
    if cell:
        sums |= spectrum_sums(forecast if ensemble else f, o, w, cell=cell)
    if ensemble:
        sums |= ensemble_sums(forecast, o, w, thresholds=thresholds)
    total = xr.Dataset(sums) if per_case else xr.Dataset(sums).sum(ref, skipna=False)
    axes = [d for d in (ref, lead) if d in total.dims and d in forecast.coords]
    return total.assign_coords({d: forecast[d].drop_vars([c for c in forecast[d].coords if c != d]) for d in axes})


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


def over_cases(sums: Statistics) -> Statistics:
    """The sum of statistics that were kept per case; others as they are."""
    cases = case_dim(sums)
    return sums if cases is None else sums.sum(cases, skipna=False, keep_attrs=True)


def case_dim(sums: Statistics) -> str | None:
    """The dim of the cases (reference times) of statistics that were kept per case."""
    return next((str(d) for d in sums.dims if str(d).startswith("forecast_reference_")), None)


def join_cases(parts: Iterable[Statistics]) -> Statistics:
    """The statistics of disjoint chunks of cases, kept per case, one after the other."""
    found = list(parts)
    pool(found)  # refuses what does not fit
    dim = case_dim(found[0])
    return found[0] if dim is None else xr.concat(found, dim, join="exact", combine_attrs="identical")


def pool(parts: Iterable[Statistics]) -> Statistics:
    """The sum of the statistics of disjoint chunks of cases.

    Raises:
        InputError: no part, or parts with other leads, systems, thresholds, windows or units.
    """
    total: Statistics | None = None
    for part in map(over_cases, parts):
        if total is None:
            total = part
            continue
        if part.attrs != total.attrs or set(part.data_vars) != set(total.data_vars) or not _same_axes(part, total):
            raise InputError(
                "statistics that cannot be pooled",
                found=f"{dict(part.sizes)}, {part.attrs} and {dict(total.sizes)}, {total.attrs}",
                allowed="the same leads, systems, thresholds, windows, wavelengths, members and units",
            )
        total = total.assign({n: total[n].variable + part[n].variable for n in total.data_vars})
    if total is None:
        raise InputError("no statistics to pool", found="no case", allowed="one chunk of cases or more")
    return total


def _same_axes(a: xr.Dataset, b: xr.Dataset) -> bool:
    return set(a.indexes) == set(b.indexes) and all(a.indexes[k].equals(b.indexes[k]) for k in a.indexes)


def scores_from(sums: Statistics) -> xr.Dataset:
    """The scores of (pooled) statistics, by lead [and system, threshold, window]; NaN where nothing counts.

    ``mse rmse mae bias corr``, with thresholds ``pod far csi frequency_bias csi_mean``, with windows ``fss``; with a
    spectrum ``power blur`` and the curves of `spectrum.spectrum_scores`; of ensembles ``crps crps_fair spread_error``,
    with thresholds ``brier roc_area``, and the curves of `ensemble.ensemble_scores`; ``cases`` and ``pixels``. Other
    equations: `continuous.continuous_scores`, `categorical.contingency_scores`, `spatial.fss_scores`.
    """
    sums = over_cases(sums)
    parts = (continuous_scores, contingency_scores, fss_scores, spectrum_scores, ensemble_scores)
    scores = {name: score for part in parts for name, score in part(sums).items()}
    return xr.Dataset({**scores, "cases": sums["cases"], "pixels": sums["pixels"]}, attrs=sums.attrs)
