"""Writing and reading: CF by the IOOS checker, the same Dataset back, and whole files or none."""

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import dask
import dask.array
import netCDF4
import numpy as np
import pyproj
import pytest
import xarray as xr

from cubecast.cube import cube_step
from cubecast.ensemble_products import ensemble_mean, ensemble_probabilities, ensemble_quantiles
from cubecast.errors import InputError, OutputError, UsageError
from cubecast.product import build_forecast
from cubecast.write import atomic_path, name_for_pysteps, read_forecast, write_cube, write_forecast

NS = "datetime64[ns]"
ADDED = {"title", "source", "history", "Conventions"}


def grid(crs: str, *, units: str = "km", name: str = "rainfall_rate", unit: str = "mm h-1") -> xr.DataArray:
    """A rain cube (5, 6, 7) on a projected grid, y descending, with a missing corner."""
    values = np.random.default_rng(1).gamma(0.5, 2.0, (5, 6, 7)).astype("float32")
    values[:, 0, 0] = np.nan
    attrs = {"long_name": "rain rate", "units": unit, "grid_mapping": "proj"}
    if name == "rainfall_rate":
        attrs["standard_name"] = name
    return xr.DataArray(
        values,
        dims=("time", "y", "x"),
        coords={
            "time": np.datetime64("2020-10-31T00:00", "ns") + np.arange(5) * np.timedelta64(5, "m"),
            "y": ("y", np.arange(6)[::-1] * 2.0, {"units": units, "standard_name": "projection_y_coordinate"}),
            "x": ("x", np.arange(7) * 2.0, {"units": units}),
            "proj": ((), np.int32(0), pyproj.CRS(crs).to_cf()),
        },
        name=name,
        attrs=attrs,
    )


def only_wkt(cube: xr.DataArray) -> xr.DataArray:
    return cube.assign_coords(proj=((), 0, {"crs_wkt": cube.proj.attrs["crs_wkt"]}))


def sst() -> xr.DataArray:
    """Monthly SST on a global 0..360 grid with descending latitudes."""
    lat, lon = np.arange(80, -81, -20.0, dtype="float32"), np.arange(0, 360, 20.0, dtype="float32")
    values = (25 - np.abs(lat)[None, :, None] / 4 + np.zeros((4, 1, lon.size))).astype("float32")
    return xr.DataArray(
        values,
        dims=("time", "lat", "lon"),
        coords={
            "time": np.array(["2010-01", "2010-02", "2010-03", "2010-04"], "datetime64[M]").astype(NS),
            "lat": ("lat", lat, {"units": "degrees_north", "actual_range": np.array([80.0, -80.0], "float32")}),
            "lon": ("lon", lon, {"units": "degrees_east", "standard_name": "longitude", "bounds": "lon_bnds"}),
        },
        name="sst",
        attrs={"standard_name": "sea_surface_temperature", "units": "degC"},
    )


def series(stations: object) -> xr.DataArray:
    """A half-hourly temperature series at stations with positions."""
    return xr.DataArray(
        np.random.default_rng(2).normal(280, 5, (6, 3)),
        dims=("time", "station"),
        coords={
            "time": np.datetime64("2020-01-01", "ns") + np.arange(6) * np.timedelta64(30, "m"),
            "station": ("station", stations, {"long_name": "station"}),
            "lat": ("station", [50.0, 51.0, 52.0], {"units": "degrees_north", "standard_name": "latitude"}),
            "lon": ("station", [4.0, 5.0, 6.0], {"units": "degrees_east", "standard_name": "longitude"}),
        },
        name="air_temperature",
        attrs={"standard_name": "air_temperature", "units": "K"},
    )


def forecast(cube: xr.DataArray, *, members: int = 0, leads: int = 2) -> xr.Dataset:
    """Persistence from the second and third frame."""
    last = cube.values[1:3]
    shape = (2, members, leads) if members else (2, leads)
    index = (slice(None), *[None] * (len(shape) - 1))
    values = np.broadcast_to(last[index], shape + last.shape[1:])
    return build_forecast(
        {str(cube.name): values},
        cube,
        reference=cube[cube.dims[0]].values[1:3],
        step=cube_step(cube),
        attrs={"institution": "A weather service", "model": "persistence", "seed": 3},
    )


