"""KNMI HDF5 images, made here with netCDF4."""

from pathlib import Path

import netCDF4
import numpy as np
import pytest

from cubecast.cube import check_cube, cube_crs
from cubecast.errors import InputError
from cubecast.sources import open_cube

STORED = np.array([[0, 7, 65535], [100, 200, 300]], "u2")


def write(path: Path, minute: int, **changes: str) -> Path:
    with netCDF4.Dataset(path, "w") as file:
        clock = "{}-AUG-2010;{:02d}:{:02d}:00.000"
        start = clock.format(25, 23, 60 + minute - 5) if minute < 5 else clock.format(26, 0, minute - 5)
        overview = {"product_datetime_start": start, "product_datetime_end": clock.format(26, 0, minute)}
        file.createGroup("overview").setncatts(overview)
        geo = file.createGroup("geographic")
        numbers = {"number_rows": 2, "number_columns": 3, "pixel_size_x": 1.0, "pixel_size_y": -1.0}
        numbers |= {"column_offset": 0.0, "row_offset": 3650.0}
        geo.setncatts({f"geo_{k}": v for k, v in numbers.items()} | {"geo_dim_pixel": changes.get("unit", "KM,KM")})
        projection = "+proj=stere +lat_0=90 +lon_0=0.0 +lat_ts=60.0 +a=6378.137 +b=6356.752 +x_0=0 +y_0=0"
        geo.createGroup("map_projection").projection_proj4_params = projection
        image = file.createGroup("image1")
        image.image_geo_parameter = changes.get("parameter", "ACCUMULATED_PRECIPITATION_[MM]")
        image.createDimension("y", 2)
        image.createDimension("x", 3)
        data = image.createVariable("image_data", "u2", ("y", "x"))
        data.set_auto_maskandscale(False)
        data[:] = STORED
        calibration = {"calibration_formulas": changes.get("formula", "GEO=0.01*PV+0.0")}
        calibration |= {"calibration_missing_data": np.int32(65535), "calibration_out_of_image": np.int32(65535)}
        image.createGroup("calibration").setncatts(calibration)
    return path


def test_accumulations_become_rates_in_metres(tmp_path: Path) -> None:
    cube = check_cube(open_cube([write(tmp_path / f"{m}.h5", m) for m in (10, 5, 0)]))
    assert (cube.name, cube.attrs["units"], cube.dims) == ("rainfall_rate", "mm h-1", ("time", "y", "x"))
    np.testing.assert_allclose(cube.values[0], [[0, 0.84, np.nan], [12, 24, 36]], rtol=1e-6)
    assert [str(t)[:16] for t in cube.time.values] == ["2010-08-26T00:00", "2010-08-26T00:05", "2010-08-26T00:10"]
    np.testing.assert_array_equal(cube.x.values, [500, 1500, 2500])
    np.testing.assert_array_equal(cube.y.values, [-3650500, -3651500])
    crs = cube_crs(cube)
    assert crs.ellipsoid.semi_major_metre == 6378137.0
    # the corners that KNMI writes into its files: the upper left one is at 0 E, 55.974 N
    import pyproj

    lon, lat = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True).transform(0.0, -3650000.0)
    np.testing.assert_allclose([lon, lat], [0.0, 55.974], atol=1e-3)


def test_reflectivity(tmp_path: Path) -> None:
    kinds = {"parameter": "REFLECTIVITY_[DBZ]", "formula": "GEO = 0.5*PV + -32.0"}
    cube = open_cube([write(tmp_path / f"{m}.h5", m, **kinds) for m in (5, 10)])
    assert (cube.name, cube.attrs["units"]) == ("DBZH", "dBZ")
    np.testing.assert_array_equal(cube.values[0], np.array([[-32, -28.5, np.nan], [18, 68, 118]], "f4"))


def test_broken_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"image of .*a\.h5: found ECHOTOP"):
        open_cube(write(tmp_path / "a.h5", 5, parameter="ECHOTOP"))
    with pytest.raises(InputError, match=r"b\.h5 is no KNMI radar image.*MILES"):
        open_cube(write(tmp_path / "b.h5", 5, unit="MILES"))
    with pytest.raises(InputError, match=r"no variable 'snow' in .*allowed: precipitation_amount, rainfall_rate"):
        open_cube(write(tmp_path / "c.h5", 5), variable="snow")
    cube = open_cube([write(tmp_path / f"{m}.h5", m, formula="GEO=?") for m in (5, 10)])
    with pytest.raises(InputError, match=r"cannot read .*5\.h5.*calibration"):
        cube.compute()
