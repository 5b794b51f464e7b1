"""Structural similarity against its definition window by window, and against scikit-image."""

import numpy as np
import pytest

from cubecast.errors import UsageError
from cubecast.scores import structural_similarity

WINDOWS = ["gaussian", "uniform"]


def images(*shape: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A forecast and an observation in [0, 1] that are somewhat alike, with flat parts."""
    rng = np.random.default_rng(seed)
    truth = np.where(rng.random(shape) < 0.4, 0.0, rng.random(shape))
    truth[..., :8, :8] = 0.0
    return (0.7 * truth + 0.3 * rng.random(shape)).astype(np.float32), truth.astype(np.float32)


def by_windows(forecast: np.ndarray, observed: np.ndarray, window: str, value_range: float) -> float:
    side = 11 if window == "gaussian" else 7
    y, x = np.mgrid[:side, :side] - side // 2
    w = np.exp(-(x**2 + y**2) / (2 * 1.5**2)) if window == "gaussian" else np.ones((side, side))
    w /= w.sum()
    found = []
    for i in range(forecast.shape[0] - side + 1):
        for j in range(forecast.shape[1] - side + 1):
            f, o = (a[i : i + side, j : j + side].astype(float) for a in (forecast, observed))
            m_f, m_o = (w * f).sum(), (w * o).sum()
            bessel = 1.0 if window == "gaussian" else side**2 / (side**2 - 1)
            v_f, v_o, c = (bessel * (w * a * b).sum() for a, b in ((f - m_f,) * 2, (o - m_o,) * 2, (f - m_f, o - m_o)))
            c1, c2 = (0.01 * value_range) ** 2, (0.03 * value_range) ** 2
            found.append((2 * m_f * m_o + c1) * (2 * c + c2) / ((m_f**2 + m_o**2 + c1) * (v_f + v_o + c2)))
    return float(np.mean(found))


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("value_range", [1.0, 255.0])
def test_it_is_its_definition(window, value_range) -> None:
    forecast, observed = (value_range * a for a in images(2, 3, 14, 17))
    found = structural_similarity(forecast, observed, window=window, value_range=value_range)
    assert found.shape == (2, 3)
    for case in np.ndindex(2, 3):
        expected = by_windows(forecast[case], observed[case], window, value_range)
        assert found[case] == pytest.approx(expected, abs=1e-10)
    assert 0.2 < found.mean() < 0.99


@pytest.mark.parametrize("window", WINDOWS)
def test_it_agrees_with_scikit_image(window) -> None:
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image comes with the extra cubecast[pysteps]")
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False} if window == "gaussian" else {}
    for seed in range(4):
        forecast, observed = images(40, 33, seed=seed)
        theirs = metrics.structural_similarity(
            forecast.astype(float), observed.astype(float), data_range=1.0, **options
        )
        assert structural_similarity(forecast, observed, window=window) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("window", WINDOWS)
def test_equal_images_are_one_and_opposite_ones_below_zero(window) -> None:
    _, observed = images(20, 20)
    assert structural_similarity(observed, observed, window=window) == pytest.approx(1)
    assert structural_similarity(np.zeros((12, 12)), np.zeros((12, 12)), window=window) == 1
    assert structural_similarity(1 - observed[8:], observed[8:], window=window) < 0
    assert np.isnan(structural_similarity(np.where(observed > 0.9, np.nan, observed), observed, window=window))


def test_what_cannot_be_compared_is_refused() -> None:
    forecast, observed = images(20, 20)
    with pytest.raises(UsageError, match=r"images of the SSIM: found \(20, 20\) and \(20, 19\)"):
        structural_similarity(forecast, observed[:, :19])
    with pytest.raises(UsageError, match="11 pixels or more"):
        structural_similarity(forecast[:10], observed[:10])
    assert np.isfinite(structural_similarity(forecast[:7], observed[:7], window="uniform"))
    with pytest.raises(UsageError, match="found square; allowed: gaussian, uniform"):
        structural_similarity(forecast, observed, window="square")
    with pytest.raises(UsageError, match="value_range of the SSIM: found 0"):
        structural_similarity(forecast, observed, value_range=0)
