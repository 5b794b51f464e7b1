"""What goes into a network beside the values: where a pixel is, and when a frame is."""

import json

import numpy as np
import pytest
import torch
import xarray as xr

from cubecast.channels import Channels, preset_for
from cubecast.config import Config, ScalingConfig
from cubecast.errors import ModelMismatchError, UsageError
from cubecast.nowcaster import Nowcaster


def ocean(years=5, lat=(-30.0, 0.0, 60.0), lon=(0.0, 90.0, 180.0, 358.0), seed=0):
    """Monthly temperatures (time, lat, lon) with a season and noise."""
    time = (np.datetime64("2000-01") + np.arange(12 * years)).astype("M8[ns]")
    rng = np.random.default_rng(seed)
    season = np.cos(2 * np.pi * np.arange(12 * years) / 12)[:, None, None]
    values = 15 + 4 * season + rng.normal(0, 0.5, (12 * years, len(lat), len(lon)))
    coords = {
        "time": time,
        "lat": ("lat", np.array(lat), {"units": "degrees_north"}),
        "lon": ("lon", np.array(lon), {"units": "degrees_east"}),
    }
    return xr.DataArray(
        values.astype(np.float32), dims=("time", "lat", "lon"), coords=coords, attrs={"units": "degC"}, name="sst"
    )


def channels(cube, **known):
    return Channels.fit([cube], outputs=None, scaling=ScalingConfig(), mask_channel=True, **known)


def test_the_preset_is_that_of_the_kind_of_data(rain):
    monthly, showers = ocean(), rain(4)
    daily = monthly.assign_coords(time=monthly.time[0].values + np.arange(60) * np.timedelta64(1, "D"))
    found = [preset_for(c) for c in (monthly, daily, showers, showers.assign_attrs(units="dBZ"), monthly[:, 0, 0])]
    assert found == ["sst", "general", "rain", "rain", "series"]
    assert Config.preset("general") == Config()


def test_position_is_the_point_on_the_unit_sphere():
    cube = ocean()
    planes = channels(cube, position=True).static_planes(None, cube)
    assert planes.shape == (3, 3, 4)
    np.testing.assert_allclose((planes**2).sum(axis=0), 1, rtol=1e-6)
    np.testing.assert_allclose(planes[:, 1, 1], [0, 1, 0], atol=1e-7)  # 0 N, 90 E
    np.testing.assert_allclose(planes[:, 2, 2], [-0.5, 0, np.sqrt(0.75)], atol=1e-6)  # 60 N, 180 E
    west, east = planes[:, 1, 3], planes[:, 1, 0]  # two degrees apart across the seam
    assert np.linalg.norm(west - east) == pytest.approx(np.radians(2), rel=1e-3)


def test_season_is_the_time_of_year_of_each_frame():
    cube = ocean()
    fitted = channels(cube, season=True)
    times = np.array(["2001-01-01", "2001-07-02T12:00", "2004-12-31T23:59"], "M8[ns]")
    encoded = fitted.encode(cube[:3])
    frames = fitted.frames(encoded, None, times)
    assert frames.shape == (3, 4, 3, 4)
    assert fitted.count_in == 4
    assert (frames[:, 2:] == frames[:, 2:, :1, :1]).all()
    np.testing.assert_allclose(frames[:, 2:, 0, 0], [[1, 0], [-1, 0], [1, 0]], atol=1e-3)
    np.testing.assert_array_equal(frames[:, 0], encoded[:, 0])


def test_known_fields_are_the_last_channels_and_are_kept_in_the_record():
    cube = ocean()
    static = xr.Dataset({"depth": (("lat", "lon"), np.arange(12.0).reshape(3, 4))})
    fitted = channels(cube, position=True, season=True, static=[static])
    assert (fitted.count_known, fitted.count_in) == (6, 8)
    planes = fitted.static_planes(static, cube)
    plain = channels(cube, static=[static]).static_planes(static, cube)
    for other in (static.assign_coords(lat=cube.lat + 30), static.rename(lat="y", lon="x"), static.isel(lat=[0, 1])):
        with pytest.raises(ModelMismatchError, match=r"static field 'depth' on another grid: found .*interp_like"):
            fitted.static_planes(other, cube)
    np.testing.assert_array_equal(planes[:1], plain)
    again = Channels.from_json(json.loads(json.dumps(fitted.to_json())), fitted.arrays())
    np.testing.assert_array_equal(
        again.frames(again.encode(cube[:2]), planes, cube.time.values[:2]),
        fitted.frames(fitted.encode(cube[:2]), planes, cube.time.values[:2]),
    )


def test_position_and_season_need_a_place_and_a_time(rain):
    with pytest.raises(UsageError, match=r"setting position: found grid \('y', 'x'\); allowed: a grid of latitude"):
        Nowcaster(history=3, horizon=2, hidden_channels=[4], crop=16, epochs=1, position=True).fit(rain(30))
    depth = xr.DataArray(
        np.random.default_rng(0).random(60), dims="depth", coords={"depth": ("depth", np.arange(60.0), {"units": "m"})},
        attrs={"units": "API"}, name="gamma_ray",
    )  # fmt: skip
    with pytest.raises(UsageError, match="setting season: found a sequence without times"):
        Nowcaster(Config.preset("series", season=True, epochs=1, history=4)).fit(depth)


def test_values_that_cannot_be_negative_are_not_negated(rain):
    with pytest.raises(UsageError, match=r"setting negate: found scaling \['log'\]; allowed: monthly_anomaly"):
        Nowcaster(history=3, horizon=2, hidden_channels=[4], crop=16, epochs=1, negate=True).fit(rain(30))


def test_a_model_with_position_and_season_uses_them_and_comes_back_from_disk(tmp_path):
    cube = ocean(lat=np.arange(-8.0, 8), lon=np.arange(16.0))
    model = Nowcaster(
        history=2, horizon=2, hidden_channels=[4], patch=2, crop=8, epochs=2, learning_rate=1e-2, position=True,
        season=True, harmonics=2,
    ).fit(cube)  # fmt: skip
    forecast = model.predict(cube)
    xr.testing.assert_identical(Nowcaster.load(model.save(tmp_path / "m")).predict(cube), forecast)
    later = cube.assign_coords(time=(np.datetime64("2000-01") + 12 + np.arange(cube.shape[0])).astype("M8[ns]"))
    np.testing.assert_allclose(model.predict(later)["sst"], forecast["sst"], rtol=1e-3)  # a year later: the same season
    inputs = torch.zeros((1, 2, 7, 16, 16), requires_grad=True)
    model.network(inputs, 2).sum().backward()
    assert (inputs.grad.abs().sum(dim=(0, 1, 3, 4))[2:] > 0).all(), "every known channel matters"


def test_a_model_of_one_variable_takes_it_by_any_name():
    cube = ocean()
    fitted = channels(cube)
    other = xr.concat([cube.rename("t")], dim="channel").transpose("time", "channel", ...)
    other = other.assign_coords(channel=["t"], channel_units=("channel", ["degC"]))
    for renamed in (cube.rename("t"), other):
        fitted.check(renamed)
        np.testing.assert_array_equal(fitted.encode(renamed), fitted.encode(cube))
