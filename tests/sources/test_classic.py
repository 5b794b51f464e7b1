"""Classic netCDF: whole files open, truncated ones do not, and a damaged header costs nothing."""

from pathlib import Path

import netCDF4
import numpy as np
import pytest

from cubecast.errors import InputError
from cubecast.sources import open_cube
from cubecast.sources.classic import check_length

FORMATS = ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"]


def write(path: Path, kind: str, *, records: bool = True, types: tuple[str, ...] = ("f4",), frames: int = 5) -> Path:
    with netCDF4.Dataset(path, "w", format=kind) as file:
        file.title = "odd"
        file.createDimension("time", None if records else frames)
        file.createDimension("y", 3)
        file.createDimension("x", 5)
        time = file.createVariable("time", "f8", ("time",))
        time.setncatts({"units": "hours since 2020-01-01", "standard_name": "time"})
        for i, one in enumerate(types):
            variable = file.createVariable(f"v{i}", one, ("time", "y", "x"))
            variable.units = "1"
            variable[:] = np.arange(frames * 15).reshape(frames, 3, 5) % 100
        time[:] = np.arange(frames)
    return path


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("records", [True, False])
@pytest.mark.parametrize("types", [("f4",), ("i1",), ("i2", "f8", "i1")])
def test_whole_files_open_and_all_truncations_are_refused(
    tmp_path: Path, kind: str, records: bool, types: tuple[str, ...]
) -> None:
    path = write(tmp_path / "a.nc", kind, records=records, types=types)
    check_length(str(path))
    cube = open_cube(path, variable="v0")
    np.testing.assert_array_equal(cube.values.ravel(), np.arange(75) % 100)
    data = path.read_bytes()
    last_padding = 3  # bytes that round the last variable up may be absent: no value is lost
    for cut in range(4, len(data) - last_padding, 11):
        path.write_bytes(data[:cut])
        with pytest.raises(InputError, match=r"a\.nc (is truncated|is no whole netCDF file)"):
            check_length(str(path))
    path.write_bytes(data[:-20])
    with pytest.raises(InputError, match=r"a\.nc is truncated: found \d+ bytes; allowed: the \d+ of its header"):
        open_cube(path)


def test_one_record_variable_is_not_padded(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    with netCDF4.Dataset(path, "w", format="NETCDF3_CLASSIC") as file:
        file.createDimension("time", None)
        file.createDimension("x", 3)
        file.createVariable("v", "i1", ("time", "x"))[:] = np.ones((9, 3))
    check_length(str(path))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match="truncated"):
        check_length(str(path))


def test_records_that_were_never_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nc", "NETCDF3_CLASSIC")
    data = path.read_bytes()
    path.write_bytes(data[:4] + b"\xff\xff\xff\xff" + data[8:])
    check_length(str(path))


@pytest.mark.parametrize("value", [0xFFFFFFF0, 0x7FFFFFFF, 0x00FFFFFF])
def test_damaged_headers_are_refused_at_once(tmp_path: Path, value: int) -> None:
    path = write(tmp_path / "a.nc", "NETCDF3_CLASSIC")
    data = path.read_bytes()
    refused = 0
    for at in range(8, 120, 4):
        path.write_bytes(data[:at] + value.to_bytes(4, "big") + data[at + 4 :])
        try:
            check_length(str(path))
        except InputError:
            refused += 1
    assert refused > 15  # the rest are bytes of names and attributes


def test_empty_file_with_a_classic_signature(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    path.write_bytes(b"CDF\x01")
    with pytest.raises(InputError, match="the header is cut off"):
        open_cube(path)