def products(ensemble: xr.Dataset) -> xr.Dataset:
    parts = [ensemble_mean(ensemble), ensemble_probabilities(ensemble, [0.1, 1]), ensemble_quantiles(ensemble, [0.5])]
    return parts[0].assign({n: v for part in parts for n, v in part.data_vars.items()})


def complaints(path: Path) -> list[str]:
    """Everything the IOOS compliance checker has against ``path`` as CF-1.11."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from compliance_checker.runner import CheckSuite

        suite = CheckSuite()
        suite.load_all_available_checkers()
        with suite.load_dataset(str(path)) as dataset:
            results, errors = suite.run_all(dataset, ["cf:1.11"])["cf:1.11"]
    assert not errors
    failed = [r for r in results if r.value is not True and r.value[0] < r.value[1]]
    return [f"{r.name}: {m}" for r in failed for m in r.msgs]


STEREO = "+proj=stere +lat_0=90 +lat_ts=60 +lon_0=25 +R=6371288"
ALBERS = "+proj=aea +lat_1=-18 +lat_2=-36 +lat_0=-37.852 +lon_0=144.752"
CF_CASES = {
    "km": lambda: forecast(grid(ALBERS)),
    "metres": lambda: forecast(grid(STEREO, units="m", unit="m s-1")),
    "utm": lambda: forecast(grid("EPSG:32633", units="m")),
    "only WKT": lambda: forecast(only_wkt(grid("EPSG:3413", units="m"))),
    "ensemble": lambda: forecast(grid("EPSG:3035"), members=3),
    "products": lambda: products(forecast(grid("EPSG:3035"), members=3)),
    "sst": lambda: forecast(sst()),
    "stations": lambda: forecast(series(np.array([3, 4, 5]))),
    "names": lambda: forecast(series(np.array(["De Bilt", "Uccle", "Århus"]))),
    "single series": lambda: forecast(series(np.arange(3)).isel(station=0)),
}


@pytest.mark.parametrize("case", CF_CASES)
def test_the_ioos_checker_has_nothing_to_say(case: str, tmp_path: Path) -> None:
    write_forecast(CF_CASES[case](), tmp_path / "f.nc")
    assert complaints(tmp_path / "f.nc") == []


@pytest.mark.parametrize("cube", [grid(STEREO), sst()], ids=["rain", "sst"])
def test_the_ioos_checker_accepts_cubes(cube: xr.DataArray, tmp_path: Path) -> None:
    write_cube(cube, tmp_path / "c.nc")
    assert complaints(tmp_path / "c.nc") == []


def test_the_ioos_checker_would_complain(tmp_path: Path) -> None:
    """The check above can fail: plain xarray's file of the same forecast is not clean."""
    forecast(grid(STEREO)).to_netcdf(tmp_path / "f.nc")
    assert any("Conventions" in c for c in complaints(tmp_path / "f.nc"))


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
@pytest.mark.parametrize("case", CF_CASES)
def test_what_is_read_is_what_was_written(case: str, suffix: str, tmp_path: Path) -> None:
    given = CF_CASES[case]()
    write_forecast(given, tmp_path / f"f{suffix}")
    back = read_forecast(tmp_path / f"f{suffix}")
    assert set(back.attrs) - set(given.attrs) == ADDED
    for name in given.variables:
        added = set(back[name].attrs) - set(given[name].attrs)
        assert name == "proj" or added <= {"standard_name", "units_metadata"}, name
        for key in added:
            del back[name].attrs[key]
        for key in set(given[name].attrs) - set(back[name].attrs):
            assert key in ("actual_range", "bounds"), (name, key)
            del given[name].attrs[key]
        assert given[name].dtype == back[name].dtype
    xr.testing.assert_identical(given.drop_attrs(deep=False), back.drop_attrs(deep=False))


