"""Forecasts with the distribution of what was observed: against blur, at the price of larger errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from cubecast.baselines import find_references
from cubecast.cube import select_channel, sequence_dim, space_dims
from cubecast.product import names
from cubecast.units import is_rain_rate

Array = npt.NDArray[Any]


def match_distribution(forecast: xr.Dataset, cube: xr.DataArray) -> xr.Dataset:
    """Give every field of a forecast the values of the last observed frame, in the forecast's own order.

    The wettest pixel of the forecast gets the highest observed rate, and so on down (probability matching)

        m(x) = F_o^-1(F_f(f(x)))

    with F_f the distribution of the field at one lead and F_o that of the frame at the reference time, both over the
    pixels where both are finite. Where a rain rate is 0 it stays 0. A mean forecast blurs with lead: it has too little
    heavy and too much light rain. A matched one has as much of each as was observed, so that thresholds mean what they
    say; its mean squared error is larger. Made for rain; each variable is matched on its own.

    Of an ensemble each member is matched by itself: all then have the same amounts, and what they said of more or less
    rain is lost. For one forecast of an ensemble match its mean (`cubecast.ensemble_mean`).

    Args:
        forecast: of `cubecast.Nowcaster.predict` or a baseline.
        cube: the observed frames that it was made from.

    Raises:
        InputError: a reference time that is not in the cube.

    Source: Ebert (2001), DOI 10.1175/1520-0493(2001)129<2461:AOAPMS>2.0.CO;2.
    """
    dim = sequence_dim(cube)
    ref_name = names(dim)[0]
    index = find_references(cube, forecast[ref_name].values)
    matched = forecast.copy()
    for name in map(str, forecast.data_vars):
        frames = select_channel(cube, name)
        dry = 0.0 if is_rain_rate(str(frames.attrs["units"]), str(frames.attrs.get("standard_name", ""))) else -np.inf
        field = forecast[name].transpose(ref_name, ..., *space_dims(cube))
        values = field.values.copy()
        for one, at in zip(values, index, strict=True):
            observed = frames.isel({dim: int(at)}).values
            for lead in one.reshape(-1, *observed.shape):  # views: members and leads
                lead[...] = _matched(lead, observed, dry)
        matched[name] = field.copy(data=values).transpose(*forecast[name].dims)
    matched.attrs["post_processing"] = "distribution matched to that of the last observed frame"
    return matched


def _matched(field: Array, observed: Array, dry: float) -> Array:
    both = np.isfinite(field) & np.isfinite(observed)
    result = field.copy()
    values = field[both]
    wanted = np.empty_like(values)
    wanted[np.argsort(values, kind="stable")] = np.sort(observed[both])
    result[both] = np.where(values > dry, wanted, values)
    return result
