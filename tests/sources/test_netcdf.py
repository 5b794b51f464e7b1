"""netCDF files as people have them: one a frame, packed, with sentinels, amounts, odd axes and series."""

import logging
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr

from cubecast.cube import check_cube, cube_crs, gaps
from cubecast.errors import InputError
from cubecast.sources import open_cube

HOURS = "hours since 2020-01-01"


def times(minutes):
    return (np.datetime64("2020-10-31", "ns") + np.array(minutes) * np.timedelta64(60, "s")).astype("datetime64[ns]")


def field(**changes) -> xr.Dataset:
    """A plain CF Dataset (time, lat, lon) that tests change."""
    values = np.arange(3 * 4 * 5, dtype="f4").reshape(3, 4, 5)
    attrs = {"units": "K", "standard_name": "sea_surface_temperature"}
    ds = xr.Dataset(
        {"sst": (("time", "lat", "lon"), values + 280, attrs)},
        coords={
            "time": ("time", np.array([0, 1, 2]), {"units": HOURS, "standard_name": "time"}),
            "lat": ("lat", np.array([40.0, 38.0, 36.0, 34.0]), {"units": "degrees_north"}),
            "lon": ("lon", np.array([350.0, 352.0, 354.0, 356.0, 358.0]), {"units": "degrees_east"}),
        },
    )
    return ds.assign(changes)


def save(ds: xr.Dataset, path: Path, **options) -> Path:
    ds.to_netcdf(path, engine="netcdf4", **options)
    return path


def test_frames_become_a_cube_of_rates(archive) -> None:
    cube = open_cube(archive([10, 20, 30]))
    assert cube.dims == ("time", "y", "x")
    assert cube.shape == (3, 4, 5)
    assert cube.name == "rainfall_rate"
    assert cube.dtype == np.float32
    assert cube.chunks is not None
    wanted = {"standard_name": "rainfall_rate", "units": "mm h-1", "cell_methods": "time: mean", "grid_mapping": "proj"}
    assert wanted.items() <= cube.attrs.items()
    np.testing.assert_array_equal(cube.time.values, times([10, 20, 30]))
    # 0.05 mm in ten minutes are 0.3 mm h-1
    np.testing.assert_allclose(cube.values[1, 2, 3], (20 + 13) * 0.05 * 6, rtol=1e-6)
    assert np.isnan(cube.values[:, 0, 0]).all()
    assert np.isnan(cube.values).sum() == 3


def test_coordinates_and_crs_stay_as_they_are(archive) -> None:
    cube = open_cube(archive([10, 20]))
    np.testing.assert_array_equal(cube.y.values, 100.0 - np.arange(4) * 0.5)
    assert cube.y.attrs == {"standard_name": "projection_y_coordinate", "units": "km"}
    assert cube.proj.dtype == np.int32
    assert cube.proj.shape == ()
    assert cube_crs(cube).coordinate_operation.method_name == "Albers Equal Area"
    assert set(cube.coords) == {"time", "y", "x", "proj"}


def test_frames_are_sorted_and_gaps_stay(archive) -> None:
    cube = open_cube(archive([50, 10, 20]))
    np.testing.assert_array_equal(cube.time.values, times([10, 20, 50]))
    np.testing.assert_allclose(cube.values[:, 1, 1], (np.array([10, 20, 50]) + 6) * 0.3, rtol=1e-6)
    assert [n for _, _, n in gaps(cube)] == [2]


def test_first_of_duplicates_is_kept_and_logged(archive, caplog: pytest.LogCaptureFixture) -> None:
    files = archive([10, 20, 20, 30])
    with netCDF4.Dataset(files[2], "a") as file:
        file["precipitation"][:] = 0.0
    with caplog.at_level(logging.WARNING):
        cube = open_cube(files)
    assert cube.sizes["time"] == 3
    np.testing.assert_allclose(cube.values[1, 1, 1], 26 * 0.3, rtol=1e-6)
    assert "2020-10-31T00:20:00" in caplog.text
    assert files[2].name in caplog.text


def test_rate_takes_the_files_own_times(archive, tmp_path: Path) -> None:
    slow = open_cube(archive([10, 20], start=-20))
    np.testing.assert_allclose(slow.values[:, 1, 1], [16 * 0.05 / 0.5, 26 * 0.05 / (40 / 60)], rtol=1e-6)


def test_amount_without_a_period_is_refused(archive) -> None:
    with pytest.raises(InputError, match=r"accumulation over an unknown time.*start_time"):
        open_cube(archive([10, 20], start=None))


def test_amount_that_ends_before_it_starts_is_refused(archive) -> None:
    with pytest.raises(InputError, match=r"accumulation time of .*010.*more than 0 h"):
        open_cube(archive([10, 20], start=60))