@pytest.mark.parametrize("crs", [STEREO, ALBERS, "latlon"])
def test_under_the_names_of_pysteps_it_is_still_cf_and_a_forecast(crs: str, tmp_path: Path) -> None:
    cube = grid(STEREO if crs == "latlon" else crs, unit="m s-1", units="m")
    if crs == "latlon":
        lat = ("lat", np.linspace(50, 51, 6), {"units": "degrees_north"})
        lon = ("lon", np.linspace(5, 6, 7), {"units": "degrees_east"})
        attrs = {k: v for k, v in cube.attrs.items() if k != "grid_mapping"}
        cube = cube.drop_vars(["x", "y", "proj"]).rename(y="lat", x="lon").assign_coords(lat=lat, lon=lon)
        cube = cube.assign_attrs({**attrs, "grid_mapping": "none"})
    given = forecast(cube, members=3).isel(forecast_reference_time=[1])
    write_forecast(name_for_pysteps(given), tmp_path / "f.nc")
    assert complaints(tmp_path / "f.nc") == []
    back = read_forecast(tmp_path / "f.nc")
    rows = slice(None, None, -1) if crs == "latlon" else slice(None)
    rain = back["precip_intensity"]
    np.testing.assert_allclose(rain, 3.6e6 * given["rainfall_rate"].values[..., rows, :], rtol=1e-6)
    assert rain.dims == ("forecast_reference_time", "realization", "lead_time", "y", "x")
    assert rain["y"][0] > rain["y"][-1]
    assert ("polar_stereographic" in back.coords) == (crs == STEREO)
    np.testing.assert_array_equal(back["time"], given["valid_time"][0])
    with netCDF4.Dataset(tmp_path / "f.nc") as file:
        assert file["time"].units == "seconds since 2020-10-31 00:10:00"
        assert file["time"][:].tolist() == [300, 600]


def test_what_the_importer_of_pysteps_cannot_hold_is_refused() -> None:
    one = forecast(grid(STEREO))
    for wrong in (one, forecast(sst()).isel(forecast_reference_time=[0]), forecast(series(np.arange(3)))):
        with pytest.raises(InputError, match=r"a forecast for pysteps: .*allowed: one variable, of rain, after one"):
            name_for_pysteps(wrong)


def test_mercator_states_one_scale(tmp_path: Path) -> None:
    """pyproj names both; CF wants exactly one (the checker itself cannot read its own rule for this mapping)."""
    write_forecast(forecast(only_wkt(grid("EPSG:3832", units="m"))), tmp_path / "f.nc")
    attrs = read_forecast(tmp_path / "f.nc").proj.attrs
    assert attrs["grid_mapping_name"] == "mercator"
    assert ("standard_parallel" in attrs) + ("scale_factor_at_projection_origin" in attrs) == 1
    assert all("mercator" in c for c in complaints(tmp_path / "f.nc"))


def test_given_attributes_win_and_a_second_writing_changes_nothing(tmp_path: Path) -> None:
    given = forecast(grid(STEREO)).assign_attrs(title="Mine", history="made by hand", Conventions="CF-1.7")
    write_forecast(given, tmp_path / "a.nc")
    first = read_forecast(tmp_path / "a.nc")
    assert (first.attrs["title"], first.attrs["history"]) == ("Mine", "made by hand")
    assert first.attrs["Conventions"] == "CF-1.11"
    write_forecast(first, tmp_path / "b.nc")
    xr.testing.assert_identical(first, read_forecast(tmp_path / "b.nc"))


def test_the_layout_on_disk(tmp_path: Path) -> None:
    write_forecast(forecast(grid(STEREO)), tmp_path / "f.nc")
    with netCDF4.Dataset(tmp_path / "f.nc") as file:
        rain, lead = file["rainfall_rate"], file["lead_time"]
        assert rain.chunking() == [1, 1, 6, 7]
        assert rain.filters() | {"zlib": True, "shuffle": True, "fletcher32": True, "complevel": 4} == rain.filters()
        assert np.isnan(rain._FillValue)
        assert (lead.dtype, lead.units, lead.getncattr("dtype")) == (np.int64, "seconds", "timedelta64[ns]")
        assert file["forecast_reference_time"].dtype == np.int64
        assert rain.coordinates == "valid_time"
        for variable in file.variables.values():
            assert variable.name == "rainfall_rate" or "_FillValue" not in variable.ncattrs()
            assert not variable.shape or variable.filters()["fletcher32"]


