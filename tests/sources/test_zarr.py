"""Zarr stores of both versions, in folders and at URLs."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from cubecast.errors import InputError
from cubecast.sources import open_cube, open_cubes


def dataset(first: int = 0) -> xr.Dataset:
    values = np.arange(6 * 4 * 4, dtype="f4").reshape(6, 4, 4) + 100 * first
    values[0, 0, 0] = np.nan
    time = np.datetime64("2020-01-01", "ns") + (first + np.arange(6)) * np.timedelta64(300, "s")
    return xr.Dataset(
        {"rain": (("time", "y", "x"), values, {"units": "mm/h", "standard_name": "rainfall_rate"})},
        coords={"time": ("time", time, {"standard_name": "time"}), "y": np.arange(4.0), "x": np.arange(4.0)},
    )


def save(target: str, version: int, ds: xr.Dataset | None = None, **encoding) -> str:
    encoding = {"rain": {"chunks": (2, 4, 4), "dtype": "i2", "scale_factor": 0.5, "_FillValue": -9, **encoding}}
    (dataset() if ds is None else ds).to_zarr(
        target, mode="w", zarr_format=version, consolidated=version == 2, encoding=encoding
    )
    return target


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("url", ["{path}/a.zarr", "file://{path}/a.zarr", "memory://{name}/a.zarr"])
def test_both_versions_anywhere(tmp_path: Path, version: int, url: str) -> None:
    target = url.format(path=tmp_path, name=tmp_path.name)
    save(target.removeprefix("file://"), version)
    cube = open_cube(target)
    assert cube.name == "rain"
    assert cube.attrs["units"] == "mm h-1"
    assert cube.dtype == np.float32
    np.testing.assert_array_equal(cube.values, dataset()["rain"].values)
    np.testing.assert_array_equal(cube.time.values, dataset().time.values)
    assert "_FillValue" not in cube.attrs
    assert "scale_factor" not in cube.encoding


@pytest.mark.parametrize("dtype", [">f4", "f2"])
def test_other_byte_orders_and_half_precision(tmp_path: Path, dtype: str) -> None:
    ds = dataset()
    ds.drop_vars("rain").to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    values, group = ds["rain"].values, zarr.open_group(tmp_path / "a.zarr", mode="r+")
    order = {"serializer": zarr.codecs.BytesCodec(endian="big" if dtype[0] == ">" else "little")}
    array = group.create_array(
        "rain", shape=values.shape, chunks=(1, *values.shape[1:]), dtype=dtype.strip(">"), compressors=None, **order,
        dimension_names=list(ds["rain"].dims), attributes=dict(ds["rain"].attrs),
    )  # fmt: skip
    array[:] = values
    np.testing.assert_array_equal(open_cube(tmp_path / "a.zarr").values, values.astype(dtype).astype("f4"))


def test_chunks_are_whole_stored_chunks(tmp_path: Path) -> None:
    target = save(f"{tmp_path}/a.zarr", 3)
    assert open_cube(target, chunks={"time": 2}).chunks == ((2, 2, 2), (4,), (4,))
    assert open_cube(target).chunks == ((6,), (4,), (4,))


def test_several_stores_become_one_cube(tmp_path: Path) -> None:
    a = save(f"{tmp_path}/a.zarr", 3)
    b = save(f"{tmp_path}/b.zarr", 2, dataset(6))
    cube = open_cube([b, a])
    assert cube.sizes["time"] == 12
    np.testing.assert_array_equal(cube.values[6:], dataset(6)["rain"].values)
    assert open_cubes(f"{tmp_path}/*.zarr")[0].sizes["time"] == 12


def test_only_what_is_asked_for_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cubecast.sources import blocks

    target = save(f"{tmp_path}/a.zarr", 3)
    read = []
    whole = blocks.Frames._read
    monkeypatch.setattr(
        blocks.Frames,
        "_read",
        lambda self, file, frames, *rest: read.extend(frames) or whole(self, file, frames, *rest),
    )
    cube = open_cube(target)
    assert not read
    cube.isel(time=slice(2, 4)).compute()
    assert read == [2, 3]


def test_missing_and_damaged_stores(tmp_path: Path) -> None:
    for target in ("memory://nothing/here.zarr", "nonsense://a/b.zarr"):
        with pytest.raises(InputError, match=f"cannot read {target}"):
            open_cube(target)
    target = save(f"{tmp_path}/a.zarr", 3)
    with pytest.raises(InputError, match=r"no variable 'snow' in .*a\.zarr: allowed: rain"):
        open_cube(target, variable="snow")
    chunk = next(p for p in Path(target, "rain").rglob("*") if p.is_file() and p.name != "zarr.json")
    chunk.write_bytes(chunk.read_bytes()[:5])
    cube = open_cube(target)
    with pytest.raises(InputError, match=r"cannot read .*a\.zarr"):
        cube.compute()
    (tmp_path / "a.zarr" / "zarr.json").write_text("{")
    with pytest.raises(InputError, match=r"cannot read .*a\.zarr"):
        open_cube(target)
