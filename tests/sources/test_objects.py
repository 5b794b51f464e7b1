"""xarray objects keep the same rules as files."""

import logging

import numpy as np
import pytest
import xarray as xr

from cubecast.cube import check_cube
from cubecast.errors import InputError
from cubecast.sources import open_cube


def rain(values: np.ndarray, **attrs) -> xr.DataArray:
    time = np.datetime64("2020-01-01", "ns") + np.arange(len(values)) * np.timedelta64(300, "s")
    attrs = {"units": "mm h-1", **attrs}
    return xr.DataArray(values, dims=("time", "y", "x")[: values.ndim], coords={"time": time}, name="r", attrs=attrs)


def test_array_comes_back_lazy_and_unchanged() -> None:
    values = np.random.default_rng(0).random((6, 4, 5)).astype("f4")
    cube = open_cube(rain(values))
    assert cube.chunks is not None
    np.testing.assert_array_equal(cube.values, values)
    assert (cube.name, cube.attrs["units"]) == ("r", "mm h-1")
    check_cube(cube)
    assert open_cube(rain(values).rename(None)).name == "value"


def test_own_chunks_stay_unless_asked() -> None:
    lazy = rain(np.zeros((6, 4, 5))).chunk(time=2, y=3)
    assert open_cube(lazy).chunks == ((2, 2, 2), (3, 1), (5,))
    assert open_cube(lazy, chunks={"time": 3}).chunks == ((3, 3), (3, 1), (5,))


def test_sentinels_and_negative_rain_are_missing(caplog: pytest.LogCaptureFixture) -> None:
    values = np.array([0, -1e-9, 5, -9999, -32768, 9.97e36, np.nan, 2000], "f4").reshape(8, 1, 1)
    with caplog.at_level(logging.WARNING):
        cleaned = open_cube(rain(values)).values.ravel()
    np.testing.assert_array_equal(cleaned, np.array([0, 0, 5] + [np.nan] * 4 + [2000], "f4"))
    assert "impossible values of 'r' are taken as missing: -32768, -9999, 9.97e+36" in caplog.text


def test_declared_range_of_packed_values() -> None:
    packed = rain(np.array([0, 0.1, 12.5, 30], "f4"), valid_range=np.array([0, 125], "i2"))
    packed.encoding = {"scale_factor": 0.1, "add_offset": 0.0, "dtype": "i2"}
    np.testing.assert_array_equal(open_cube(packed).values, np.array([0, 0.1, 12.5, np.nan], "f4"))
    echo = rain(np.array([-32, 0, 30], "f4"), units="dBZ", valid_min=np.uint8(0))
    echo.encoding = {"scale_factor": 0.5, "add_offset": -32.0, "dtype": "u1"}
    np.testing.assert_array_equal(open_cube(echo).values, np.array([-32, 0, 30], "f4"))
    plain = rain(np.array([0, 0.1, 12.5, 30], "f4"), valid_max=12.0)
    np.testing.assert_array_equal(open_cube(plain).values, np.array([0, 0.1, np.nan, np.nan], "f4"))


def test_what_was_opened_without_decoding_is_decoded() -> None:
    packing = {"_FillValue": np.uint8(255), "scale_factor": 0.5, "add_offset": -32.0}
    echo = rain(np.array([100, 255, 0], "u1"), units="dBZ", **packing)
    np.testing.assert_array_equal(open_cube(echo).values, np.array([18, np.nan, -32], "f4"))
    plain = rain(np.array([1.5, -9999], "f4"), units="1", missing_value=-9999.0)
    np.testing.assert_array_equal(open_cube(plain).values, np.array([1.5, np.nan], "f4"))


def test_years_that_nanoseconds_do_not_reach_are_refused() -> None:
    late = rain(np.zeros(3, "f4")).assign_coords(time=np.arange("2300-01", "2300-04", dtype="M8[M]").astype("M8[s]"))
    with pytest.raises(InputError, match=r"times of the DataArray: found up to 2300-03-01.*years 1678 to 2261"):
        open_cube(late)


def test_unsorted_and_duplicate_frames(caplog: pytest.LogCaptureFixture) -> None:
    cube = rain(np.arange(5.0).reshape(5, 1, 1)).isel(time=[3, 0, 1, 1, 2])
    cube[3] = 99.0
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(open_cube(cube).values.ravel(), [0, 1, 2, 3])
    assert "2020-01-01T00:05:00" in caplog.text


