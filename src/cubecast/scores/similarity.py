"""Structural similarity of images: whether luminance, contrast and structure agree from window to window."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import correlate1d

from cubecast.errors import UsageError

SIGMA, RADIUS = 1.5, 5
"""Of the Gaussian window, in pixels: 11 x 11 of them."""
SQUARE = 7
"""Side of the uniform window."""

Array = npt.NDArray[Any]


def structural_similarity(
    forecast: Array, observed: Array, *, window: Literal["gaussian", "uniform"] = "gaussian", value_range: float = 1.0
) -> Array:
    """The mean SSIM of each pair of images, over all windows that lie inside of the image.

        SSIM = (2 m_f m_o + C1) (2 s_fo + C2) / ((m_f^2 + m_o^2 + C1) (s_f^2 + s_o^2 + C2))

    m, s^2 and s_fo are weighted means, variances and the covariance in the window; C1 = (0.01 L)^2, C2 = (0.03 L)^2. It
    is 1 for equal images, and at least -1.

    Wang et al. (2004), DOI 10.1109/TIP.2003.819861.

    Args:
        forecast, observed: images (..., y, x) of the same shape.
        window: ``gaussian``, 11 x 11 pixels with a standard deviation of 1.5, as the paper has it; ``uniform``, 7 x 7
            pixels and the variance of a sample (N - 1), the default of scikit-image, which papers on video report.
        value_range: L, the difference of the largest and the smallest value that an image can have.

    Returns:
        One number a pair of images (...), float64; NaN where a value is missing.

    Raises:
        UsageError: shapes that differ, images smaller than the window, another window, no range.
    """
    if window not in ("gaussian", "uniform"):
        raise UsageError("window of the SSIM", found=window, allowed="gaussian, uniform")
    if not value_range > 0:
        raise UsageError("value_range of the SSIM", found=value_range, allowed="above 0")
    weights = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / SIGMA) ** 2) if window == "gaussian" else np.ones(SQUARE)
    weights /= weights.sum()
    if forecast.shape != observed.shape or forecast.ndim < 2 or min(forecast.shape[-2:]) < len(weights):
        found = f"{forecast.shape} and {observed.shape}"
        raise UsageError("images of the SSIM", found=found, allowed=f"one shape, {len(weights)} pixels or more a side")
    f, o = forecast.astype(np.float64), observed.astype(np.float64)
    m_f, m_o, ff, oo, fo = (_means(a, weights) for a in (f, o, f * f, o * o, f * o))
    sample = 1.0 if window == "gaussian" else SQUARE**2 / (SQUARE**2 - 1)
    c1, c2 = (0.01 * value_range) ** 2, (0.03 * value_range) ** 2
    above = (2 * m_f * m_o + c1) * (2 * sample * (fo - m_f * m_o) + c2)
    below = (m_f**2 + m_o**2 + c1) * (sample * (ff - m_f**2 + oo - m_o**2) + c2)
    return np.asarray((above / below).mean(axis=(-2, -1)))


def _means(values: Array, weights: Array) -> Array:
    """Weighted means over the windows that lie inside of the last two dims."""
    edge = slice(len(weights) // 2, -(len(weights) // 2))
    return np.asarray(correlate1d(correlate1d(values, weights, axis=-1), weights, axis=-2)[..., edge, edge])
