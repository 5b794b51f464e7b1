"""ODIM HDF5 composites, made here with netCDF4 (which writes HDF5 groups and attributes)."""

from pathlib import Path

import netCDF4
import numpy as np
import pytest

from cubecast.cube import check_cube, cube_crs
from cubecast.errors import InputError
from cubecast.sources import open_cube

LAEA = "+proj=laea +lat_0=55.0 +lon_0=10.0 +x_0=1950000.0 +y_0=-2100000.0 +units=m +ellps=WGS84"
CORNER = (-10.434576838640398, 31.746215319325056)  # of the OPERA grid: x = y = 0 at its upper left


def write(path: Path, minute: int, layers: dict[str, np.ndarray] | list[tuple[str, np.ndarray]], **where) -> Path:
    """A composite with one dataset a quantity; stored = (value - offset) / gain with gain 0.5, offset -1."""
    layers = list(layers.items()) if isinstance(layers, dict) else layers
    shape = layers[0][1].shape
    with netCDF4.Dataset(path, "w") as file:
        file.Conventions = "ODIM_H5/V2_2"
        file.createGroup("what").setncatts({"object": "COMP", "date": "20180824", "time": f"18{minute:02d}00"})
        place = {"projdef": LAEA, "xscale": 2000.0, "yscale": 2000.0, "LL_lon": CORNER[0], "LL_lat": CORNER[1]}
        place |= {"xsize": shape[1], "ysize": shape[0], **where}
        file.createGroup("where").setncatts({k: v for k, v in place.items() if v is not None})
        for i, (quantity, values) in enumerate(layers, start=1):
            what = file.createGroup(f"dataset{i}/what")
            what.setncatts(
                {
                    "quantity": quantity,
                    "gain": 0.5,
                    "offset": -1.0,
                    "nodata": 255.0,
                    "undetect": 0.0,
                    "startdate": "20180824",
                    "starttime": f"{(18 * 60 + minute - 15) // 60:02d}{(minute - 15) % 60:02d}00",
                    "enddate": "20180824",
                    "endtime": f"18{minute:02d}00",
                }
            )
            group = file.createGroup(f"dataset{i}/data1")
            group.createDimension("y", shape[0])
            group.createDimension("x", shape[1])
            variable = group.createVariable("data", "u1", ("y", "x"))
            variable.set_auto_maskandscale(False)
            variable[:] = values
    return path


STORED = np.array([[0, 2, 3], [10, 254, 255]], "u1")


def test_nodata_is_missing_and_undetect_is_dry(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{m}.h5", m, {"QIND": STORED, "RATE": STORED}) for m in (15, 0, 30)]
    cube = check_cube(open_cube(files))
    assert (cube.name, cube.attrs["units"], cube.dims) == ("rainfall_rate", "mm h-1", ("time", "y", "x"))
    np.testing.assert_array_equal(cube.values[1], np.array([[0, 0, 0.5], [4, 126, np.nan]], "f4"))
    assert [str(t)[11:16] for t in cube.time.values] == ["18:00", "18:15", "18:30"]


def test_pixels_lie_where_the_corners_say(tmp_path: Path) -> None:
    cube = open_cube([write(tmp_path / f"{m}.h5", m, {"RATE": STORED}) for m in (0, 15)])
    np.testing.assert_allclose(cube.x.values, [1000, 3000, 5000], atol=0.01)
    # the lower left corner of OPERA's 2,200 rows is at y = -4,400 km
    np.testing.assert_allclose(cube.y.values, [-4400e3 + 3000, -4400e3 + 1000], atol=0.01)
    assert cube_crs(cube).coordinate_operation.method_name == "Lambert Azimuthal Equal Area"


def test_longitudes_and_latitudes(tmp_path: Path) -> None:
    where = {"projdef": "+proj=longlat +ellps=WGS84", "xscale": 0.5, "yscale": 0.25, "LL_lon": 10.0, "LL_lat": 50.0}
    cube = open_cube([write(tmp_path / f"{m}.h5", m, {"RATE": STORED}, **where) for m in (0, 15)])
    assert cube.dims == ("time", "lat", "lon")
    np.testing.assert_allclose(cube.lat.values, [50.375, 50.125])
    np.testing.assert_allclose(cube.lon.values, [10.25, 10.75, 11.25])
    assert cube.lat.attrs["units"] == "degrees_north"


def test_amounts_become_rates(tmp_path: Path) -> None:
    cube = open_cube([write(tmp_path / f"{m}.h5", m, {"ACRR": STORED}) for m in (15, 30)])
    assert cube.name == "rainfall_rate"
    np.testing.assert_array_equal(cube.values[0], np.array([[0, 0, 2], [16, 504, np.nan]], "f4"))


def test_reflectivity_where_there_is_no_rain_rate(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{m}.h5", m, {"DBZH": STORED}) for m in (15, 30)]
    cube = open_cube(files)
    assert (cube.name, cube.attrs["units"]) == ("DBZH", "dBZ")
    np.testing.assert_array_equal(cube.values[0], np.array([[-32, 0, 0.5], [4, 126, np.nan]], "f4"))
    with pytest.raises(InputError, match=r"no variable 'RATE' in .*15\.h5: allowed: DBZH"):
        open_cube(files, variable="RATE")


def test_of_several_heights_the_first_is_taken(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{m}.h5", m, [("DBZH", STORED), ("DBZH", STORED[::-1])]) for m in (15, 30)]
    np.testing.assert_array_equal(open_cube(files).values[0], np.array([[-32, 0, 0.5], [4, 126, np.nan]], "f4"))


def test_broken_composites(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", 0, {"RATE": STORED}, LL_lon=None)
    with pytest.raises(InputError, match=r"a\.h5 is no ODIM composite.*LL_lon"):
        open_cube(path)
    path = write(tmp_path / "b.h5", 0, {"RATE": STORED}, projdef="+proj=nonsense")
    with pytest.raises(InputError, match="nonsense"):
        open_cube(path)
    path = write(tmp_path / "c.h5", 0, {"RATE": STORED}, xsize=7)
    with pytest.raises(InputError, match=r"grid of .*c\.h5"):
        open_cube(path)
    path = write(tmp_path / "d.h5", 0, {"QIND": STORED})
    with pytest.raises(InputError, match="no variable"):
        open_cube(path)