def test_any_order_of_dims_and_scalar_coordinates() -> None:
    cube = rain(np.arange(24.0).reshape(2, 3, 4)).transpose("x", "time", "y").assign_coords(level=500, y=[3, 2, 1])
    opened = open_cube(cube.transpose("time", "x", "y").assign_coords(x=("x", [1, 2, 3, 4], {"axis": "X"})))
    assert opened.dims == ("time", "y", "x")
    assert set(opened.coords) == {"time", "y", "x"}


def test_whole_number_values_become_floating_point() -> None:
    assert open_cube(rain(np.ones((3, 2, 2), "i2"))).dtype == np.float32
    with pytest.raises(InputError, match=r"values of 'r'.*bool"):
        open_cube(rain(np.ones((3, 2, 2), bool)))


def test_grid_mapping_of_a_dataset_and_of_rioxarray() -> None:
    ds = rain(np.zeros((3, 2, 2)), grid_mapping="crs: x y").to_dataset()
    ds["crs"] = ((), 7, {"grid_mapping_name": "latitude_longitude"})
    cube = open_cube(ds)
    assert cube.attrs["grid_mapping"] == "crs"
    assert cube.crs.dtype == np.int32
    other = rain(np.zeros((3, 2, 2))).assign_coords(spatial_ref=((), 0, {"crs_wkt": "x"}))
    other.encoding["grid_mapping"] = "spatial_ref"
    assert open_cube(other).attrs["grid_mapping"] == "spatial_ref"
    assert "grid_mapping" not in open_cube(rain(np.zeros((3, 2, 2)), grid_mapping="gone")).attrs


def test_amounts_with_bounds() -> None:
    ds = rain(np.full((3, 2, 2), 2.0), units="mm", standard_name="precipitation_amount").to_dataset()
    ends = ds.time.values
    ds["bnds"] = (("time", "nv"), np.stack([ends - np.timedelta64(300, "s"), ends], axis=1))
    ds.time.attrs["bounds"] = "bnds"
    cube = open_cube(ds)
    assert cube.name == "rainfall_rate"
    np.testing.assert_allclose(cube.values, 24.0)
    with pytest.raises(InputError, match="accumulation over an unknown time"):
        open_cube(ds.drop_vars("bnds"))


def test_frames_with_a_scalar_time_make_a_cube() -> None:
    whole = rain(np.arange(24.0).reshape(6, 2, 2))
    cube = open_cube([whole.isel(time=i) for i in (2, 0, 1)])
    np.testing.assert_array_equal(cube.values, whole.values[:3])


def test_series() -> None:
    t = np.arange(0, 10.05, 0.05)
    series = xr.DataArray(np.sin(t), dims="t", coords={"t": t}, attrs={"units": "1"})
    assert open_cube(series).dims == ("t",)
    wells = xr.DataArray(np.zeros((5, 3)), dims=("depth", "well"), coords={"depth": np.arange(5.0)}, name="gr")
    wells.attrs["units"] = "gAPI"
    assert open_cube(wells).dims == ("depth", "well")
    assert open_cube(wells.T).dims == ("depth", "well")


def test_temperature_floor_and_anomalies() -> None:
    kelvin = rain(np.array([280.0, -9999.0, -1.0]), units="K", standard_name="sea_surface_temperature")
    np.testing.assert_array_equal(open_cube(kelvin).values, [280, np.nan, np.nan])
    anomaly = rain(np.array([0.5, -9999.0, -1.0]), units="K", long_name="anomaly")
    np.testing.assert_array_equal(open_cube(anomaly).values, [0.5, np.nan, -1])
    wind = rain(np.array([0.5, -20.0, 9.97e36]), units="m s-1", standard_name="eastward_wind")
    np.testing.assert_array_equal(open_cube(wind).values, [0.5, -20, np.nan])
    dry = rain(np.array([-np.inf, 20.0, -9999.0]), units="dBZ")
    np.testing.assert_array_equal(open_cube(dry).values, [-np.inf, 20, np.nan])
    flux = rain(np.array([1e-4, -9.0, 5.0]), units="kg m-2 s-1", standard_name="precipitation_flux")
    np.testing.assert_array_equal(open_cube(flux).values, [1e-4, np.nan, np.nan])
