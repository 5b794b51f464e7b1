"""Which forecast is compared with which observation, and which points count: the same for every system."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from cubecast import units
from cubecast.cube import (
    BLOCK_BYTES,
    CHANNEL,
    channel_names,
    channel_units,
    check_cube,
    cube_step,
    is_latlon,
    locate,
    same_places,
    select_channel,
    sequence_dim,
    space_dims,
)
from cubecast.errors import InputError, UsageError
from cubecast.product import REALIZATION, forecast_dim, names
from cubecast.progress import Progress, follow
from cubecast.scores.spatial import cell_km, latitude_dim, window_cells
from cubecast.scores.spectrum import SMALLEST
from cubecast.scores.statistics import Statistics, join_cases, pool, statistics

SYSTEM = "system"
THRESHOLDS = {"mm h-1": (0.1, 1.0, 5.0)}
"""Thresholds that are used when none are given, by units; other units have none."""
WINDOWS = ("10km",)
"""FSS windows that are used when none are given, on grids whose cell size is known."""


def verify_forecasts(
    forecasts: Mapping[str, xr.Dataset],
    cube: xr.DataArray,
    *,
    variable: str | None = None,
    thresholds: Sequence[float] | None = None,
    windows: Sequence[int | str] | None = None,
    area_weights: bool | None = None,
    region: xr.DataArray | None = None,
    per_case: bool = False,
    progress: Progress | None = None,
) -> Statistics:
    """The verification statistics of some systems' forecasts for one chunk of reference times.

    The truth is the frame of ``cube`` at each valid time, missing where the cube has none. A point counts where the
    truth and the forecasts of all systems (all their members) are finite, in the region. Where one is an ensemble, the
    others are scored as ensembles of one besides; fields have a spectrum, with wavelengths in km where the size of a
    cell is known (at the mean latitude of a lat/lon grid), else in cells. Reference times are taken a few at a time, so
    that lazy forecasts and cubes need not fit into memory; `pool` adds up chunks.

    Args:
        forecasts: forecast Datasets by the name of the system, with the same reference times, leads and grid.
        cube: the observations, in the forecasts' units, on their grid.
        variable: which forecast variable to verify; None: the only one.
        thresholds: of events, in the cube's units; None: 0.1, 1 and 5 mm h-1 for rain in mm h-1, else none.
        windows: of the FSS, as an odd number of cells or a length such as ``"10km"``; None: 10 km for fields with
            thresholds on a grid of known cell size, else none.
        area_weights: weigh points by cos(latitude); None: on lat/lon grids.
        region: boolean (space dims), True where a point counts.
        per_case: keep the sums of each reference time, as `bootstrap.intervals` needs them.

    Returns:
        Statistics with the dim ``system`` and the coordinate ``lead_step``; see `statistics`, `scores_from`,
        `to_table`.

    Raises:
        UsageError: no system, an unknown variable, a window that is none, area weights without latitude.
        InputError: forecasts or observations that do not fit together.
    """
    check_cube(cube)
    variable = _variable(forecasts, cube, variable)
    truth, step = units.with_floor(select_channel(cube, variable)), cube_step(cube)
    fields = {name: units.with_floor(forecast[variable]) for name, forecast in forecasts.items()}
    _check_forecasts(fields, truth)
    options: dict[str, Any] = dict(
        zip(("thresholds", "fss_windows"), _events(truth, thresholds, windows), strict=True), per_case=per_case
    )
    if len(space_dims(truth)) == 2 and min(truth.sizes[d] for d in space_dims(truth)) >= SMALLEST:
        options["cell"] = cell_km(truth) or 1.0
    area = is_latlon(truth) if area_weights is None else area_weights
    weights = _place_weights(truth, area=area, region=region)
    first = next(iter(fields.values()))
    ref, lead, _ = names(forecast_dim(first))
    largest = max(field.size for field in fields.values())
    case = 64 * max(1, largest // max(1, first.sizes[ref]))  # bytes: the sums take many arrays of a case's size
    size = max(1, BLOCK_BYTES // case)
    parts = []
    for start in follow(range(0, first.sizes[ref], size), "verifying", -(-first.sizes[ref] // size), progress):
        chunk = {name: field.isel({ref: slice(start, start + size)}) for name, field in fields.items()}
        parts.append(_chunk_statistics(chunk, truth, weights, options))
    steps = np.rint(first[lead].values / step.lead(1)).astype(int)
    attrs = {"variable": variable, "units": channel_units(cube)[variable], "area_weights": str(bool(area))}
    attrs |= {"lead": lead} | {f"step_{k}": v for k, v in step.to_dict().items()}
    attrs |= {"wavelength_units": "cells" if cell_km(truth) is None else "km"} if "cell" in options else {}
    total = join_cases(parts) if per_case else pool(parts)
    return total.assign_coords(lead_step=(lead, steps)).assign_attrs(attrs)


def _chunk_statistics(
    fields: Mapping[str, xr.DataArray], truth: xr.DataArray, weights: xr.DataArray, options: Mapping[str, Any]
) -> Statistics:
    """The statistics of all systems over a few reference times, which are loaded here."""
    first = next(iter(fields.values()))
    ref, lead, valid = names(forecast_dim(first))
    dims = (ref, lead, *space_dims(truth))
    observed = _observed_at(truth, first[valid].transpose(ref, lead).values, dims=dims)
    loaded = [field.transpose(ref, ..., *dims[1:]).load() for field in fields.values()]
    same = common_mask(loaded, observed) * weights
    if any(REALIZATION in field.dims for field in loaded):
        loaded = [f if REALIZATION in f.dims else f.expand_dims(REALIZATION, axis=1) for f in loaded]
    sums = [statistics(field, observed, weights=same, **options) for field in loaded]
    # counts of members that a smaller ensemble does not have are 0
    return xr.concat(sums, xr.IndexVariable(SYSTEM, list(fields)), join="outer", fill_value=0.0)


def common_mask(forecasts: Iterable[xr.DataArray], observed: xr.DataArray) -> xr.DataArray:
    """True where the observation and all the forecasts are finite; without coordinates, in the observation's dims."""
    mask = np.isfinite(observed.values)
    for forecast in forecasts:
        finite = abs(forecast) < np.inf
        mask &= (finite.all(REALIZATION) if REALIZATION in finite.dims else finite).transpose(*observed.dims).values
    return xr.DataArray(mask, dims=observed.dims)


