"""Runs over an archive on a real cluster: what `predict` gives, gone on with, and honest about what failed."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
import zarr
from distributed import LocalCluster

import cubecast
from cubecast.__main__ import main
from cubecast.archive import run_archive, running
from cubecast.archive.histories import assemble, open_archive
from cubecast.errors import FailedError, InputError, OutputError, UsageError
from cubecast.sources import open_cube
from cubecast.sources.probe import Probe
from cubecast.write import read_forecast, write_cube

TIMES = ["0010", "0015", "0035", "0040", "0045"]


@pytest.fixture
def run(cluster: LocalCluster, model: Path) -> Callable[..., dict[str, Any]]:
    def made(source: Path | str, output: Path, **settings: Any) -> dict[str, Any]:
        name = str(source / "*.nc") if isinstance(source, Path) and source.is_dir() else str(source)
        settings = {"model": model, "scheduler": cluster.scheduler_address, **settings}
        return run_archive([name], settings.pop("model"), output, **settings)

    return made


def counts(report: dict[str, Any]) -> tuple[int, int, int]:
    found = report["forecasts"]
    assert found["wanted"] == sum(found[k] for k in ("written", "there", "failed"))
    return found["written"], found["there"], found["failed"]


def made(folder: Path) -> list[str]:
    return sorted(p.name.removeprefix("nowcast_20200601T").removesuffix("00.nc") for p in folder.glob("nowcast_*.nc"))


def test_each_time_with_a_history_has_the_forecast_that_predict_gives(run, archive, model, tmp_path) -> None:
    report = run(archive, tmp_path / "out")
    assert counts(report) == (5, 0, 0)
    assert made(tmp_path / "out") == TIMES
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    assert report["state"] == "ended"
    assert report["failed"] == report["unreadable_files"] == []
    cube, loaded = open_cube(str(archive / "*.nc")), cubecast.Nowcaster.load(model)
    for time in TIMES:
        found = read_forecast(tmp_path / "out" / f"nowcast_20200601T{time}00.nc")
        expected = loaded.predict(cube, at=f"2020-06-01T{time[:2]}:{time[2:]}")
        xr.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)  # other threads round otherwise
        source = json.loads(found.attrs["input_data"])["source"]
        assert source.count(".nc") == 3
        assert source.endswith(f"rain_{time}.nc")


def test_a_second_run_makes_what_is_not_there_or_not_whole_or_of_other_input(
    run, archive, models, rain, tmp_path
) -> None:
    out = tmp_path / "out"
    run(archive, out)
    files = {time: out / f"nowcast_20200601T{time}00.nc" for time in TIMES}
    before = {time: path.stat().st_mtime_ns for time, path in files.items()}
    files["0010"].unlink()
    whole = files["0015"].read_bytes()
    files["0015"].write_bytes(whole[: len(whole) // 2])
    assert counts(run(archive, out)) == (2, 3, 0)
    assert files["0015"].stat().st_size == len(whole)
    assert all(files[time].stat().st_mtime_ns == before[time] for time in TIMES[2:])
    write_cube(rain(10)[9:10] * 2, archive / "rain_0045.nc")
    assert counts(run(archive, out)) == (1, 4, 0), "a frame was replaced by a corrected one"
    assert counts(run(archive, out, model=models / "other")) == (5, 0, 0)
    assert counts(run(archive, out, model=models / "other", horizon=3)) == (5, 0, 0)


def test_a_store_by_region_is_what_the_files_are(run, archive, models, tmp_path) -> None:
    cube = open_cube(str(archive / "*.nc")).load()
    cube.to_dataset().to_zarr(tmp_path / "archive.zarr", zarr_format=2, consolidated=True)
    url = (tmp_path / "archive.zarr").as_uri()
    run(archive, tmp_path / "out")
    store = tmp_path / "out.zarr"
    report = run(url, store)
    assert counts(report) == (5, 0, 0)
    assert json.loads((tmp_path / "out.report.json").read_text()) == report
    found = read_forecast(store)
    assert (found["fingerprint"] != 0).all()
    for i, time in enumerate(TIMES):
        one = read_forecast(tmp_path / "out" / f"nowcast_20200601T{time}00.nc")
        xr.testing.assert_equal(found.drop_vars("fingerprint").isel(forecast_reference_time=[i]), one)
    assert counts(run(url, store)) == (0, 5, 0)
    assert counts(run(url, store, at=["2020-06-01T00:40"])) == (0, 1, 0)
    with pytest.raises(OutputError, match="found forecasts of another model, grid or horizon"):
        run(url, store, model=models / "other")
    write_cube(cube.assign_coords(x=cube.x + 1000), tmp_path / "moved.nc")
    with pytest.raises(OutputError, match="found forecasts of another model, grid or horizon"):
        run(tmp_path / "moved.nc", store)
    run(archive, tmp_path / "short.zarr", end="2020-06-01T00:15")
    with pytest.raises(OutputError, match="found a store of other reference times"):
        run(archive, tmp_path / "short.zarr")


def test_a_forecast_that_is_not_complete_in_a_store_is_made_again(run, archive, tmp_path) -> None:
    store = tmp_path / "out.zarr"
    run(archive, store)
    whole = read_forecast(store).load()
    group = zarr.open_group(store, mode="r+")
    group["fingerprint"][3] = 0  # what a kill leaves
    group["rainfall_rate"][3] = np.nan
    assert counts(run(archive, store)) == (1, 4, 0)
    xr.testing.assert_equal(read_forecast(store).load(), whole)


def test_broken_files_cost_their_own_forecasts_alone(run, archive, cluster, model, tmp_path, capfd) -> None:
    unreadable, damaged = archive / "rain_0000.nc", archive / "rain_0045.nc"
    unreadable.write_bytes(unreadable.read_bytes()[:3000])
    damage_values(damaged)
    out = tmp_path / "out"
    code = main(
        [
            "batch",
            str(archive / "*.nc"),
            "--model",
            str(model),
            "-o",
            str(out),
            "--scheduler",
            cluster.scheduler_address,
        ]
    )
    assert code == 1
    printed = capfd.readouterr()
    assert printed.out == "3 written, 0 there already, 1 failed\n"
    assert printed.err.splitlines()[-1] == (
        "cubecast: error: 1 forecasts failed, 1 files could not be read: " + f"read {out / 'report.json'}"
    )
    assert made(out) == ["0015", "0035", "0040"]
    report = json.loads((out / "report.json").read_text())
    (failed,) = report["failed"]
    assert failed["reference"] == "2020-06-01T00:45:00.000000000"
    assert failed["forecast"] == "nowcast_20200601T004500.nc"
    assert "cannot read" in failed["reason"]
    assert str(damaged) in failed["reason"]
    (refused,) = report["unreadable_files"]
    assert refused["file"] == str(unreadable)
    assert "cannot read" in refused["reason"]


def test_a_file_that_ends_its_reader_costs_itself_alone(archive, monkeypatch) -> None:
    """A pipe, of which no end comes: the helper is ended by its clock, as it would be by a crash of HDF5."""
    os.mkfifo(archive / "rain_0050.nc")
    monkeypatch.setattr("cubecast.sources.probe.SHARED", helper := Probe(seconds=8))
    found = open_archive([str(archive / "*.nc")], variable=["rainfall_rate"], progress=None)
    assert helper._helper is None, "it ends when all files are open"
    assert list(found.refused) == [str(archive / "rain_0050.nc")]
    assert "more than 8 s of reading" in found.refused[str(archive / "rain_0050.nc")]
    assert len(found.cube) == 9


def damage_values(path: Path) -> None:
    """Change one byte of compressed values: the file still opens, and a checksum finds out."""
    whole = path.read_bytes()
    for at in (i for i in range(len(whole)) if whole[i : i + 2] == b"\x78\x5e"):  # where zlib begins
        path.write_bytes(whole[: at + 9] + bytes([whole[at + 9] ^ 0xFF]) + whole[at + 10 :])
        try:
            cube = open_cube(path)
        except InputError:  # it was a coordinate
            continue
        with pytest.raises(InputError):
            cube.load()
        return
    pytest.fail("no compressed values found")


def test_reference_times_are_chosen(run, archive, tmp_path) -> None:
    out = tmp_path / "out"
    run(archive, out, start="2020-06-01T00:15", end="2020-06-01T00:40", every=2)
    assert made(out) == ["0015", "0040"]
    report = run(archive, out, at=["2020-06-01T00:35Z", "2020-06-01T00:30", "2020-06-01T09:00"])
    assert counts(report) == (1, 0, 2)
    assert "frames are missing before" in report["failed"][0]["reason"]
    assert "is not in the cube" in report["failed"][1]["reason"]


def test_ensembles_on_grids_that_memory_does_not_hold_go_in_tiles(run, models, rain, tmp_path) -> None:
    write_cube(rain(3, size=(300, 280)), tmp_path / "large.nc")
    ask = {"model": models / "other", "members": 2, "seed": 5}
    assert counts(run(tmp_path / "large.nc", tmp_path / "tiles.zarr", memory="520MB", **ask)) == (1, 0, 0)
    assert counts(run(tmp_path / "large.nc", tmp_path / "whole", **ask)) == (1, 0, 0)
    (path,) = (tmp_path / "whole").glob("*.nc")
    tiles, whole = read_forecast(tmp_path / "tiles.zarr"), read_forecast(path)
    assert whole.sizes["realization"] == 2
    assert tiles["rainfall_rate"].chunks != whole["rainfall_rate"].chunks
    xr.testing.assert_allclose(tiles.drop_vars("fingerprint"), whole, atol=1e-3, rtol=1e-4)
    expected = cubecast.Nowcaster.load(models / "other").predict(open_cube(tmp_path / "large.nc"), members=2, seed=5)
    xr.testing.assert_allclose(whole, expected, atol=1e-5, rtol=1e-5)


def test_several_variables_maps_and_matching(run, rain, tmp_path) -> None:
    cube = rain(30)
    both = xr.merge([cube, (cube * 2 + 1).rename("other").assign_attrs(standard_name="", units="K")])
    both.to_netcdf(tmp_path / "two.nc")
    cubes = open_cube(tmp_path / "two.nc", variable=["rainfall_rate", "other"])
    small = {"history": 3, "horizon": 2, "epochs": 1, "hidden_channels": [4], "crop": None, "precision": "fp32"}
    model = cubecast.Nowcaster(**small, outputs=["rainfall_rate"]).fit(cubes)
    model.save(tmp_path / "two")
    settings = {"model": tmp_path / "two", "variable": ["rainfall_rate", "other"], "at": ["2020-06-01T01:00"]}
    assert counts(run(tmp_path / "two.nc", tmp_path / "out", maps=True, matched=True, **settings)) == (1, 0, 0)
    found = read_forecast(tmp_path / "out" / "nowcast_20200601T010000.nc")
    expected = cubecast.match_distribution(model.predict(cubes, at="2020-06-01T01:00"), cubes)
    xr.testing.assert_allclose(found, expected, atol=1e-3, rtol=1e-4)
    assert len(list((tmp_path / "out" / "maps" / "nowcast_20200601T010000").glob("*.png"))) >= 2


def test_variables_of_different_steps_in_files_of_their_own(rain, tmp_path) -> None:
    """A history has the frames of its own times, and no file is said to be unreadable for what it is not for."""
    fine = rain(31)
    coarse = (fine[::3] + 1).rename("other").assign_attrs(standard_name="", units="K")
    for cube in (fine, coarse):
        cube.to_netcdf(tmp_path / f"{cube.name}.nc")
    archive = open_archive([str(tmp_path / "*.nc")], variable=["rainfall_rate", "other"], progress=None)
    assert archive.refused == {}
    history = assemble(archive.history(5, 3), archive.templates, archive.names)
    xr.testing.assert_equal(history.load(), archive.cube[3:6].load())
    np.testing.assert_array_equal(history[:, 0], fine[[9, 12, 15]])


def test_what_cannot_be_begun_is_said_at_once(run, archive, model, tmp_path, monkeypatch) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="no time with a history of 3 frames: found 9 frames"):
        run(archive, out, start="2021-01-01")
    with pytest.raises(UsageError, match="start or end: found soon to None"):
        run(archive, out, start="soon")
    with pytest.raises(UsageError, match="--at"):
        run(archive, out, at=["soon"])
    with pytest.raises(UsageError, match="--at beside"):
        run(archive, out, at=["2020-06-01T00:35"], every=2)
    with pytest.raises(InputError):
        run(tmp_path / "nowhere.nc", out)
    with pytest.raises(UsageError, match="found a Zarr store; allowed: a folder"):
        run(archive, tmp_path / "out.zarr", maps=True)
    with pytest.raises(UsageError, match="output of a batch"):
        run(archive, tmp_path / "out.nc")
    assert not out.exists()
    monkeypatch.setattr(running, "CONNECT_SECONDS", 1)
    with pytest.raises(FailedError, match="no dask scheduler at tcp://127"):
        run(archive, out, scheduler="tcp://127.0.0.1:9")


def test_workers_of_this_machine_keep_no_statistics_that_grow_with_the_archive() -> None:
    with running.local_cluster(1) as client:
        asked = client.run(dask.config.get, "distributed.worker.profile.enabled")
    assert list(asked.values()) == [False]
    assert dask.config.get("distributed.worker.profile.enabled")  # nothing is changed for others
