"""GRIB2 where cfgrib is installed, and what is said where it is not."""

import sys
from pathlib import Path

import numpy as np
import pytest

from cubecast.errors import InputError
from cubecast.sources import open_cube


def test_without_cfgrib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.grib2"
    path.write_bytes(b"GRIB" + bytes(100))
    monkeypatch.setitem(sys.modules, "cfgrib", None)
    with pytest.raises(
        InputError, match=r"a\.grib2: found a GRIB file, and no cfgrib; pip install 'cubecast\[radar\]'"
    ):
        open_cube(path)


def test_mrms_rain(real_data: Path) -> None:
    pytest.importorskip("cfgrib", reason="the extra 'radar' is not installed")
    cube = open_cube(str(real_data / "radar_raw/mrms_20190610/*.grib2"))
    assert (cube.name, cube.attrs["units"], cube.dims) == ("rainfall_rate", "mm h-1", ("time", "latitude", "longitude"))
    same = open_cube(real_data / "radar/mrms_20190610.nc")
    part = cube.sel(latitude=same.lat.values, longitude=same.lon.values % 360, method="nearest")
    np.testing.assert_allclose(part.values, same.sel(time=part.time).values, atol=1e-5)


def test_broken_grib(tmp_path: Path) -> None:
    pytest.importorskip("cfgrib", reason="the extra 'radar' is not installed")
    path = tmp_path / "a.grib2"
    path.write_bytes(b"GRIB" + bytes(100))
    with pytest.raises(InputError, match="cannot read"):
        open_cube(path)