def _variable(forecasts: Mapping[str, xr.Dataset], cube: xr.DataArray, variable: str | None) -> str:
    if not forecasts:
        raise UsageError("nothing to verify", found="no forecast", allowed="one system or more")
    common = [str(v) for v in next(iter(forecasts.values())).data_vars if all(v in f for f in forecasts.values())]
    common = [v for v in common if CHANNEL not in cube.dims or v in channel_names(cube)]
    if variable is None and len(common) == 1:
        return common[0]
    if variable not in common or variable is None:
        raise UsageError(
            "variable to verify",
            found=variable,
            allowed=", ".join(common) or "one that all forecasts and the cube hold",
            remedy="name it" if common else None,
        )
    return variable


def _check_forecasts(fields: Mapping[str, xr.DataArray], truth: xr.DataArray) -> None:
    first_name, first = next(iter(fields.items()))
    ref, lead, _ = names(forecast_dim(first))
    space = space_dims(truth)
    sizes = {d: truth.sizes[d] for d in space}
    for name, field in fields.items():
        for dim in (ref, lead):
            if dim not in field.dims or not field.indexes[dim].equals(first.indexes[dim]):
                raise InputError(
                    f"forecasts of {name!r} and {first_name!r} are not of the same cases",
                    found=f"another {dim}",
                    allowed="the same reference times and leads for all systems",
                )
        if not units.same(str(field.attrs.get("units", "")), str(truth.attrs["units"])):
            raise InputError(
                f"units of the forecast of {name!r}",
                found=repr(field.attrs.get("units", "")),
                allowed=repr(truth.attrs["units"]),
                remedy="convert one of them with cubecast.convert_units",
            )
        if set(field.dims) - {REALIZATION} != {ref, lead, *space} or not same_places(field, truth, space):
            raise InputError(
                f"the grid of the forecast of {name!r}",
                found={str(d): field.sizes[d] for d in field.dims if d not in (ref, lead)},
                allowed=f"the cube's {sizes}, with the same coordinates in the same order",
            )


def _events(
    truth: xr.DataArray, thresholds: Sequence[float] | None, windows: Sequence[int | str] | None
) -> tuple[tuple[float, ...], dict[str, int]]:
    if thresholds is None:
        thresholds = THRESHOLDS.get(units.canonical(str(truth.attrs["units"])), ())
    if not np.isfinite(np.asarray(thresholds, float)).all():
        raise UsageError("thresholds", found=list(thresholds), allowed="finite numbers")
    if len({f"{t:g}" for t in thresholds}) < len({float(t) for t in thresholds}):
        raise UsageError("thresholds", found=list(thresholds), allowed="numbers that differ in six digits")
    cell = cell_km(truth)
    if windows is None:
        windows = WINDOWS if thresholds and cell is not None else ()
    if windows and len(space_dims(truth)) != 2:
        raise UsageError("FSS windows", found=f"{list(windows)} for point series", allowed="none: FSS is for fields")
    if windows and not thresholds:
        raise UsageError("FSS windows without thresholds", found=list(windows), remedy="give thresholds too")
    return tuple(dict.fromkeys(float(t) for t in thresholds)), dict(window_cells(w, cell) for w in windows)


def _place_weights(truth: xr.DataArray, *, area: bool, region: xr.DataArray | None) -> xr.DataArray:
    """The weight of each place (space dims), without coordinates."""
    space = space_dims(truth)
    sizes = {d: truth.sizes[d] for d in space}
    weights = xr.DataArray(np.ones(list(sizes.values())), dims=space)
    if area:
        if not is_latlon(truth):
            raise UsageError(
                "area weights", found=f"space dims {space}", allowed="lat/lon grids", remedy="leave them off"
            )
        lat = truth[latitude_dim(truth)]
        cosine = np.cos(np.deg2rad(lat.values.astype(float))).clip(min=0.0)
        weights = weights * xr.DataArray(cosine, dims=lat.dims)
    if region is not None:
        if region.dtype != bool or set(region.dims) != set(space) or dict(region.sizes) != sizes:
            raise InputError("region", found=f"{region.dtype} {dict(region.sizes)}", allowed=f"bool {sizes}")
        weights = weights * xr.DataArray(region.transpose(*space).values, dims=space)
    return weights.transpose(*space)


def _observed_at(truth: xr.DataArray, times: np.ndarray[Any, Any], *, dims: tuple[str, ...]) -> xr.DataArray:
    """The frames at the valid times (reference, lead), NaN where the cube has none; each frame is read once."""
    index = locate(truth, times)
    there = index >= 0
    wanted, place = np.unique(index[there], return_inverse=True)
    observed = np.full((*times.shape, *truth.shape[1:]), np.nan, np.float64)
    if len(wanted):
        observed[there] = truth.isel({sequence_dim(truth): wanted}).values[place]
    return xr.DataArray(observed, dims=dims)