def test_amount_with_time_bounds(tmp_path: Path) -> None:
    amount = (("time", "lat", "lon"), np.full((3, 4, 5), 3.0, "f4"))
    ds = field(
        tp=(*amount, {"units": "m", "standard_name": "lwe_thickness_of_precipitation_amount"}),
        bnds=(("time", "nv"), np.array([[-2.0, 0], [-1, 1], [1, 2]])),
    ).drop_vars("sst")
    ds["time"].attrs["bounds"] = "bnds"
    cube = open_cube(save(ds, tmp_path / "tp.nc"))
    np.testing.assert_allclose(cube.values[:, 0, 0], [1500, 1500, 3000])
    assert "bounds" not in cube.time.attrs


def test_latitudes_and_longitudes_are_kept(tmp_path: Path) -> None:
    cube = open_cube(save(field(), tmp_path / "a.nc"))
    np.testing.assert_array_equal(cube.lat.values, [40, 38, 36, 34])
    np.testing.assert_array_equal(cube.lon.values, [350, 352, 354, 356, 358])
    np.testing.assert_array_equal(cube.values, field()["sst"].values)
    assert cube.name == "sst"
    check_cube(cube)


def test_axes_are_found_by_attributes_in_any_order(tmp_path: Path) -> None:
    ds = field().rename(time="t0", lat="rows", lon="columns").transpose("columns", "t0", "rows")
    cube = open_cube(save(ds, tmp_path / "a.nc"))
    assert cube.dims == ("time", "rows", "columns")
    np.testing.assert_array_equal(cube.values, field()["sst"].values)
    np.testing.assert_array_equal(cube[1, 1:3, ::2].values, field()["sst"].values[1, 1:3, ::2])


def test_size_one_dims_are_dropped(tmp_path: Path) -> None:
    ds = field().expand_dims(zlev=[0.0], axis=1)
    cube = open_cube(save(ds, tmp_path / "a.nc"))
    assert cube.dims == ("time", "lat", "lon")
    assert "zlev" not in cube.coords


def test_two_levels_are_refused(tmp_path: Path) -> None:
    ds = field().expand_dims(zlev=[0.0, 5.0], axis=1)
    with pytest.raises(InputError, match=r"more than two space dims.*zlev: 2"):
        open_cube(save(ds, tmp_path / "a.nc"))


def test_two_dimensional_latitudes_are_kept(tmp_path: Path) -> None:
    ds = field().drop_vars(["lat", "lon"]).rename_dims(lat="y", lon="x")
    ds = ds.assign_coords(
        latitude=(("y", "x"), np.ones((4, 5)), {"units": "degrees_north", "standard_name": "latitude"}),
        longitude=(("y", "x"), np.ones((4, 5)), {"units": "degrees_east", "standard_name": "longitude"}),
    )
    cube = open_cube(save(ds, tmp_path / "a.nc"))
    assert cube.dims == ("time", "y", "x")
    assert cube.latitude.dims == ("y", "x")
    assert cube.attrs.get("coordinates") is None


def packed(path: Path, stored: list[int], dtype: str, fill: int | None, **attrs) -> Path:
    """A series of stored numbers with CF packing attributes."""
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("time", len(stored))
        time = file.createVariable("time", "f8", ("time",))
        time.setncatts({"units": HOURS, "standard_name": "time"})
        time[:] = np.arange(len(stored))
        values = file.createVariable("v", dtype, ("time",), fill_value=fill)
        values.setncatts({"units": "1", **attrs})
        values.set_auto_maskandscale(False)
        values[:] = np.array(stored, dtype)
    return path


def test_packing_with_several_sentinels(tmp_path: Path) -> None:
    path = packed(
        tmp_path / "a.nc",
        [-32768, -999, 7, 100, 2000],
        "i2",
        -32768,
        missing_value=np.int16(-999),
        scale_factor=0.5,
        add_offset=10.0,
        valid_range=np.array([0, 1000], "i2"),
    )
    np.testing.assert_array_equal(open_cube(path).values, np.array([np.nan, np.nan, 13.5, 60, np.nan], "f4"))