def test_times_finer_than_a_second_are_exact(tmp_path: Path) -> None:
    cube = series(np.arange(3))
    cube = cube.assign_coords(time=np.datetime64("2020-01-01", "ns") + np.arange(6) * np.timedelta64(10, "ms"))
    given = build_forecast(
        {"air_temperature": np.zeros((1, 2, 3))}, cube, reference=cube.time.values[-1:], step=cube_step(cube)
    )
    write_forecast(given, tmp_path / "f.nc")
    back = read_forecast(tmp_path / "f.nc")
    assert back.lead_time.values.tolist() == [10_000_000, 20_000_000]
    assert (back.valid_time.values == given.valid_time.values).all()


def test_depth_forecasts_come_back(tmp_path: Path) -> None:
    cube = series(np.arange(3)).rename(time="depth").assign_coords(depth=("depth", np.arange(6) * 0.5, {"units": "ft"}))
    given = forecast(cube)
    write_forecast(given, tmp_path / "f.nc")
    back = read_forecast(tmp_path / "f.nc")
    assert back.sizes == given.sizes
    np.testing.assert_array_equal(back.valid_depth, given.valid_depth)


def test_attributes_that_netcdf_cannot_hold_become_json(tmp_path: Path) -> None:
    given = forecast(grid(STEREO)).assign_attrs(ok=True, none=None, config={"a": [1, 2]}, texts=["a", "b"], n=[1, 2])
    for path in (tmp_path / "f.nc", tmp_path / "f.zarr"):
        write_forecast(given, path)
        attrs = read_forecast(path).attrs
        assert [attrs[k] for k in ("ok", "none", "config", "texts")] == ["true", "null", '{"a": [1, 2]}', '["a", "b"]']
        assert list(attrs["n"]) == [1, 2]


def test_encodings_of_the_input_are_not_taken_over(tmp_path: Path) -> None:
    cube = grid(STEREO)
    cube.encoding = {"dtype": "int16", "scale_factor": 0.1, "_FillValue": -1, "chunksizes": (1, 99, 99)}
    cube.x.encoding = {"dtype": "int8", "_FillValue": 0}
    write_cube(cube, tmp_path / "c.nc")
    with xr.open_dataset(tmp_path / "c.nc") as back:
        np.testing.assert_array_equal(back.rainfall_rate, cube)
        np.testing.assert_array_equal(back.x, cube.x)


def test_a_cube_of_channels_is_one_variable_each(tmp_path: Path) -> None:
    one, two = grid(STEREO), grid(STEREO, name="wind", unit="m s-1")
    cube = xr.concat([one.drop_attrs(), two.drop_attrs()], "channel").transpose("time", "channel", "y", "x")
    cube = cube.assign_coords(
        channel=["rainfall_rate", "wind"],
        channel_units=("channel", ["mm h-1", "m s-1"]),
        channel_standard_name=("channel", ["rainfall_rate", ""]),
    ).assign_attrs(grid_mapping="proj")
    write_cube(cube, tmp_path / "c.zarr")
    with xr.open_zarr(tmp_path / "c.zarr", consolidated=False) as back:
        assert {n: v.attrs["units"] for n, v in back.data_vars.items() if v.ndim} == {
            "rainfall_rate": "mm h-1",
            "wind": "m s-1",
        }
        np.testing.assert_array_equal(back.wind, two)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_lazy_forecasts_are_written_chunk_by_chunk(suffix: str, tmp_path: Path) -> None:
    computed = []

    def block(block_id: tuple[int, ...]) -> np.ndarray:
        computed.append(block_id)
        return np.full((1, 1, 6, 7), sum(block_id), "float32")

    given = forecast(grid(STEREO), leads=4)
    lazy = dask.array.map_blocks(block, chunks=((1, 1), (1,) * 4, (6,), (7,)), dtype="float32", meta=np.empty(0, "f4"))
    given["rainfall_rate"] = given.rainfall_rate.copy(data=lazy)
    write_forecast(given, tmp_path / f"f{suffix}")
    assert sorted(computed) == [(i, j, 0, 0) for i in range(2) for j in range(4)]
    back = read_forecast(tmp_path / f"f{suffix}").rainfall_rate
    assert back.chunks == ((1, 1), (1,) * 4, (6,), (7,))
    np.testing.assert_array_equal(back[1, :, 0, 0], [1, 2, 3, 4])


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_in_the_middle_leaves_what_was_there(suffix: str, error: type, tmp_path: Path) -> None:
    def block(block_id: tuple[int, ...]) -> np.ndarray:
        if block_id[1] == 3:
            raise error("no more data")
        return np.zeros((1, 1, 6, 7), "float32")

    given = forecast(grid(STEREO), leads=4)
    write_forecast(given, tmp_path / f"f{suffix}")
    lazy = dask.array.map_blocks(block, chunks=((1, 1), (1,) * 4, (6,), (7,)), dtype="float32", meta=np.empty(0, "f4"))
    broken = given.assign(rainfall_rate=given.rainfall_rate.copy(data=lazy))
    with dask.config.set(scheduler="synchronous"), pytest.raises((OutputError, KeyboardInterrupt)) as caught:
        write_forecast(broken, tmp_path / f"f{suffix}")
    assert "no more data" in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == [f"f{suffix}"]
    xr.testing.assert_equal(read_forecast(tmp_path / f"f{suffix}"), given)


