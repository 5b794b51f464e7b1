"""Files at URLs: copied once for each version, named by their URL, and plain about what cannot be had."""

from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr

from cubecast.atomic import cache_folder
from cubecast.errors import InputError
from cubecast.sources import open_cube, open_static


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "cubecast" / "files"


def save(path: Path, first: int) -> None:
    path.parent.mkdir(exist_ok=True)
    time = np.datetime64("2020-01-01", "ns") + (first + np.arange(2)) * np.timedelta64(3600, "s")
    values = np.broadcast_to(first + np.arange(2.0)[:, None, None], (2, 3, 4)).astype("f4")
    rain = xr.DataArray(values, dims=("time", "y", "x"), coords={"time": time}, attrs={"units": "mm h-1"}, name="rain")
    rain.to_netcdf(path)


@pytest.fixture
def address(tmp_path: Path, serve: Callable[[Path], str]) -> str:
    """A web server of two files."""
    for first in (0, 2):
        save(tmp_path / "served" / f"{first}.nc", first)
    return serve(tmp_path / "served")


def test_a_pattern_at_a_web_server(address: str, cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    cube = open_cube(f"{address}/*.nc")
    np.testing.assert_array_equal(cube.values[:, 0, 0], np.arange(4))
    assert "0.nc" in cube.encoding["source"]
    copies = {path: path.stat().st_mtime_ns for path in cache.rglob("*.nc")}
    assert len(copies) == 2
    open_cube(f"{address}/*.nc")
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.nc")} == copies, "nothing is fetched twice"
    with pytest.raises(InputError, match=f"no files match {address}"):
        open_cube(f"{address}/*.h5")
    with pytest.raises(InputError, match=f"cannot read {address}/9.nc: found FileNotFoundError"):
        open_cube(f"{address}/9.nc")


def test_a_file_that_changes_is_fetched_again(tmp_path: Path, cache: Path) -> None:
    save(tmp_path / "a.nc", 0)
    fsspec.filesystem("memory").pipe("/remote/a.nc", (tmp_path / "a.nc").read_bytes())
    assert open_cube("memory://remote/a.nc").values[0, 0, 0] == 0
    save(tmp_path / "a.nc", 12)
    fsspec.filesystem("memory").pipe("/remote/a.nc", (tmp_path / "a.nc").read_bytes())
    assert open_cube("memory://remote/a.nc").values[0, 0, 0] == 12
    assert len(list(cache.rglob("a.nc"))) == 2


def test_static_fields_and_protocols_that_are_none(tmp_path: Path) -> None:
    height = xr.DataArray(np.ones((3, 4), "f4"), dims=("y", "x"), name="height")
    height.to_netcdf(tmp_path / "height.nc")
    fsspec.filesystem("memory").pipe("/remote/height.nc", (tmp_path / "height.nc").read_bytes())
    assert float(open_static("memory://remote/height.nc")["height"].sum()) == 12
    with pytest.raises(InputError, match=r"cannot read nonsense://a/b.nc: found ValueError"):
        open_cube("nonsense://a/b.nc")


def test_the_cache_is_where_caches_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder("files") == tmp_path / "cache" / "cubecast" / "files"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("files") == tmp_path / ".cache" / "cubecast" / "files"
