"""What can be named, which variable is meant, which cubes belong together, and what is refused."""

import datetime
import logging
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr

from cubecast.cube import CHANNEL, channel_names, channel_units, check_cube, select_channel
from cubecast.errors import InputError, UsageError
from cubecast.sources import open_cube, open_cubes, open_static
from cubecast.write import write_cube

HOURS = "hours since 2020-01-01"


def dataset(first: int = 0, frames: int = 4, *, step: int = 1, x0: float = 0.0, **names: str) -> xr.Dataset:
    """Fields with CF metadata; the value of every pixel is the hour. Keywords: variables and their units."""
    hours = first + step * np.arange(frames)
    values = np.broadcast_to(hours[:, None, None], (frames, 3, 4)).astype("f4")
    time = ("time", np.datetime64("2020-01-01", "ns") + hours * np.timedelta64(3600, "s"), {"standard_name": "time"})
    x = ("x", x0 + np.arange(4.0), {"units": "m", "standard_name": "projection_x_coordinate"})
    y = ("y", np.arange(3.0), {"units": "m", "standard_name": "projection_y_coordinate"})
    variables = {
        n: (("time", "y", "x"), values + 100 * i, {"units": u})
        for i, (n, u) in enumerate((names or {"a": "1"}).items())
    }
    return xr.Dataset(variables, coords={"time": time, "y": y, "x": x})


def save(ds: xr.Dataset, path: Path, units: str = HOURS) -> Path:
    ds.to_netcdf(path, engine="netcdf4", encoding={"time": {"units": units}})
    return path


# ------------------------------------------------------------------------------------------------ what can be named


def test_glob_list_and_single_path_are_the_same(tmp_path: Path) -> None:
    files = [save(dataset(4 * i), tmp_path / f"{i}.nc") for i in range(3)]
    for source in (str(tmp_path / "*.nc"), files, [str(f) for f in files], [files[:1], str(tmp_path / "[12].nc")]):
        cube = open_cube(source)
        np.testing.assert_array_equal(cube.values[:, 0, 0], np.arange(12))
    assert open_cube(files[0]).sizes["time"] == 4
    assert open_cube(f"file://{files[0]}").sizes["time"] == 4


def test_progress_sees_every_file(tmp_path: Path) -> None:
    for i in range(3):
        save(dataset(4 * i), tmp_path / f"{i}.nc")
    seen = []
    open_cube(
        str(tmp_path / "*.nc"), progress=lambda items, text, total: (seen.append((i, text, total)) or i for i in items)
    )
    assert [Path(s[0]).name for s in seen] == ["0.nc", "1.nc", "2.nc"]
    assert seen[0][1:] == ("opening files", 3)


def test_objects_and_files_together(tmp_path: Path) -> None:
    path = save(dataset(4), tmp_path / "a.nc")
    cube = open_cube([dataset(0)["a"], path])
    np.testing.assert_array_equal(cube.values[:, 0, 0], np.arange(8))
    check_cube(cube)


@pytest.mark.parametrize("source", ["no.nc", "no*.nc", []])
def test_nothing_there(source: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"no such file|no files"):
        open_cube(source)


