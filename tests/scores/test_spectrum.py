import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import gaussian_filter

from cubecast.errors import UsageError
from cubecast.scores import scores_from, statistics
from cubecast.scores.spectrum import spectrum_scores

DIMS = ("forecast_reference_time", "lead_time", "y", "x")
LEAD = {"lead_time": np.array([5], "timedelta64[m]").astype("timedelta64[ns]")}


def _field(values):
    return xr.DataArray(np.asarray(values, float)[None, None], dims=DIMS, coords=LEAD)


def _waves(*amplitudes, size=(48, 64)):
    """Waves of 16 cells along x and 4 cells along y."""
    y, x = np.meshgrid(*map(np.arange, size), indexing="ij")
    return _field(amplitudes[0] * np.cos(2 * np.pi * x / 16) + amplitudes[1] * np.cos(2 * np.pi * y / 4) + 7.0)


def _noise(size=(40, 50), seed=0):
    return gaussian_filter(np.random.default_rng(seed).normal(size=size), 1.0)


def test_power_stands_at_its_wavelength_and_sums_to_the_variance():
    sums = statistics(_waves(2, 1), _waves(2, 2), cell=0.5).isel(lead_time=0)
    power = sums["power_forecast"] * sums["waves"]
    for length, variance in ((8.0, 2.0), (2.0, 0.5)):  # amplitude a has variance a^2 / 2; 16 and 4 cells of 0.5
        near = power.where(np.abs(np.log2(power["wavelength"] / length)) < 0.75).sum().item()
        assert near == pytest.approx(variance, rel=0.02)
    assert power.sum().item() == pytest.approx(2.5, rel=0.02)
    ratio = scores_from(sums)["power_ratio"]
    assert ratio.sel(wavelength=8.0, method="nearest").item() == pytest.approx(1.0, rel=0.01)
    assert ratio.sel(wavelength=2.0, method="nearest").item() == pytest.approx(0.25, rel=0.01)


def test_blur_by_hand():
    # from the shortest wave on, observed power adds up to 1, 2, 6, that of the forecast to 0, 1/4, 17/4
    sums = xr.Dataset(
        {"power_forecast": ("wavelength", [4.0, 0.25, 0.0]), "power_observed": ("wavelength", [2.0, 0.5, 0.25])},
        coords={"wavelength": [8.0, 4.0, 2.0], "waves": ("wavelength", [1, 1, 1])},
    ).assign(cases=1)
    sums["power_observed"] = sums["power_observed"] * [2, 2, 4]
    # shares 0, 1/8 and 17/24: one half lies 9/14 of the way from 4 to 8
    assert spectrum_scores(sums)["blur"].item() == pytest.approx(4 * 2 ** (9 / 14))
    assert spectrum_scores(sums)["power"].item() == pytest.approx(17 / 24)
    weak = sums.assign(power_forecast=0.3 * sums["power_observed"])
    assert spectrum_scores(weak)["blur"].item() == pytest.approx(8.0)
    assert spectrum_scores(weak)["power"].item() == pytest.approx(0.3)
    assert spectrum_scores(sums.assign(power_forecast=sums["power_observed"]))["blur"].item() == 0
    twice = sums.assign(waves=2 * sums["waves"], cases=3)
    xr.testing.assert_allclose(spectrum_scores(twice)["blur"], spectrum_scores(sums)["blur"])


def test_a_displaced_forecast_is_not_blurred_and_a_smooth_one_is_the_more_the_smoother():
    truth = _noise()
    blur = [
        scores_from(statistics(_field(gaussian_filter(truth, s)), _field(truth), cell=1.0))["blur"] for s in (0.5, 1)
    ]
    moved = scores_from(statistics(_field(np.roll(truth, 5, 1)), _field(truth), cell=1.0))["blur"].item()
    assert moved < 3
    assert 3 < blur[0].item() < blur[1].item() < 30


def test_missing_points_and_the_mean_do_not_matter():
    truth, guess = _noise(), _noise(seed=1)
    truth[5:9, 30:] = np.nan
    filled = np.where(np.isnan(truth), 1e6, guess)
    sums = [statistics(_field(f), _field(truth), cell=1.0) for f in (guess, filled, guess + 3.0)]
    for other in sums[1:]:
        np.testing.assert_allclose(other["power_forecast"], sums[0]["power_forecast"], rtol=1e-9)
    empty = scores_from(statistics(_field(guess), _field(truth * np.nan), cell=1.0))
    assert np.isnan(empty["blur"].item())
    assert empty["power_ratio"].isnull().all()


def test_the_power_of_an_ensemble_is_that_of_its_members_and_not_of_their_mean():
    members = [_field(_noise(seed=s)) for s in (1, 2, 3)]
    truth = _field(_noise())
    found = statistics(xr.concat(members, "realization"), truth, cell=1.0)["power_forecast"]
    each = sum(statistics(m, truth, cell=1.0)["power_forecast"] for m in members) / 3
    np.testing.assert_allclose(found, each, rtol=1e-12)


@pytest.mark.parametrize("size", [(9, 12), (12, 9), (8, 8)])
def test_all_waves_up_to_two_cells_are_counted_once(size):
    noise = np.random.default_rng(0).normal(size=size)
    sums = statistics(_field(noise), _field(noise), cell=1.0)
    k = np.hypot(np.fft.fftfreq(size[0])[:, None], np.fft.fftfreq(size[1]))
    assert sums["waves"].sum().item() == ((k > 0) & (k <= 0.5)).sum()


def test_series_and_tiny_fields_have_no_spectrum():
    with pytest.raises(UsageError, match="a spectrum: found fields of 7 x 9 cells; allowed: 8 or more"):
        statistics(_field(np.ones((7, 9))), _field(np.ones((7, 9))), cell=1.0)
    with pytest.raises(UsageError, match="a spectrum: found space dims"):
        statistics(_field(np.ones((9, 9)))[..., 0], _field(np.ones((9, 9)))[..., 0], cell=1.0)
