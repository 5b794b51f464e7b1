"""How sure a score is: intervals by resampling the cases that it was pooled from."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from cubecast.errors import InputError, UsageError
from cubecast.scores.statistics import Statistics, case_dim, scores_from

RESAMPLE = "resample"
QUANTILES = (0.025, 0.975)
FEWEST_BLOCKS = 3
"""With fewer blocks among the cases there is no interval: nearly all resamples would be the same cases."""

Array = npt.NDArray[Any]


def intervals(sums: Statistics, *, resamples: int, block: int = 1, seed: int = 0) -> tuple[xr.Dataset, xr.Dataset]:
    """The 95 % percentile intervals of all scores of statistics that were kept per case.

    A case is one reference time with all its leads and pixels. As many cases as there are, are drawn again and again
    with replacement; their sums are pooled and made into scores; the 2.5 % and 97.5 % quantiles of these bound the
    interval. All systems and leads share the draws. Pixels and leads are not resampled: they are far from independent.

    Nor are neighbouring cases: two forecasts that start 5 minutes apart see nearly the same rain, so cases are drawn
    in blocks of neighbours (in the order of time, the last one followed by the first; gaps between events do not end
    a block). A block as long as the forecasts overlap is the least; rain that lasts for longer still makes the
    intervals too narrow, and nothing here knows of events that were not observed. With one or two events an interval
    speaks of the hours of these events. Where there are fewer than three blocks it is NaN.

    Künsch (1989), https://doi.org/10.1214/aos/1176347265 (blocks).

    Args:
        sums: of `statistics` or `verify_forecasts` with ``per_case``.
        resamples: how often cases are drawn; 1000 is enough for two digits.
        block: cases of a block.
        seed: of the draws: the same seed gives the same interval.

    Returns:
        The lower and the upper bounds, each like `scores_from` of the sums.

    Raises:
        InputError: sums of which the cases were not kept.
        UsageError: fewer than one resample or case of a block.
    """
    cases = case_dim(sums)
    if cases is None:
        raise InputError("a bootstrap", found="sums over all cases", allowed="sums of each case: per_case=True")
    if resamples < 1 or block < 1:
        raise UsageError("bootstrap", found=f"{resamples} resamples of blocks of {block}", allowed="1 or more of both")
    ordered = sums.sortby(cases) if cases in sums.coords else sums
    times = draw_cases(sums.sizes[cases], resamples=resamples, block=block, seed=seed)
    enough = sums.sizes[cases] >= FEWEST_BLOCKS * block
    # lead by lead, so that the resampled sums of all leads need not fit into memory
    lead = next(str(d) for d in sums.dims if str(d).startswith("lead_"))
    found = [_bounds(ordered.isel({lead: [k]}), cases, times) for k in range(sums.sizes[lead])]
    low, high = (xr.concat(parts, lead, join="exact") for parts in zip(*found, strict=True))
    return (low, high) if enough else (low * np.nan, high * np.nan)


def draw_cases(cases: int, *, resamples: int, block: int, seed: int) -> Array:
    """How often each case is in each resample, (resamples, cases); each row sums to the number of cases."""
    rng = np.random.default_rng(seed)
    blocks = -(-cases // block)
    start = rng.integers(0, cases, (resamples, blocks))
    drawn = ((start[:, :, None] + np.arange(block)) % cases).reshape(resamples, -1)[:, :cases]
    offset = drawn + cases * np.arange(resamples)[:, None]
    return np.bincount(offset.ravel(), minlength=resamples * cases).reshape(resamples, cases)


def _bounds(sums: Statistics, cases: str, times: Array) -> tuple[xr.Dataset, xr.Dataset]:
    """The two quantiles of the scores of each resample; NaN where no resample has the score."""
    weights = xr.DataArray(times.astype(float), dims=(RESAMPLE, cases))
    drawn = sums.map(lambda one: xr.dot(weights, one.drop_vars(cases, errors="ignore"), dim=cases), keep_attrs=True)
    scores = scores_from(drawn.assign_attrs(sums.attrs))
    bounds = [scores.map(_quantile, q=q) for q in QUANTILES]
    return bounds[0], bounds[1]


def _quantile(score: xr.DataArray, *, q: float) -> xr.DataArray:
    """The quantile over the resamples that have the score: numpy's own of nothing warns instead of being NaN."""
    if RESAMPLE not in score.dims:
        return score
    ordered = np.sort(score.transpose(RESAMPLE, ...).values.astype(float), axis=0)  # NaN last
    there = np.isfinite(ordered).sum(axis=0)
    place = q * np.maximum(there - 1, 0)
    low = np.floor(place).astype(int)
    first, second = (
        np.take_along_axis(ordered, i[None], 0)[0] for i in (low, np.minimum(low + 1, np.maximum(there - 1, 0)))
    )
    return score.isel({RESAMPLE: 0}).copy(data=np.where(there > 0, first + (place - low) * (second - first), np.nan))