@pytest.mark.parametrize("source", [3, None, b"a.nc", [1]])
def test_what_is_no_source(source: object) -> None:
    with pytest.raises(UsageError, match="cannot open a cube"):
        open_cube(source)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_what_was_written_opens_as_it_was(tmp_path: Path, rain, suffix: str) -> None:
    cube = rain(8, missing=[3])
    write_cube(cube, tmp_path / f"a{suffix}")
    again = open_cube(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(again.values, cube.values)
    np.testing.assert_array_equal(again.time.values, cube.time.values)
    np.testing.assert_array_equal(again.y.values, cube.y.values)
    assert again.name == cube.name
    assert cube.attrs.items() <= again.attrs.items()


# ---------------------------------------------------------------------------------------------- which variable


def test_the_only_variable_is_taken(tmp_path: Path) -> None:
    ds = dataset()
    ds["quality"] = (
        ("time", "y", "x"),
        np.zeros((4, 3, 4), "i1"),
        {"flag_values": [0, 1], "flag_meanings": "good bad"},
    )
    ds["mean"] = ("time", np.zeros(4), {"units": "1"})
    ds["mask"] = (("y", "x"), np.zeros((3, 4)), {"units": "1", "standard_name": "latitude"})
    assert open_cube(save(ds, tmp_path / "a.nc")).name == "a"


def test_rain_is_preferred_and_ties_are_listed(tmp_path: Path) -> None:
    ds = dataset(a="1", b="mm h-1")
    with pytest.raises(InputError, match=r"several variables in .*a\.nc: found a, b; name one, .*variable='a'"):
        open_cube(save(ds, tmp_path / "a.nc"))
    ds["b"].attrs["standard_name"] = "rainfall_rate"
    assert open_cube(save(ds, tmp_path / "b.nc")).name == "b"
    assert open_cube(save(ds, tmp_path / "b.nc"), variable="a").name == "a"


def test_no_such_variable_lists_those_there(tmp_path: Path) -> None:
    path = save(dataset(a="1", b="mm h-1"), tmp_path / "a.nc")
    with pytest.raises(InputError, match=r"no variable 'c' in .*a\.nc: allowed: a, b"):
        open_cube(path, variable="c")
    with pytest.raises(InputError, match="no variable 'c'"):
        open_cube(path, variable=["a", "c"])
    with pytest.raises(InputError, match="no variable 'c' in the Dataset: allowed: a, b"):
        open_cube(dataset(a="1", b="mm h-1"), variable="c")
    with pytest.raises(UsageError, match="variable"):
        open_cube(path, variable=[])


def test_name_of_the_rate_finds_the_amount(archive) -> None:
    files = archive([10, 20])
    assert open_cube(files, variable="rainfall_rate").name == "rainfall_rate"
    assert open_cube(files, variable="precipitation").name == "rainfall_rate"


def test_list_of_variables_becomes_channels(tmp_path: Path) -> None:
    ds = dataset(a="K", b="mm h-1")
    ds["b"].attrs["standard_name"] = "rainfall_rate"
    for source in (save(ds, tmp_path / "a.nc"), ds):
        cube = open_cube(source, variable=["b", "a"])
        assert cube.dims == ("time", CHANNEL, "y", "x")
        assert channel_names(cube) == ("b", "a")
        assert channel_units(cube) == {"b": "mm h-1", "a": "K"}
        assert list(cube.channel_standard_name.values) == ["rainfall_rate", ""]
        np.testing.assert_array_equal(cube.values[:, :, 1, 1], [[100, 0], [101, 1], [102, 2], [103, 3]])
        check_cube(cube)
        assert select_channel(cube, "b").attrs["standard_name"] == "rainfall_rate"
    again = open_cube(cube, variable=["a"])
    assert channel_names(again) == ("a",)


def test_channels_from_different_files_share_their_times(tmp_path: Path) -> None:
    a, b = save(dataset(0, 4, a="K"), tmp_path / "a.nc"), save(dataset(2, 4, b="1"), tmp_path / "b.nc")
    cube = open_cube([a, b], variable=["a", "b"])
    np.testing.assert_array_equal(cube.values[:, :, 0, 0], [[2, 2], [3, 3]])
    far = save(dataset(100, 4, b="1"), tmp_path / "far.nc")
    with pytest.raises(InputError, match="no common time"):
        open_cube([a, far], variable=["a", "b"])
    other = save(dataset(0, 4, x0=7.0, b="1"), tmp_path / "other.nc")
    with pytest.raises(InputError, match=r"no variable 'b' on the grid of .*a\.nc"):
        open_cube([a, other], variable=["a", "b"])


# ------------------------------------------------------------------------------------------- which belong together


def test_other_grids_become_other_cubes(tmp_path: Path) -> None:
    files = [save(dataset(0), tmp_path / "a.nc"), save(dataset(0, x0=7.0), tmp_path / "b.nc")]
    files += [save(dataset(4), tmp_path / "c.nc")]
    cubes = open_cubes(files)
    assert [c.sizes["time"] for c in cubes] == [8, 4]
    with pytest.raises(
        InputError, match=r"more than one grid.*a\.nc .*x 0\.\.3 m.* and .*b\.nc .*x 7\.\.10 m.*open_cubes"
    ):
        open_cube(files)


def test_noise_in_coordinates_is_no_other_grid(tmp_path: Path) -> None:
    files = [save(dataset(0), tmp_path / "a.nc"), save(dataset(4, x0=1e-6), tmp_path / "b.nc")]
    cube = open_cube(files)
    np.testing.assert_array_equal(cube.values[:, 0, 0], np.arange(8))
    np.testing.assert_array_equal(cube.x.values, np.arange(4.0))


def test_other_units_become_other_cubes(tmp_path: Path) -> None:
    files = [save(dataset(0, a="K"), tmp_path / "a.nc"), save(dataset(4, a="degC"), tmp_path / "b.nc")]
    assert [c.attrs["units"] for c in open_cubes(files)] == ["K", "degC"]
    with pytest.raises(InputError, match=r"a in K.* and .*a in degC"):
        open_cube(files)


def test_other_steps_on_one_grid_become_other_cubes(tmp_path: Path) -> None:
    files = [save(dataset(0, step=2), tmp_path / "a.nc"), save(dataset(101, step=3), tmp_path / "b.nc")]
    cubes = open_cubes([*files, save(dataset(113, step=3), tmp_path / "c.nc")])
    assert [c.sizes["time"] for c in cubes] == [4, 8]
    assert [c.sizes["time"] for c in open_cubes([dataset(0, step=2), dataset(101, step=3)])] == [4, 4]


def test_variables_that_come_in_several_steps_become_a_cube_for_each(tmp_path: Path) -> None:
    files = [
        save(dataset(first, step=step, **{name: "1"}), tmp_path / f"{name}{step}.nc")
        for name in ("a", "b")
        for first, step in ((0, 2), (101, 3))
    ]
    cubes = open_cubes(files, variable=["a", "b"])
    assert [list(c.time.dt.hour.values[:2]) for c in cubes] == [[0, 2], [5, 8]]
    assert [c.shape[:2] for c in cubes] == [(4, 2)] * 2
    with pytest.raises(InputError, match=r"no variable 'b' on the grid of .*a3\.nc"):
        open_cubes(files[:3], variable=["a", "b"])
    other = save(dataset(50, step=2, a="m"), tmp_path / "other.nc")
    with pytest.raises(InputError, match="variable 'a' in several parts"):
        open_cubes([files[0], other, files[2]], variable=["a", "b"])


def test_stamps_in_floating_point_days_are_those_in_whole_minutes(tmp_path: Path) -> None:
    """Days since 1970 in 64 bits are off by up to 300 ns: no frame may be lost by it."""
    minutes = np.arange(24) * np.timedelta64(5, "m")
    fine = dataset(0, frames=24, a="1").assign_coords(time=("time", np.datetime64("2020-01-01", "ns") + minutes))
    fine.to_netcdf(tmp_path / "a.nc", encoding={"time": {"units": "days since 1970-01-01", "dtype": "f8"}})
    fine.rename(a="b").to_netcdf(tmp_path / "b.nc", encoding={"time": {"units": "minutes since 2020-01-01"}})
    cube = open_cube(tmp_path / "a.nc")
    np.testing.assert_array_equal(cube.time, fine.time)
    assert open_cube(tmp_path / "a.nc", start="2020-01-01T00:25").time.values[0] == fine.time.values[5]
    assert open_cube([tmp_path / "a.nc", tmp_path / "b.nc"], variable=["a", "b"]).sizes["time"] == 24


def test_frame_on_another_grid_is_named(archive) -> None:
    good = archive([10, 20, 30])
    bad = archive([40], x=np.arange(5) * 0.7)
    with pytest.raises(InputError, match=f"more than one grid.*{bad[0].name}"):
        open_cube([*good[1:], *bad])
    with pytest.raises(InputError, match=f"{bad[0].name}.*step of 'time' is unknown: found 1 frame"):
        open_cubes([*good[1:], *bad])


# ------------------------------------------------------------------------------------------------------ selection


def test_start_and_end_are_inclusive_and_may_be_partial(tmp_path: Path) -> None:
    path = save(dataset(0, 24 * 40), tmp_path / "a.nc")
    assert open_cube(path, start="2020-02").values[:, 0, 0][0] == 31 * 24
    assert open_cube(path, end="2020-01").values[:, 0, 0][-1] == 31 * 24 - 1
    picked = open_cube(path, start="2020-01-01T05:00", end=datetime.datetime(2020, 1, 1, 7))
    np.testing.assert_array_equal(picked.values[:, 0, 0], [5, 6, 7])
    assert open_cube(path, start="2020-01-02T00:00Z").values[0, 0, 0] == 24
    assert open_cube(path, start="2020").sizes["time"] == 24 * 40


def test_empty_selection_says_what_there_is(tmp_path: Path) -> None:
    path = save(dataset(0, 5), tmp_path / "a.nc")
    with pytest.raises(
        InputError, match=r"no frames from 2021 to the last: found time from 2020-01-01T00:00:00 to .*T04"
    ):
        open_cube(path, start="2021")
    with pytest.raises(UsageError, match=r"start or end.*someday"):
        open_cube(path, start="someday")


def test_numbers_select_other_sequences() -> None:
    series = xr.DataArray(np.arange(5.0), dims="depth", coords={"depth": np.arange(5) * 0.5}, attrs={"units": "1"})
    np.testing.assert_array_equal(open_cube(series, start=0.5, end="1.5").values, [1, 2, 3])
    with pytest.raises(UsageError, match="numbers"):
        open_cube(series, start="someday")


# ------------------------------------------------------------------------------------------------------- refusals


def test_text_named_nc(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    path.write_text("time,rain\n1,2\n")
    with pytest.raises(InputError, match=r"cannot open .*a\.nc: found text: 'time,rain'; allowed: netCDF"):
        open_cube(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="an empty file"):
        open_cube(path)
    path.write_bytes(b"\x1f\x8b\x08\x00\x00\x00\x00\x00")
    with pytest.raises(InputError, match="gzip"):
        open_cube(path)
    path.write_bytes(b"\x00\xff" * 10)
    with pytest.raises(InputError, match="begins with"):
        open_cube(path)


def test_folder_without_zarr_metadata(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no Zarr metadata.*\*\.nc"):
        open_cube(tmp_path)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.97])
def test_truncated_netcdf4(tmp_path: Path, share: float, archive) -> None:
    files = archive([10, 20, 30])
    data = files[1].read_bytes()
    files[1].write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match=f"cannot read .*{files[1].name}.*get it again"):
        open_cube(files)