WRITER = """
import sys, time
import numpy as np, dask, dask.array, xarray as xr
from cubecast.write import write_forecast, read_forecast
given = read_forecast(sys.argv[1])
def block(block_id):
    time.sleep(0.02)
    print("block", flush=True)
    return np.zeros((1, 1, 6, 7), "float32")
lazy = dask.array.map_blocks(block, chunks=((1, 1), (1,) * 20, (6,), (7,)), dtype="float32", meta=np.empty(0, "f4"))
with dask.config.set(scheduler="synchronous"):
    write_forecast(given.assign(rainfall_rate=given.rainfall_rate.copy(data=lazy)), sys.argv[2])
print("done", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("suffix", "blocks"), [(".nc", 1), (".nc", 15), (".zarr", 7)])
def test_kill_9_leaves_nothing_under_the_final_name(suffix: str, blocks: int, tmp_path: Path) -> None:
    write_forecast(forecast(grid(STEREO), leads=20), tmp_path / "in.nc")
    out = tmp_path / f"out{suffix}"
    command = [sys.executable, "-c", WRITER, str(tmp_path / "in.nc"), str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for _ in range(blocks):
            assert child.stdout.readline() == "block\n"
        os.kill(child.pid, signal.SIGKILL)
        rest = child.stdout.read()
    assert "done" not in rest
    assert not out.exists()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".cubecast-tmp-")]
    write_forecast(read_forecast(tmp_path / "in.nc"), out)
    xr.testing.assert_equal(read_forecast(out), read_forecast(tmp_path / "in.nc"))


# -------------------------------------------------------------------------------------------------- errors


def test_forecasts_that_cannot_be_read(tmp_path: Path) -> None:
    good = tmp_path / "good.nc"
    write_forecast(forecast(grid(STEREO)), good)
    (tmp_path / "text.nc").write_text("not a netCDF file")
    (tmp_path / "empty.nc").write_bytes(b"")
    (tmp_path / "half.nc").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    (tmp_path / "folder.zarr").mkdir()
    grid(STEREO).to_dataset().to_netcdf(tmp_path / "cube.nc")
    grid(STEREO).to_dataset().to_netcdf(tmp_path / "classic.nc", format="NETCDF3_CLASSIC", engine="netcdf4")
    for name in ("absent.nc", "text.nc", "empty.nc", "half.nc", "folder.zarr", "cube.nc", "classic.nc", "absent.zarr"):
        with pytest.raises(InputError, match=name):
            read_forecast(tmp_path / name)


def test_things_that_are_no_forecast_are_not_written(tmp_path: Path) -> None:
    for bad in (grid(STEREO), grid(STEREO).to_dataset(), forecast(grid(STEREO)).assign(mask=("y", np.ones(6)))):
        with pytest.raises(InputError, match="not a forecast"):
            write_forecast(bad, tmp_path / "f.nc")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"'\.txt'.*allowed: .nc or .zarr"):
        write_forecast(forecast(grid(STEREO)), tmp_path / "f.txt")
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    given = forecast(grid(STEREO))
    (tmp_path / "folder.nc").mkdir()
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr" / "letter.txt").write_text("keep me")
    (tmp_path / "file.zarr").write_text("keep me")
    with pytest.raises(OutputError, match="no folder"):
        write_forecast(given, tmp_path / "absent" / "f.nc")
    for name in ("folder.nc", "mine.zarr", "file.zarr"):
        with pytest.raises(OutputError, match="of that name"):
            write_forecast(given, tmp_path / name)
    with pytest.raises(OutputError, match="device"):
        write_cube(grid(STEREO), _link(tmp_path / "null.nc", "/dev/null"))
    assert (tmp_path / "mine.zarr" / "letter.txt").read_text() == "keep me"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file.zarr", "folder.nc", "mine.zarr", "null.nc"]


def _link(path: Path, to: str) -> Path:
    path.symlink_to(to)
    return path


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="no permission"), atomic_path(tmp_path / "closed" / "f.txt") as temporary:
        temporary.write_text("x")


FULL = """
import resource, signal, sys
from cubecast.write import atomic_path, read_forecast, write_forecast
given = read_forecast(sys.argv[1]).load()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
if sys.argv[2].endswith(".bin"):
    with atomic_path(sys.argv[2]) as path:
        path.write_bytes(bytes(2000))
