"""Generated forecasts and observations for the score tests."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

Pair = tuple[xr.DataArray, xr.DataArray]


@pytest.fixture(scope="session")
def rain_pair() -> Callable[..., Pair]:
    """``rain_pair(cases=5, leads=3, size=(20, 24), missing=0.1)``: a skewed, intermittent forecast and truth."""

    def make(cases: int = 5, leads: int = 3, size: tuple[int, int] = (20, 24), *, missing: float = 0.1) -> Pair:
        rng = np.random.default_rng(7)
        shape = (cases, leads, *size)
        truth = np.where(rng.random(shape) < 0.5, 0.0, rng.gamma(0.6, 4.0, shape))
        guess = np.clip(0.7 * truth + rng.normal(0, 1.0, shape), 0, None)
        guess[rng.random(shape) < missing] = np.nan
        truth[rng.random(shape) < missing] = np.nan
        start = np.datetime64("2020-06-01", "ns")
        coords = {
            "forecast_reference_time": start + np.arange(cases) * np.timedelta64(15, "m"),
            "lead_time": np.arange(1, leads + 1) * np.timedelta64(5, "m").astype("timedelta64[ns]"),
        }
        dims = ("forecast_reference_time", "lead_time", "y", "x")
        return xr.DataArray(guess, dims=dims, coords=coords), xr.DataArray(truth, dims=dims)

    return make