def test_damaged_values_are_an_input_error_when_read(tmp_path: Path) -> None:
    path = save(dataset(0, 3), tmp_path / "a.nc")
    dataset(0, 3).to_netcdf(
        path, engine="netcdf4", encoding={"a": {"fletcher32": True, "chunksizes": (3, 3, 4)}, "time": {"units": HOURS}}
    )
    data, raw = bytearray(path.read_bytes()), dataset(0, 3)["a"].values.tobytes()
    data[data.index(raw) + 50] ^= 0xFF
    path.write_bytes(bytes(data))
    cube = open_cube(path)
    with pytest.raises(InputError, match=r"cannot read .*a\.nc"):
        cube.compute()


def test_file_that_is_gone_when_read(archive) -> None:
    files = archive([10, 20])
    cube = open_cube(files)
    files[1].unlink()
    with pytest.raises(InputError, match=files[1].name):
        cube.compute()


def test_file_that_was_replaced_when_read(archive) -> None:
    files = archive([10, 20])
    cube = open_cube(files)
    archive([10], shape=(2, 2))
    with pytest.raises(InputError, match=f"{files[0].name}.*shape"):
        cube.compute()


def test_no_time(tmp_path: Path) -> None:
    ds = dataset().isel(time=0, drop=True)
    ds.to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    with pytest.raises(InputError, match=r"variable 'a' of .*a\.nc has no time: found dims \(y, x\)"):
        open_cube(tmp_path / "a.nc")
    with pytest.raises(InputError, match="has no time"):
        open_cube(ds)
    bare = xr.DataArray(np.zeros((3, 4)), dims=("y", "x"), name="a", attrs={"units": "1"})
    with pytest.raises(InputError, match="has no time"):
        open_cube(bare.assign_coords(y=np.arange(3), x=np.arange(4)))


