"""Bands of scale: sums, smoothing, waves that belong to one of them."""

import math

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.ndimage import gaussian_filter

from cubecast.nn.bands import (
    LAGS,
    LEAST,
    NEAR,
    REACH,
    UNSEEN,
    bend,
    extend,
    fading_rates,
    known,
    persistences,
    smooth,
    split_bands,
    straighten,
)
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


@pytest.mark.parametrize(("beyond", "mode"), [("replicate", "nearest"), ("constant", "constant")])
@pytest.mark.parametrize("size", [(30, 200), (200, 30), (50, 60), (7, 5), (200, 300)])
def test_narrow_and_wide_smoothings_are_those_of_scipy(size: tuple[int, int], beyond: str, mode: str) -> None:
    fields = torch.randn(2, 1, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    expected = gaussian_filter(fields.numpy(), (0, 0, 3, 3), truncate=3, mode=mode)
    torch.testing.assert_close(smooth(fields, 3.0, beyond=beyond), torch.from_numpy(expected))


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


def fading(size: int, *, kept: tuple[float, ...], frames: int = 5) -> torch.Tensor:
    """(1, time, band, 1, y, x): of each band white noise of which so much is kept every step (order 1)."""
    generator = torch.Generator().manual_seed(4)
    fields = [torch.randn(len(kept), 1, size, size, generator=generator)]
    share = torch.tensor(kept)[:, None, None, None]
    for _ in range(frames - 1):
        new = torch.randn(fields[0].shape, generator=generator)
        fields.append(share * fields[-1] + (1 - share**2).sqrt() * new)
    return torch.stack(fields)[None]


def test_fading_is_found_as_fast_as_it_was() -> None:
    parts = fading(160, kept=(0.4, 0.9))
    rates = fading_rates(parts, torch.ones(1, 1, 160, 160))
    assert rates.shape == (1, 2, 1, 160, 160)
    for rate, kept in zip(rates[0, :, 0], (0.4, 0.9), strict=True):
        torch.testing.assert_close(rate, torch.full_like(rate, -math.log(kept)), rtol=0.15, atol=0.0)


def test_fading_is_that_of_the_place() -> None:
    slow, fast = fading(480, kept=(0.95,)), fading(480, kept=(0.3,))
    parts = torch.where(torch.arange(480) < 240, slow, fast)
    rates = fading_rates(parts, torch.ones(1, 1, 480, 480))[0, 0, 0]
    torch.testing.assert_close(rates[:, :40], torch.full((480, 40), -math.log(0.95)), rtol=0.2, atol=0.0)
    torch.testing.assert_close(rates[:, -40:], torch.full((480, 40), -math.log(0.3)), rtol=0.2, atol=0.0)


def test_what_was_not_seen_does_not_count_and_what_is_dry_stays_finite() -> None:
    parts = fading(160, kept=(0.9,))
    seen = torch.ones(1, 1, 160, 160)
    seen[..., :70] = 0
    spoilt = torch.where(seen > 0, parts, torch.randn(parts.shape, generator=torch.Generator().manual_seed(5)))
    assert torch.equal(fading_rates(parts, seen), fading_rates(spoilt, seen))
    dry = fading_rates(torch.zeros_like(parts), seen)
    torch.testing.assert_close(dry, torch.full_like(dry, -math.log(LEAST) * 6 / 14))
    assert LAGS == 3, "the numbers of the line before"


def test_what_was_never_seen_is_the_mean_of_what_is_around() -> None:
    """As a normalized convolution in the middle of a hole, but for the cells; nothing far away."""
    fields = 2 + torch.randn(1, 1, 200, 480, generator=torch.Generator().manual_seed(6))
    seen = torch.ones(1, 1, 200, 480)
    seen[..., 80:120, 80:120] = seen[..., 160:] = 0
    spoilt = torch.where(seen > 0, fields, 99.0)
    found = extend(spoilt, seen)
    assert torch.equal(found[seen > 0], fields[seen > 0])
    blurred = [gaussian_filter(f[0, 0].numpy(), UNSEEN, mode="constant", truncate=REACH) for f in (fields * seen, seen)]
    around = torch.from_numpy(blurred[0] / np.maximum(blurred[1], 1e-6))
    torch.testing.assert_close(found[0, 0, 80:120, 80:120], around[80:120, 80:120], rtol=0.02, atol=0.0)
    torch.testing.assert_close(found[0, 0, :, 160:220], around[:, 160:220], rtol=0.05, atol=0.0)
    assert (found[..., 160 + REACH * UNSEEN + 24 :] == 0).all()
    assert torch.equal(extend(fields, torch.ones_like(seen)), fields)


def test_how_well_it_is_known_goes_from_0_at_the_edge_of_what_was_seen_to_1() -> None:
    """As 2 Phi(x / NEAR) - 1, x pixels away from a straight edge; the edge of the grid is none."""
    seen = torch.ones(1, 1, 90, 420)
    seen[..., :200] = 0
    share = known(seen)[0, 0]
    away = (torch.arange(200, 420) + 0.5 - 200) / NEAR
    torch.testing.assert_close(share[:, 200:], torch.erf(away / math.sqrt(2)).expand(90, -1), rtol=0, atol=0.1)
    assert (share[:, :196] == 0).all()
    whole = known(torch.ones_like(seen))
    torch.testing.assert_close(whole, torch.ones_like(whole))


@pytest.mark.parametrize(("kept", "expected"), [(0.7, 0.7), (0.2, 0.2), (-0.6, 0.0)])
def test_changes_go_on_as_they_did(kept: float, expected: float) -> None:
    changes = fading(160, kept=(kept,), frames=6)
    found = persistences(changes.cumsum(dim=1), torch.ones(1, 1, 160, 160))
    torch.testing.assert_close(found, torch.full_like(found, expected), rtol=0.15, atol=0.02)


def test_two_frames_have_one_change_of_which_nothing_is_known() -> None:
    assert not persistences(fading(32, kept=(0.9,), frames=2), torch.ones(1, 1, 32, 32)).any()
