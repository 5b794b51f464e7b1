"""Scores of neighbourhoods: the fractions skill score at thresholds and windows, and how large a cell and window is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from cubecast import units
from cubecast.cube import is_latlon, space_dims
from cubecast.errors import InputError, UsageError
from cubecast.scores.categorical import at_least

DEGREE_KM = 111.2
"""Length of one degree of latitude."""

Array = npt.NDArray[Any]


def fss_sums(
    forecast: xr.DataArray,
    observed: xr.DataArray,
    weights: xr.DataArray,
    *,
    thresholds: Sequence[float],
    windows: Mapping[str, int],
) -> dict[str, xr.DataArray]:
    """The two sums of the fractions skill score over the last two dims (y, x).

    Pf and Po are the shares of points at or above the threshold among the points that count (weight > 0) in the
    square window round each point; a window that reaches over the edge or over missing data is the smaller for it.

    Returns:
        ``fss_difference``: sum of w (Pf - Po)^2 and ``fss_reference``: sum of w (Pf^2 + Po^2) over the points that
        count, with the last dims ``threshold`` and ``window`` (labels).
    """
    w = weights.values
    counts = w > 0
    shape = (*w.shape[:-2], len(thresholds), len(windows))
    difference, reference = np.zeros(shape), np.zeros(shape)
    for j, cells in enumerate(windows.values()):
        share = 1.0 / np.maximum(_window_sums(counts, cells), 1)
        for i, threshold in enumerate(thresholds):
            near_f = _window_sums(counts & at_least(forecast.values, threshold), cells) * share
            near_o = _window_sums(counts & at_least(observed.values, threshold), cells) * share
            apart = near_f - near_o
            difference[..., i, j] = _sums(w * apart, apart)
            reference[..., i, j] = _sums(w * near_f, near_f) + _sums(w * near_o, near_o)
    dims = (*weights.dims[:-2], "threshold", "window")
    coords = {"threshold": np.asarray(thresholds, float), "window": list(windows)}
    return {
        "fss_difference": xr.DataArray(difference, dims=dims, coords=coords),
        "fss_reference": xr.DataArray(reference, dims=dims, coords=coords),
    }


def fss_scores(sums: xr.Dataset) -> dict[str, xr.DataArray]:
    """FSS = 1 - sum (Pf - Po)^2 / sum (Pf^2 + Po^2), pooled; NaN where there is no event at all.

    Roberts & Lean (2008), https://doi.org/10.1175/2007MWR2123.1
    """
    if "fss_reference" not in sums:
        return {}
    reference = sums["fss_reference"].where(sums["fss_reference"] > 0)
    return {"fss": 1.0 - sums["fss_difference"] / reference}


def _sums(a: Array, b: Array) -> Array:
    return np.asarray(np.einsum("...yx,...yx->...", a, b))


def _window_sums(events: npt.NDArray[np.bool_], cells: int) -> Array:
    """How many events lie in the square of ``cells`` x ``cells`` round each point (..., y, x): exact integers."""
    return _run_sums(_run_sums(events.swapaxes(-1, -2), cells).swapaxes(-1, -2), cells)


def _run_sums(values: Array, cells: int) -> Array:
    """Sums of ``cells`` neighbours round each place of the last dim; beyond the ends there is nothing."""
    size, half = values.shape[-1], cells // 2
    up_to = np.zeros((*values.shape[:-1], size + cells), np.int32)
    np.cumsum(values, axis=-1, out=up_to[..., half + 1 : half + 1 + size])
    up_to[..., half + 1 + size :] = up_to[..., half + size : half + 1 + size]
    return up_to[..., cells:] - up_to[..., :-cells]


def cell_km(cube: xr.DataArray) -> float | None:
    """Side of a grid cell in km, sqrt(dy dx), at the mean latitude of a lat/lon grid; None when it is not known."""
    space = space_dims(cube)
    if len(space) != 2 or any(d not in cube.coords or cube.sizes[d] < 2 for d in space):
        return None
    size = [float(np.median(np.abs(np.diff(cube[d].values.astype(float))))) for d in space]
    if is_latlon(cube):
        lat = np.deg2rad(float(cube[latitude_dim(cube)].mean()))
        return float(DEGREE_KM * np.sqrt(size[0] * size[1] * np.cos(lat)))
    length = [{"m": 1e-3, "km": 1.0}.get(units.canonical(str(cube[d].attrs.get("units", "")))) for d in space]
    if length[0] is None or length[1] is None:
        return None
    return float(np.sqrt(size[0] * length[0] * size[1] * length[1]))


def latitude_dim(cube: xr.DataArray) -> str:
    """Which of the two space dims of a lat/lon grid is latitude: by its attributes or its name, else the first."""
    space = space_dims(cube)
    for dim in space:
        attrs = cube[dim].attrs
        north = str(attrs.get("units", "")).endswith(("north", "N"))
        if north or attrs.get("standard_name") == "latitude" or dim.lower().startswith("lat"):
            return dim
    return space[0]


def window_cells(window: int | str, cell: float | None) -> tuple[str, int]:
    """The label and the odd number of cells of an FSS window.

    Args:
        window: cells (``5`` or ``"5"``), or a length L such as ``"10km"``: 2 floor(L / (2 cell)) + 1 cells, that is
            all whole cells within L / 2 to each side.
        cell: side of a cell in km, see `cell_km`.

    Raises:
        UsageError: neither of these, or an even number of cells.
        InputError: a length, on a grid whose cell size is not known.
    """
    text = str(window).replace(" ", "").lower()
    if re.fullmatch(r"\d+", text) and int(text) % 2:
        return f"{int(text)}cells", int(text)
    if not re.fullmatch(r"\d+(\.\d+)?km", text) or float(text[:-2]) <= 0:
        raise UsageError("FSS window", found=repr(window), allowed="an odd number of cells, or a length such as 10km")
    if cell is None:
        raise InputError(
            f"an FSS window of {text} on a grid of unknown cell size",
            found="no space coordinates in m, km or degrees",
            remedy="give the window in cells, for example 5",
        )
    return f"{float(text[:-2]):g}km", 2 * int(float(text[:-2]) / cell / 2 + 1e-9) + 1