def test_valid_range_in_units_of_the_value(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.nc", [10, 30], "i2", None, scale_factor=0.1, valid_max=2.0, valid_min=0.5)
    np.testing.assert_array_equal(open_cube(path).values, np.array([1, np.nan], "f4"))


def test_undeclared_default_fill_value_is_missing(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.nc", [5, netCDF4.default_fillvals["i2"]], "i2", None)
    np.testing.assert_array_equal(open_cube(path).values, np.array([5, np.nan], "f4"))


def test_unsigned_bytes(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.nc", [-1, -2, 3], "i1", -1, _Unsigned="true", scale_factor=2.0)
    np.testing.assert_array_equal(open_cube(path).values, np.array([np.nan, 508, 6], "f4"))


def test_the_valid_range_of_unsigned_numbers(tmp_path: Path) -> None:
    """Written as the stored type: 0 to -6 is 0 to 65530, as in rain of GOES; from an xarray object, too."""
    about = {"_Unsigned": "true", "scale_factor": 0.5, "valid_range": np.array([0, -6], "i2")}
    path, expected = packed(tmp_path / "a.nc", [-1, -6, -5, 3], "i2", -1, **about), [np.nan, 32765, np.nan, 1.5]
    np.testing.assert_array_equal(open_cube(path).values, np.array(expected, "f4"))
    with xr.open_dataset(path) as opened:
        np.testing.assert_array_equal(open_cube(opened).values, np.array(expected, "f4"))


def test_unsigned_numbers_of_another_byte_order(tmp_path: Path) -> None:
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        file.createDimension("time", 2)
        time = file.createVariable("time", "f8", ("time",))
        time.units, time[:] = "hours since 2020-01-01", [0, 1]
        values = file.createVariable("r", ">i2", ("time",), endian="big")
        values.set_auto_maskandscale(False)
        values.setncatts({"units": "1", "_Unsigned": "true"})
        values[:] = np.array([40000, 7], "u2").view("i2")
    np.testing.assert_array_equal(open_cube(tmp_path / "a.nc").values, np.array([40000, 7], "f4"))


def test_large_integers_and_doubles_keep_their_digits(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.nc", [16777217, 16777219], "i4", None)
    np.testing.assert_array_equal(open_cube(path).values, [16777217.0, 16777219.0])


def test_station_series(tmp_path: Path) -> None:
    ds = xr.Dataset(
        {"t": (("station", "time"), np.arange(6.0).reshape(2, 3), {"units": "degC"})},
        coords={
            "time": ("time", [0, 1, 2], {"units": HOURS, "standard_name": "time"}),
            "name": ("station", ["Kyiv", "Lviv"]),
            "lat": ("station", [50.4, 49.8], {"units": "degrees_north", "standard_name": "latitude"}),
        },
    )
    cube = open_cube(save(ds, tmp_path / "a.nc"))
    assert cube.dims == ("time", "station")
    assert list(cube.coords["name"].values) == ["Kyiv", "Lviv"]
    np.testing.assert_array_equal(cube.values, np.arange(6.0).reshape(2, 3).T)


def test_depth_series(tmp_path: Path) -> None:
    ds = xr.Dataset(
        {"gr": (("depth",), [3.0, 1.0, 2.0], {"units": "gAPI", "long_name": "gamma ray"})},
        coords={"depth": ("depth", [11.0, 10.0, 10.5], {"units": "ft", "axis": "Z", "positive": "down"})},
    )
    cube = open_cube(save(ds, tmp_path / "a.nc"))
    assert cube.dims == ("depth",)
    assert cube.depth.attrs["units"] == "ft"
    np.testing.assert_array_equal(cube.values, [1, 2, 3])


def test_month_means_with_bounds(tmp_path: Path) -> None:
    months = np.arange("2001-01", "2001-04", dtype="datetime64[M]").astype("datetime64[ns]")
    ds = field().assign_coords(time=("time", months, {"standard_name": "time", "bounds": "b"}))
    ds["b"] = (("time", "nv"), np.stack([months, months + np.timedelta64(28, "D")], axis=1))
    ds["time"].encoding["units"] = "days since 1800-01-01"
    cube = open_cube(save(ds, tmp_path / "a.nc"))
    np.testing.assert_array_equal(cube.time.values, months)
    assert cube.encoding.pop("source") == str(tmp_path / "a.nc")
    assert list(cube.encoding) == ["frames"]  # for the loader; nothing of how the file was packed


def test_chunks_are_whole_stored_chunks(tmp_path: Path) -> None:
    values = np.zeros((100, 256, 256), "f4")
    ds = field().drop_dims(["time", "lat", "lon"])
    ds["v"] = (("time", "y", "x"), values, {"units": "K"})
    ds["time"] = ("time", np.arange(100), {"units": HOURS, "standard_name": "time"})
    path = save(ds, tmp_path / "a.nc", encoding={"v": {"chunksizes": (12, 128, 256)}})
    cube = open_cube(path)
    assert cube.chunks == ((12,) * 8 + (4,), (256,), (256,))
    assert open_cube(path, chunks={"time": 24, "x": 64}).chunks == ((24, 24, 24, 24, 4), (256,), (64,) * 4)
    assert open_cube(path, chunks={"time": -1}).chunks[0] == (100,)
