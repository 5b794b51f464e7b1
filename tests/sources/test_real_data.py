"""The real archives open, and give what the cubes that were made from them hold."""

from pathlib import Path

import numpy as np
import pytest

from cubecast.cube import check_cube, cube_crs, cube_step, gaps
from cubecast.errors import InputError
from cubecast.sources import open_cube, open_cubes

PACKING = 0.0051  # half of the 0.01 mm h-1 that the cubes are packed to

CUBES = {
    "radar/bom_20180616.nc": (61, 512, 512, "6 min"),
    "radar/bom_20201031.nc": (144, 512, 512, "10 min"),
    "radar/knmi_20100826.nc": (92, 417, 419, "5 min"),
    "radar/fmi_20160928.nc": (40, 613, 380, "5 min"),
    "radar/fmi_20170509.nc": (40, 613, 380, "5 min"),
    "radar/opera_20180824.nc": (24, 512, 512, "15 min"),
    "radar/mrms_20190610.nc": (36, 512, 512, "2 min"),
    "sst/ersstv5_201001_202008.nc": (128, 89, 180, "1 month"),
}


@pytest.mark.parametrize("name", CUBES)
def test_processed_cubes(real_data: Path, name: str) -> None:
    cube = check_cube(open_cube(real_data / name))
    assert (*cube.shape, str(cube_step(cube))) == CUBES[name]
    assert cube_crs(cube) is not None
    assert not gaps(cube)
    values = cube[:2].values
    assert np.isfinite(values).any()
    assert np.nanmin(values) >= (-1.8000001 if name.startswith("sst") else 0)


def test_sst_land_is_missing(real_data: Path) -> None:
    cube = open_cube(real_data / "sst/ersstv5_201001_202008.nc", start="2017", end="2017-12")
    assert cube.sizes["time"] == 12
    assert cube.attrs["units"] == "degC"
    missing = np.isnan(cube.values)
    assert (missing == missing[0]).all()
    assert 0.30 < missing.mean() < 0.33
    assert cube.lat[0] > cube.lat[-1]
    assert float(cube.lon[-1]) == 358


def test_bom_frames(real_data: Path) -> None:
    files = sorted((real_data / "radar_raw/bom_20201031").glob("*.nc"))[60:70]
    cube, same = open_cube(files), open_cube(real_data / "radar/bom_20201031.nc")
    same = same.sel(time=cube.time)
    np.testing.assert_allclose(cube.x * 1000, same.x)
    np.testing.assert_allclose(cube.y * 1000, same.y)
    assert cube.x.attrs["units"] == "km"
    np.testing.assert_allclose(cube.fillna(0).values, same.fillna(0).values, atol=PACKING)


def test_knmi_images(real_data: Path) -> None:
    files = sorted((real_data / "radar_raw/knmi_20100826").glob("*.h5"))[:6]
    cube, same = open_cube(files), open_cube(real_data / "radar/knmi_20100826.nc")
    part = cube.sel(x=same.x, y=same.y)
    np.testing.assert_allclose(part.values, same.sel(time=part.time).values, atol=PACKING)
    assert cube_crs(cube) == cube_crs(same)


def test_opera_composites(real_data: Path) -> None:
    cube = open_cube(str(real_data / "radar_raw/opera_20180824/*.hdf"))
    same = open_cube(real_data / "radar/opera_20180824.nc")
    part = cube.coarsen(y=2, x=2).mean().sel(x=same.x, y=same.y, method="nearest")
    np.testing.assert_allclose(part.x, same.x, atol=0.01)
    np.testing.assert_allclose(part.y, same.y, atol=0.01)
    difference = np.abs(part.values - same.sel(time=part.time).values)
    assert np.nanmax(difference) < PACKING
    assert np.isfinite(difference).mean() > 0.85


def test_fmi_images(real_data: Path) -> None:
    cube = open_cube(str(real_data / "radar_raw/fmi_20160928/*.pgm.gz"))
    same = open_cube(real_data / "radar/fmi_20160928.nc")
    rate = ((10 ** (cube / 10) / 223) ** (1 / 1.53)).where(cube != -32, 0.0)
    part = rate.coarsen(y=2, x=2).mean()
    np.testing.assert_allclose(part.x, same.x, atol=0.01)
    np.testing.assert_allclose(part.y, same.y, atol=0.01)
    difference = np.abs(part.values - same.sel(time=part.time).values)
    assert np.nanmax(difference) < PACKING
    assert np.isfinite(difference).mean() > 0.7


def test_two_events_on_one_grid_are_one_cube_with_a_gap(real_data: Path) -> None:
    files = [real_data / f"radar/{n}.nc" for n in ("knmi_20100826", "fmi_20170509", "fmi_20160928")]
    assert [c.shape[0] for c in open_cubes(files)] == [92, 80]
    assert len(gaps(open_cubes(files)[1])) == 1
    with pytest.raises(InputError, match=r"more than one grid.*knmi_20100826\.nc .* and .*fmi_20170509\.nc"):
        open_cube(files)