write_forecast(given, sys.argv[2])
"""


@pytest.mark.parametrize("name", ["f.bin", "f.nc", "f.zarr"])
def test_a_full_disk_leaves_nothing(name: str, tmp_path: Path) -> None:
    """Linux limits the size of a file for a process: the write fails as it does on a full disk."""
    (tmp_path / "out").mkdir()
    given = forecast(grid(STEREO), leads=3).isel(x=np.arange(400) % 7)
    given["rainfall_rate"] = given.rainfall_rate + np.random.default_rng(0).random(given.rainfall_rate.shape)
    write_forecast(given, tmp_path / "in.nc")
    command = [sys.executable, "-c", FULL, str(tmp_path / "in.nc"), str(tmp_path / "out" / name)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"OutputError: cannot write {tmp_path / 'out' / name}: found" in run.stderr
    assert name == "f.nc" or "a full disk" in run.stderr
    assert "bytes free" in run.stderr
    assert not list((tmp_path / "out").iterdir())


# -------------------------------------------------------------------------------------------------- atomic_path


def test_atomic_path_replaces_files_and_folders(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with atomic_path(tmp_path / "a.txt") as temporary:
            assert temporary.parent == tmp_path
            assert temporary.suffix == ".txt"
            temporary.write_text(text)
        with atomic_path(tmp_path / "d", replace_folder=True) as temporary:
            temporary.mkdir()
            (temporary / text).write_text(text)
    assert (tmp_path / "a.txt").read_text() == "two"
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["two"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "d"]


def test_atomic_path_follows_links_and_keeps_the_mode_of_the_umask(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("old")
    link = _link(tmp_path / "link.txt", "real.txt")
    old = os.umask(0o027)
    try:
        with atomic_path(link) as temporary:
            temporary.write_text("new")
    finally:
        os.umask(old)
    assert link.is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"
    assert (tmp_path / "real.txt").stat().st_mode & 0o777 == 0o640


def test_readers_see_the_old_or_the_new_file_while_it_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"a" * 100_000)
    code = (
        "import sys; from cubecast.atomic import atomic_path\nprint('go', flush=True)\n"
        "for i in range(60):\n"
        "    with atomic_path(sys.argv[1]) as path: path.write_bytes(bytes([97 + i % 26]) * 100_000)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        seen = set()
        start = time.monotonic()
        while child.poll() is None and time.monotonic() - start < 20:
            data = target.read_bytes()
            assert len(data) == 100_000
            assert len(set(data)) == 1
            seen.add(data[0])
    assert len(seen) > 1