def test_irregular_time(tmp_path: Path) -> None:
    ds = dataset(0, 5).isel(time=[0, 1, 2, 4])
    ds["time"] = ds.time + np.array([0, 0, 0, 20], "m8[m]")
    with pytest.raises(InputError, match=r"a\.nc: irregular sequence coordinate.*04:20"):
        open_cube(save(ds, tmp_path / "a.nc", units="minutes since 2020-01-01"))


def test_missing_time(tmp_path: Path) -> None:
    path = save(dataset(), tmp_path / "a.nc")
    with netCDF4.Dataset(path, "a") as file:
        file["time"].setncattr("missing_value", np.int64(2))
    with pytest.raises(InputError, match=r"missing time in .*a\.nc"):
        open_cube(path)


def test_calendars_that_numpy_does_not_know(tmp_path: Path) -> None:
    path = save(dataset(), tmp_path / "a.nc")
    with netCDF4.Dataset(path, "a") as file:
        file["time"].calendar = "360_day"
    with pytest.raises(InputError, match=r"calendar '360_day'.*convert_calendar"):
        open_cube(path)
    other = dataset().assign_coords(time=xr.date_range("2020-01-01", periods=4, calendar="noleap", use_cftime=True))
    with pytest.raises(InputError, match="standard calendar"):
        open_cube(other)


