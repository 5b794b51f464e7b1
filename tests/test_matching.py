"""Probability matching: the forecast's order with the observed frame's values."""

import numpy as np
import pytest
import xarray as xr

import cubecast
from cubecast import match_distribution
from cubecast.baselines import persistence
from cubecast.errors import InputError


@pytest.fixture
def cube(rain) -> xr.DataArray:
    return rain(8)


def forecast_of(cube: xr.DataArray, change) -> xr.Dataset:
    made = persistence(cube, reference=cube.time.values[[2, 4]], horizon=3)
    return made.map(change, keep_attrs=True)


def test_every_field_gets_the_values_of_its_reference_frame_in_its_own_order(cube):
    forecast = forecast_of(cube, lambda f: f.roll(x=5) * 0.3 + 0.01)
    matched = match_distribution(forecast, cube)["rainfall_rate"]
    for i, at in enumerate((2, 4)):
        for lead in range(3):
            field, before = matched.values[i, lead], forecast["rainfall_rate"].values[i, lead]
            np.testing.assert_array_equal(np.sort(field, axis=None), np.sort(cube.values[at], axis=None))
            order = np.argsort(before, axis=None)
            assert (np.diff(field.ravel()[order]) >= 0).all()


def test_dry_stays_dry_and_missing_stays_missing(cube):
    holes = cube.copy()
    holes[:, :4, :4] = np.nan
    forecast = forecast_of(cube, lambda f: f.where(f.x > f.x[8], 0.0) * 0.5)
    forecast["rainfall_rate"][:, 1, -3:] = np.nan
    matched = match_distribution(forecast, holes)["rainfall_rate"]
    np.testing.assert_array_equal(matched.isnull(), forecast["rainfall_rate"].isnull())
    assert (matched.values[forecast["rainfall_rate"].values == 0] == 0).all()
    np.testing.assert_array_equal(matched[..., :4, :4], forecast["rainfall_rate"][..., :4, :4])


def test_what_may_be_below_zero_is_matched_there_too(cube):
    heat = (cube - cube.mean()).rename("t").assign_attrs(units="K", standard_name="")
    matched = match_distribution(forecast_of(heat, lambda f: 0.3 * f), heat)["t"]
    np.testing.assert_allclose(np.sort(matched[0, 0], axis=None), np.sort(heat[2], axis=None), rtol=1e-6)


def test_members_are_matched_one_by_one(cube):
    one = forecast_of(cube, lambda f: f * 0.5)
    members = xr.concat([one, one * 2], "realization").transpose("forecast_reference_time", "realization", ...)
    matched = match_distribution(members, cube)["rainfall_rate"]
    assert matched.dims == members["rainfall_rate"].dims
    np.testing.assert_array_equal(matched[:, 0], matched[:, 1])


def test_a_forecast_of_another_cube_is_refused(cube):
    with pytest.raises(InputError, match="is not in the cube"):
        match_distribution(forecast_of(cube, lambda f: f), cube[:4])


def test_verify_scores_it_beside_the_model(cube, rain):
    longer = rain(40)
    model = cubecast.Nowcaster(history=2, horizon=2, hidden_channels=[4], patch=2, crop=None, epochs=1).fit(longer)
    table = cubecast.verify(longer[20:], model, baselines=["persistence"], matched=True, thresholds=[0.1])
    assert list(table["system"].unique()) == ["model", "matched", "persistence"]
    spread = table.pivot_table(index="lead_step", columns="system", values="mse")
    assert (spread["matched"] != spread["model"]).any()
