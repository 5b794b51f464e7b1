"""Rows: whole chunks, no more than is needed, packed where that is possible, and equal to what the scaling makes."""

import netCDF4
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from cubecast.channels import Channels
from cubecast.config import ScalingConfig
from cubecast.reading import CubeRows, rectangles
from cubecast.sources import open_cube
from cubecast.sources.blocks import Frames, stored_frames

CHUNKS = (4, 16, 16)


def write(path, numbers, *, gain=0.5, offset=0.0, first=0, missing=-1):
    """Packed rain as netCDF-4."""
    with netCDF4.Dataset(path, "w") as file:
        for name, size in zip(("time", "y", "x"), numbers.shape, strict=True):
            file.createDimension(name, size)
            axis = file.createVariable(name, "f8", (name,))
            axis[:] = np.arange(size) + (first if name == "time" else 0)
            standard = "time" if name == "time" else f"projection_{name}_coordinate"
            axis.setncatts({"standard_name": standard, "units": "hours since 2020-01-01" if name == "time" else "m"})
        chunks = tuple(map(min, CHUNKS, numbers.shape))
        rain = file.createVariable(
            "rain", numbers.dtype, ("time", "y", "x"), zlib=True, chunksizes=chunks, fill_value=missing
        )
        rain.setncatts(
            {"units": "mm h-1", "standard_name": "rainfall_rate", "scale_factor": gain, "add_offset": offset}
        )
        rain.set_auto_maskandscale(False)
        rain[:] = numbers
    return path


@pytest.fixture
def numbers():
    rng = np.random.default_rng(0)
    values = np.maximum(rng.integers(-20, 60, (22, 40, 36)), 0).astype(np.int16)
    values[rng.random(values.shape) < 0.05] = -1
    return values


def rows_of(cube, kind="log", **settings):
    channels = Channels.fit([cube], outputs=None, scaling=ScalingConfig(kind=kind), mask_channel=True, **settings)
    return CubeRows(cube, channels), channels


def whole(rows):
    """All rows of a cube, put together and in model space."""
    out = np.full((len(rows.cube), 1, *rows.shape), 7e7, np.float32)
    everything = [(slice(0, rows.shape[0]), slice(0, rows.shape[1]))]
    for row in range(len(rows.edges) - 1):
        rows.read(row, everything).copy_into(out, (0, 0, 0), table=rows.table)
    return out


@pytest.mark.parametrize("kind", ["log", "dbr", "standardise", "identity"])
@pytest.mark.parametrize("form", ["netcdf", "zarr"])
def test_packed_rows_are_what_the_scaling_makes(tmp_path, numbers, kind, form) -> None:
    path = write(tmp_path / "a.nc", numbers, gain=0.3, offset=0.0)
    if form == "zarr":
        ds = xr.open_dataset(path, mask_and_scale=False, decode_times=False).drop_encoding().chunk(time=4, y=16, x=16)
        path = tmp_path / "a.zarr"
        ds.to_zarr(path, zarr_format=3, consolidated=False)
    cube = open_cube(path)
    rows, channels = rows_of(cube, kind)
    assert rows.table is not None
    assert rows.edges.tolist() == [0, 22], "small chunks together"
    np.testing.assert_array_equal(whole(rows), channels.encode(cube.load()))


def test_rows_and_tiles_are_the_stored_chunks(tmp_path, numbers, monkeypatch) -> None:
    monkeypatch.setattr("cubecast.reading.ROW_BYTES", 1)
    path = write(tmp_path / "a.nc", numbers)
    for start, edges in ((None, [0, 4, 8, 12, 16, 20, 22]), ("2020-01-01T03", [0, 1, 5, 9, 13, 17, 19])):
        rows, channels = rows_of(open_cube(path, start=start))
        assert rows.edges.tolist() == edges
        assert [t.tolist() for t in rows.tiles] == [[0, 16, 32, 40], [0, 16, 32, 36]]
        np.testing.assert_array_equal(whole(rows), channels.encode(rows.cube.load()))


def test_only_the_tiles_that_crops_touch_are_read(tmp_path, numbers, monkeypatch) -> None:
    monkeypatch.setattr("cubecast.reading.ROW_BYTES", 1)
    rows, channels = rows_of(open_cube(write(tmp_path / "a.nc", numbers)))
    slab = rows.read(2, [(slice(2, 10), slice(14, 20)), (slice(33, 38), slice(33, 36))])
    parts = sorted((b.y, b.x, *b.values.shape) for b in slab.boxes)
    assert parts == [(0, 0, 4, 1, 16, 32), (32, 32, 4, 1, 8, 4)]
    out = np.empty((3, 1, 8, 6), np.float32)
    slab.copy_into(out, (9, 2, 14), table=rows.table)
    np.testing.assert_array_equal(out, channels.encode(rows.cube[9:12, 2:10, 14:20].load()))


def test_files_that_are_packed_otherwise_are_unpacked_when_read(tmp_path, numbers) -> None:
    one = write(tmp_path / "a.nc", numbers[:9])
    two = write(tmp_path / "b.nc", numbers[9:], gain=0.25, first=9)
    rows, channels = rows_of(open_cube([one, two]))
    np.testing.assert_array_equal(whole(rows), channels.encode(rows.cube.load()))


def test_numbers_too_many_for_a_table_are_unpacked_when_read(tmp_path, numbers) -> None:
    """An archive that goes over to another type: the first file says how it begins."""
    one, two = (write(tmp_path / name, numbers[part], first=first) for name, part, first in
                (("a.nc", slice(0, 9), 0), ("b.nc", slice(9, None), 9)))  # fmt: skip
    cube = open_cube([one, two])
    frames = stored_frames(cube)
    read = frames.stored.read

    def wider(file, name, key):
        stored, coding = read(file, name, key)
        return (stored.astype("i4") if str(file).endswith("b.nc") else stored), coding

    object.__setattr__(frames.stored, "read", wider)
    rows, channels = rows_of(cube)
    np.testing.assert_array_equal(whole(rows), channels.encode(cube.load()))


def test_what_is_not_a_packed_archive_is_decoded(tmp_path, numbers) -> None:
    cube = open_cube(write(tmp_path / "a.nc", numbers))
    for other in (cube.compute(), cube.copy(data=cube.data * 2), cube[3:], cube.chunk(time=5)):
        rows, channels = rows_of(other)
        assert rows.table is None
        np.testing.assert_array_equal(whole(rows), channels.encode(other.compute()))
    assert rows_of(cube.assign_attrs(note="x"))[0].table is not None


def test_a_deep_copy_of_a_cube_reads_nothing(tmp_path, numbers, monkeypatch) -> None:
    cube = open_cube(write(tmp_path / "a.nc", numbers))
    monkeypatch.setattr(Frames, "_numbers", None)
    assert stored_frames(cube.copy(deep=True)) is stored_frames(cube) is not None


@given(st.integers(1, 5).flatmap(lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=1)))
def test_rectangles_cover_what_is_wanted_once(cells) -> None:
    wanted = np.array(cells)
    covered = np.zeros(wanted.shape, int)
    for y, x in rectangles(wanted):
        covered[y, x] += 1
    np.testing.assert_array_equal(covered, wanted)