@pytest.mark.parametrize(("unit", "text"), [(None, "has no units"), ("", "has no units"), ("K", "wrong units.*'K'")])
def test_wrong_or_absent_units(tmp_path: Path, unit: str | None, text: str) -> None:
    ds = dataset()
    ds["a"].attrs = {"standard_name": "rainfall_rate"} | ({} if unit is None else {"units": unit})
    with pytest.raises(InputError, match=text):
        open_cube(save(ds, tmp_path / "a.nc"))
    with pytest.raises(InputError, match=text):
        open_cube(ds)


def test_chunks_must_name_dims(tmp_path: Path) -> None:
    path = save(dataset(), tmp_path / "a.nc")
    for chunks in ({"z": 1}, {"time": 0}, {"time": "auto"}):
        with pytest.raises(UsageError, match=r"chunks.*time, y, x"):
            open_cube(path, chunks=chunks)


def test_nothing_is_logged_or_read_when_all_is_well(archive, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="cubecast"):
        open_cube(archive([10, 20, 30])).compute()
    assert not caplog.records


# -------------------------------------------------------------------------------------------------- static fields


def test_static_fields(tmp_path: Path) -> None:
    ds = dataset().isel(time=[0]).rename(a="height").assign(note=("n", ["x"]))
    path = tmp_path / "a.nc"
    ds.to_netcdf(path, engine="netcdf4")
    for source in (path, ds, ds["height"]):
        fields = open_static(source)
        assert list(fields.data_vars) == ["height"]
        assert fields["height"].dims == ("y", "x")
    with pytest.raises(InputError, match="no static fields"):
        open_static(dataset())
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="cannot read"):
        open_static(path)
