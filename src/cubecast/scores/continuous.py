"""Errors of values: MSE, RMSE, MAE, bias and correlation, as sums over points and as functions of those sums."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr
from scores.continuous import additive_bias, mae, mse

FLAT = 1e-12
"""A variance below this share of the mean square is rounding: the field is flat and has no correlation."""


def continuous_sums(
    forecast: xr.DataArray, observed: xr.DataArray, weights: xr.DataArray, *, over: Sequence[str]
) -> dict[str, xr.DataArray]:
    """Weighted sums over the dims ``over``; the error of each point comes from `scores.continuous`.

    Args:
        forecast: float64, finite everywhere.
        observed: the same.
        weights: 0 where a point does not count.
        over: dims to sum over.
    """

    def total(values: xr.DataArray, factor: xr.DataArray) -> xr.DataArray:
        return xr.dot(values, factor, dim=over)

    weighted_f, weighted_o = forecast * weights, observed * weights
    return {
        "weight": weights.sum(over, skipna=False),
        "error": total(additive_bias(forecast, observed, preserve_dims="all"), weights),
        "absolute_error": total(mae(forecast, observed, preserve_dims="all"), weights),
        "squared_error": total(mse(forecast, observed, preserve_dims="all"), weights),
        "forecast": weighted_f.sum(over, skipna=False),
        "observed": weighted_o.sum(over, skipna=False),
        "forecast_squared": total(forecast, weighted_f),
        "observed_squared": total(observed, weighted_o),
        "product": total(forecast, weighted_o),
    }


def continuous_scores(sums: xr.Dataset) -> dict[str, xr.DataArray]:
    """The scores of pooled sums; NaN where no point counts.

    With <.> the weighted mean over all points of a lead, f the forecast and o the observation::

        mse = <(f - o)^2>    rmse = sqrt(mse)    mae = <|f - o|>    bias = <f - o>
        corr = (<f o> - <f><o>) / sqrt((<f^2> - <f>^2) (<o^2> - <o>^2))     (Pearson, pooled)
    """
    weight = sums["weight"].where(sums["weight"] > 0)
    mean = {str(name): sums[name] / weight for name in sums.data_vars}
    spread_f = mean["forecast_squared"] - mean["forecast"] ** 2
    spread_o = mean["observed_squared"] - mean["observed"] ** 2
    varies = (spread_f > FLAT * mean["forecast_squared"]) & (spread_o > FLAT * mean["observed_squared"])
    covariance = mean["product"] - mean["forecast"] * mean["observed"]
    return {
        "mse": mean["squared_error"],
        "rmse": mean["squared_error"] ** 0.5,
        "mae": mean["absolute_error"],
        "bias": mean["error"],
        "corr": covariance.where(varies) / (spread_f * spread_o).where(varies) ** 0.5,
    }
