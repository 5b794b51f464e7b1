"""Statistics of rain: known fields have the numbers that they were made with, and generated rain has those of radar."""

import numpy as np
import pytest
import xarray as xr

from cubecast import generate_rain
from cubecast.errors import InputError
from cubecast.rain_statistics import WAVELENGTHS, rain_statistics, summary
from cubecast.sources.synthetic import Flow


def cube_of(values, *, grid_km=1.0, minutes=5.0):
    like = generate_rain(frames=len(values), size=values.shape[1:], grid_km=grid_km, step_minutes=minutes)
    return like.copy(data=values.astype(np.float32))


@pytest.fixture(scope="module")
def frozen():
    """Rain that moves 9 m s-1 to the east, and does not change."""
    flow = Flow(speed=9.0, direction=90.0)
    return generate_rain(frames=20, size=(160, 160), seed=3, life_time=1e7, flow=flow, wet_fraction=0.5)


def test_amounts_of_a_field_that_is_half_wet():
    values = np.zeros((20, 128, 128))
    values[:, :64] = np.linspace(1, 9, 128)
    values[10:, :64, :64] = np.nan
    found = rain_statistics(cube_of(values), cases=1)
    np.testing.assert_allclose(found["wet_fraction"][:10], 0.5)
    np.testing.assert_allclose(found["wet_fraction"][10:], 1 / 3)
    row = summary(found)
    assert row["wet"] == pytest.approx(5 / 12)
    # Of four tiles two are wet; in the second half one of them is unknown.
    assert row["wet_tiles"] == pytest.approx(3 / 7)
    assert row["dry_tiles"] == pytest.approx(4 / 7)
    assert 5 < row["q50"] < 7
    assert row["q99.9"] == pytest.approx(9, abs=0.1)


def test_rain_that_only_moves_lives_for_ever(frozen):
    found = rain_statistics(frozen, cases=2)
    assert float(found["speed"]) == pytest.approx(9, abs=0.3)
    assert float(found["vorticity"]) < 2e-5
    assert float(found["divergence"]) < 2e-5
    assert float(found["veering"]) < 0.5
    assert float(found["growth"]) < 0.1
    assert found["correlation"].sel(scale=[16, 32, 64]).min() > 0.97
    assert found["lifetime"].sel(scale=[16, 32, 64]).min() > 300
    assert np.isnan(found["lifetime"].sel(scale=128)), "half of the field is narrower than that"


def test_rain_that_fades_is_decay_at_all_scales(frozen):
    fading = frozen * np.exp(-np.arange(20) * 5 / 60)[:, None, None]
    found = rain_statistics(fading.assign_attrs(frozen.attrs), cases=1)
    # Half an hour takes ln(1 + ...) = 0.5 off, a little more where drizzle falls below what counts as rain.
    assert float(found["growth"]) == pytest.approx(0.5, abs=0.1)


def test_missing_pixels_change_little(frozen):
    whole = summary(rain_statistics(frozen, cases=1))
    holed = frozen.copy()
    holed[:, :40, :40] = np.nan
    part = summary(rain_statistics(holed, cases=1))
    for name in ("wet", "q50", "speed", "slope_small"):
        assert part[name] == pytest.approx(whole[name], rel=0.15)


def test_the_spectrum_has_the_slope_of_its_field():
    rng = np.random.default_rng(0)
    k = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256))
    for slope in (2.0, 3.0):
        power = np.maximum(k, 1 / 256) ** (-slope / 2)
        fields = np.stack([np.fft.irfft2(power * np.fft.rfft2(rng.standard_normal((256, 256)))) for _ in range(20)])
        found = rain_statistics(cube_of(2 * np.exp(0.3 * fields / fields.std())), cases=1)
        assert float(found["slope_large"]) == pytest.approx(slope, abs=0.3)
        assert float(found["slope_small"]) == pytest.approx(slope, abs=0.2)


def test_new_fields_each_frame_do_not_live():
    rng = np.random.default_rng(1)
    found = rain_statistics(cube_of(rng.lognormal(0, 1, (20, 96, 96))), cases=1)
    assert found["lifetime"].sel(scale=8) < 3


def test_dry_rain_has_no_strength():
    row = summary(rain_statistics(cube_of(np.zeros((20, 64, 64))), cases=1))
    assert (row["wet"], row["dry_tiles"]) == (0, 1)
    assert np.isnan([row["q50"], row["mean"], row["speed"], row["growth"], row["life_16km"]]).all()


# What the docstring of generate_rain states.
STATED = {
    "slope_large": (0.5, 3.8), "slope_small": (1.8, 4.0), "speed": (2.0, 32.0), "vorticity": (1e-5, 2e-4),
    "divergence": (1e-5, 2.5e-4), "growth": (0.1, 2.0), "life_16km": (10, 120), "life_64km": (25, 600),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["stratiform", "convective"])
@pytest.mark.parametrize(("grid_km", "minutes"), [(1.0, 5.0), (2.0, 5.0), (1.0, 10.0), (2.0, 10.0)])
def test_generated_rain_has_the_statistics_of_radar_rain(grid_km, minutes, kind):
    seed = int(grid_km * 10 + minutes)
    cube = generate_rain(frames=18, size=(192, 192), grid_km=grid_km, step_minutes=minutes, seed=seed, kind=kind)
    statistics = rain_statistics(cube, cases=1)
    row = summary(statistics)
    for name, (low, high) in STATED.items():
        assert low <= row[name] <= high, f"{name} of {row[name]:.3g}"
    lives = statistics["lifetime"].dropna("scale").values
    assert len(lives) >= 4
    assert (np.diff(lives) > 0).all(), "small scales die first"


def test_grids_without_lengths_and_short_cubes_are_refused(frozen):
    with pytest.raises(InputError, match="statistics of rain: found 14 frames; allowed: 15 in a row or more"):
        rain_statistics(frozen[:14])
    bare = xr.DataArray(frozen.values, dims=frozen.dims, coords={"time": frozen.time}, attrs={"units": "mm h-1"})
    with pytest.raises(InputError, match="statistics of rain: found cells of unknown size"):
        rain_statistics(bare)


def test_scales_are_octaves():
    np.testing.assert_allclose(np.diff(np.log2(WAVELENGTHS)), 1)
