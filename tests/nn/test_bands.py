"""Bands of scale: sums, smoothing, waves that belong to one of them."""

import math

import pytest
import torch
import xarray as xr
from scipy.ndimage import gaussian_filter

from cubecast.nn.bands import bend, split_bands, straighten
from cubecast.scaling.rain import LogRain


@pytest.mark.parametrize("bands", [1, 2, 6])
def test_bands_sum_to_the_field(bands: int) -> None:
    fields = torch.randn(2, 3, 2, 9, 31, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    parts = split_bands(fields, bands)
    assert parts.shape == (2, 3, 2 * bands, 9, 31)
    torch.testing.assert_close(parts.unflatten(2, (bands, 2)).sum(dim=2), fields)


def test_smoothing_is_that_of_scipy() -> None:
    field = torch.randn(1, 1, 1, 40, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    parts = split_bands(field, 4)[0, 0]
    for index, sigma in ((1, 1), (2, 2), (3, 4)):
        left = parts[index:].sum(dim=0).numpy()
        expected = gaussian_filter(field[0, 0, 0].numpy(), sigma, truncate=3, mode="nearest")
        torch.testing.assert_close(torch.from_numpy(left), torch.from_numpy(expected))


def test_a_wave_is_in_the_band_of_its_scale() -> None:
    place = torch.arange(256, dtype=torch.float64)
    found = []
    for length in (4, 16, 64):
        wave = torch.sin(2 * math.pi * place / length).expand(1, 1, 1, 256, 256)
        found.append(split_bands(wave, 5)[0, 0, :, 64:-64, 64:-64].square().mean(dim=(1, 2)).argmax().item())
    assert found == [0, 2, 4]


def test_rain_is_made_straight_by_the_curvature_of_its_scaling() -> None:
    rain = xr.DataArray([0.0, 0.05, 0.1, 3.0, 90.0], dims="x", attrs={"units": "mm h-1"})
    scaling = LogRain().fit([rain.expand_dims(time=2, y=1)])
    encoded = torch.from_numpy(scaling.encode(rain).values)[None, None, :]
    curvature = torch.tensor([[[scaling.curvature]]])
    straight = straighten(encoded, curvature)
    torch.testing.assert_close(straight[0, 0] / straight[0, 0, -1], torch.from_numpy(rain.values / 90).float())
    torch.testing.assert_close(bend(straight, curvature), encoded)
    assert torch.equal(bend(-straight, curvature), torch.zeros_like(encoded))
    flat = torch.zeros(1, 1, 1)
    assert torch.equal(straighten(-encoded, flat), -encoded)
    assert torch.equal(bend(-encoded, flat), -encoded)
