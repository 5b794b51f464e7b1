"""What people read of an ensemble: its mean, probabilities of reaching thresholds, and quantiles.

Each function takes a forecast with members (dim ``realization``) and gives a forecast without, with one variable for
each threshold or quantile of each of its variables: it is written, read and drawn as any other. Select with
``forecast[["rainfall_rate"]]`` first where an ensemble has several variables. Lazy (dask) forecasts stay lazy.

A place where any member is missing is missing. Attributes of each variable: ``source_variable``, the variable it was
made of; ``ensemble_statistic``, such as ``0.9 quantile of 24 members``; and ``threshold`` with ``threshold_units``, or
``quantile``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr

from cubecast import units
from cubecast.errors import InputError, UsageError
from cubecast.product import REALIZATION
from cubecast.scores.categorical import at_least


def ensemble_mean(forecast: xr.Dataset) -> xr.Dataset:
    """The mean of the members, 1/M sum x_i, under the name of the variable.

    Args:
        forecast: dims (forecast_reference_time, realization, lead_time, *space).

    Returns:
        Dims (forecast_reference_time, lead_time, *space), in the units of the members.

    Raises:
        InputError: a forecast without members.
    """
    found = {}
    for name, field, attrs, members in _ensembles(forecast):
        told = {"ensemble_statistic": f"mean of {members}"}  # cell_methods may name only what is still a coordinate
        found[name] = field.mean(REALIZATION, skipna=False).assign_attrs(attrs | told)
    return xr.Dataset(found, attrs=forecast.attrs)


def ensemble_probabilities(forecast: xr.Dataset, thresholds: Sequence[float]) -> xr.Dataset:
    """Probabilities that thresholds are reached: the share of the members at or above them, k / M.

    As everywhere in `cubecast.scores`, a value reaches a threshold with a slack of 1e-5 of it, for packed values; the
    reliability of these probabilities is what `cubecast.verify` tells of an ensemble.

    Args:
        forecast: dims (forecast_reference_time, realization, lead_time, *space).
        thresholds: in the units of the forecast.

    Returns:
        For each variable and threshold, ``probability_of_NAME_above_1`` (0 to 1, float32), where a point is written as
        p (``above_0p1``): CF asks for names of letters, digits and underscores.

    Raises:
        InputError: a forecast without members. UsageError: no threshold, or one that is no number.
    """
    if not len(thresholds) or not np.isfinite(thresholds).all():
        raise UsageError("thresholds of probabilities", found=list(thresholds), allowed="one number or more")
    found = {}
    for name, field, attrs, members in _ensembles(forecast):
        whole, unit = field.notnull().all(REALIZATION), units.canonical(str(attrs.get("units", "")))
        kept = {k: v for k, v in attrs.items() if k in ("grid_mapping", "source_variable")}
        what = str(attrs.get("long_name") or attrs.get("standard_name") or name).replace("_", " ")
        article = "an" if what[:1].lower() in "aeiou" else "a"
        for threshold in thresholds:
            size = f"{threshold:g} {unit}" if units.printed(unit) else f"{threshold:g}"
            told = {
                "long_name": f"probability of {article} {what} of {size} or more",
                "units": "1",
                "threshold": float(threshold),
                "threshold_units": unit,
                "ensemble_statistic": f"share of {members}",
            }
            share = at_least(field, threshold).mean(REALIZATION, dtype=np.float32).where(whole).drop_attrs(deep=False)
            found[f"probability_of_{name}_above_{_word(threshold)}"] = share.assign_attrs(kept | told)
    return xr.Dataset(found, attrs=forecast.attrs)


def ensemble_quantiles(forecast: xr.Dataset, quantiles: Sequence[float]) -> xr.Dataset:
    """Quantiles of the members: values that a share of q of them lie below.

    With the members sorted, x_1 <= ... <= x_M, the q-quantile lies at the place 1 + q (M - 1), between members on a
    straight line (definition 7 of Hyndman & Fan 1996, https://doi.org/10.1080/00031305.1996.10473566): 0 is the lowest
    member, 0.5 the median, 1 the highest.

    Args:
        forecast: dims (forecast_reference_time, realization, lead_time, *space).
        quantiles: from 0 to 1.

    Returns:
        For each variable and quantile, ``NAME_quantile_0p9``, in the units of the members.

    Raises:
        InputError: a forecast without members. UsageError: no quantile, or one that is not from 0 to 1.
    """
    if not len(quantiles) or not all(0 <= q <= 1 for q in quantiles):
        raise UsageError("quantiles", found=list(quantiles), allowed="one number or more from 0 to 1")
    found = {}
    for name, field, attrs, members in _ensembles(forecast):
        whole = field if field.chunks is None else field.chunk({REALIZATION: -1})
        values = whole.quantile(list(quantiles), dim=REALIZATION, skipna=False).astype(field.dtype)
        what = str(attrs.get("long_name") or attrs.get("standard_name") or name)
        for number, quantile in enumerate(quantiles):
            told = {
                "long_name": f"{quantile:g} quantile of {what}",
                "quantile": float(quantile),
                "ensemble_statistic": f"{quantile:g} quantile of {members}",
            }
            one = values.isel(quantile=number, drop=True)
            found[f"{name}_quantile_{_word(quantile)}"] = one.drop_attrs(deep=False).assign_attrs(attrs | told)
    return xr.Dataset(found, attrs=forecast.attrs)


def observed_product(product: xr.DataArray, observed: xr.DataArray) -> xr.DataArray:
    """What was observed, as a product of an ensemble can be compared with it.

    For a probability that is the event: 1 where the observation, in the units of the threshold, reached it, 0 where it
    did not; for all else the observation in the product's own units.

    Args:
        product: a variable that one of the functions above made, or any forecast variable.
        observed: in units that can be converted.

    Raises:
        InputError: units that cannot be converted.
    """
    unit = str(product.attrs.get("threshold_units", product.attrs.get("units", "")))
    if unit and not units.same(str(observed.attrs.get("units", "")), unit):
        observed = units.convert_units(observed, unit)
    if "threshold" not in product.attrs:
        return observed
    event = at_least(observed, product.attrs["threshold"]).astype(np.float32).where(observed.notnull())
    return event.assign_attrs(units="1")


def _ensembles(forecast: xr.Dataset) -> Iterator[tuple[str, xr.DataArray, dict[str, Any], str]]:
    """Name, field, attributes and number of members, in words, of each variable."""
    for name, field in forecast.data_vars.items():
        if REALIZATION not in field.dims:
            raise InputError(
                f"no ensemble in {name!r}",
                found=f"dims {field.dims}",
                allowed=f"a forecast with members, dim {REALIZATION!r}",
                remedy="make one with members=24, or cubecast forecast --members 24",
            )
        count = field.sizes[REALIZATION]
        attrs = {str(k): v for k, v in field.attrs.items()} | {"source_variable": str(name)}
        yield str(name), field, attrs, f"{count} member" + "s" * (count > 1)


def _word(number: float) -> str:
    """A number as part of a name: ``0.1`` as ``0p1``, ``-1.5`` as ``m1p5``."""
    return f"{number:g}".replace(".", "p").replace("-", "m").replace("+", "")
