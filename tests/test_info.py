"""What `describe` says of fields, channels and series."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from cubecast import info
from cubecast.errors import InputError
from cubecast.info import describe
from cubecast.sources import open_cube


def rain(minutes: list[int], values: np.ndarray, **coords) -> xr.DataArray:
    time = np.datetime64("2020-01-01", "ns") + np.array(minutes) * np.timedelta64(60, "s")
    attrs = {"units": "mm h-1", "standard_name": "rainfall_rate"}
    dims = ("time", "y", "x")[: values.ndim]
    return xr.DataArray(values, dims=dims, coords={"time": time, **coords}, name="r", attrs=attrs)


@pytest.fixture
def gappy() -> xr.DataArray:
    """Nine frames of 2 x 4 pixels: half of them missing, a quarter of the observed wet; two gaps."""
    values = np.zeros((9, 2, 4), "f4")
    values[:, 0] = np.nan
    values[:, 1, 0] = 0.1
    values[4, 1, 0] = 7.5
    minutes = [0, 5, 10, 15, 30, 35, 40, 50, 55]
    y, x = ("y", [1.0, 0.0], {"units": "km"}), ("x", [0.0, 0.5, 1.0, 1.5], {"units": "km"})
    return rain(minutes, values, y=y, x=x)


def test_counts_by_hand(gappy: xr.DataArray) -> None:
    found = describe(gappy, history=1, horizon=2)
    assert found == {
        "variable": "r",
        "units": "mm h-1",
        "dims": "time 9, y 2, x 4",
        "first time": "2020-01-01T00:00:00",
        "last time": "2020-01-01T00:55:00",
        "step": "5 min",
        "gaps": 2,
        "missing frames": 3,
        "first gaps": "2 after 2020-01-01T00:15:00, 1 after 2020-01-01T00:40:00",
        "CRS": "unknown",
        "grid spacing": "1 km x 0.5 km",
        "chunks": "in memory",
        "memory when loaded": "288 B",
        "lowest value": 0.0,
        "highest value": 7.5,
        "wet fraction (>= 0.1)": 0.25,
        "missing fraction": 0.5,
        "windows of 1 + 2 frames": 3,
    }
    json.dumps(found)


def test_threshold_and_windows(gappy: xr.DataArray) -> None:
    assert describe(gappy, history=2, horizon=2, wet_threshold=1.0)["windows of 2 + 2 frames"] == 1
    assert describe(gappy, history=2, horizon=2, wet_threshold=1.0)["wet fraction (>= 1)"] == round(1 / 36, 7)
    assert describe(gappy, history=20, horizon=2)["windows of 20 + 2 frames"] == 0


def test_pieces_pool_to_the_whole(gappy: xr.DataArray, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = describe(gappy, history=1, horizon=1)
    monkeypatch.setattr("cubecast.cube.BLOCK_BYTES", 1)
    seen = []
    pieces = describe(
        gappy.chunk(time=2), history=1, horizon=1, progress=lambda items, *_: (seen.append(i) or i for i in items)
    )
    assert len(seen) == 5
    assert pieces.pop("chunks") == "time 2, y 2, x 4"
    assert pieces == {k: v for k, v in whole.items() if k != "chunks"}


def test_latitudes(gappy: xr.DataArray) -> None:
    lat, lon = ("y", [2.0, 0.0], {"units": "degrees_north"}), ("x", [0.0, 2, 4, 9], {"units": "degrees_east"})
    found = describe(gappy.assign_coords(y=lat, x=lon), history=1, horizon=1)
    assert found["CRS"] == "latitude and longitude"
    assert found["grid spacing"] == "2 degrees x uneven, about 2 degrees"


def test_a_grid_mapping_that_is_not_understood_is_said(gappy: xr.DataArray) -> None:
    cube = gappy.assign_coords(crs=((), 0, {"grid_mapping_name": "flat"})).assign_attrs(grid_mapping="crs")
    assert "cannot be understood" in describe(cube, history=1, horizon=1)["CRS"]


def test_a_single_frame_has_no_step(gappy: xr.DataArray) -> None:
    assert describe(gappy[:1], history=3, horizon=2)["step"] == "unknown: one frame"


def test_all_missing(gappy: xr.DataArray) -> None:
    found = describe(gappy.where(False), history=1, horizon=1)
    assert found["values"] == "all missing"
    assert found["missing fraction"] == 1.0


def test_channels_have_lines_of_their_own(gappy: xr.DataArray) -> None:
    warm = (gappy * 0 + 280).assign_attrs(units="K", standard_name="sea_surface_temperature")
    cube = open_cube(xr.Dataset({"r": gappy, "t": warm}), variable=["t", "r"])
    found = describe(cube, history=1, horizon=1)
    assert found["variable"] == "t, r"
    assert found["units"] == "K, mm h-1"
    assert found["lowest value (t)"] == 280
    assert found["highest value (r)"] == 7.5
    assert "wet fraction (>= 0.1) (r)" in found
    assert "wet fraction (>= 0.1) (t)" not in found


def test_series_and_depths() -> None:
    depth = ("depth", np.array([1.0, 1.5, 2.0, 3.0]), {"units": "ft"})
    logs = xr.DataArray(np.ones((4, 2)), dims=("depth", "well"), coords={"depth": depth}, attrs={"units": "gAPI"})
    found = describe(logs, history=1, horizon=1)
    assert (found["first depth"], found["last depth"], found["step"]) == ("1", "3", "0.5 ft")
    assert found["first gaps"] == "1 after 2"
    assert "CRS" not in found
    assert describe(logs[:, 0].drop_vars("well", errors="ignore"), history=1, horizon=2)["dims"] == "depth 4"


def test_not_a_cube() -> None:
    with pytest.raises(InputError, match="not a cube"):
        describe(np.zeros(3), history=1, horizon=1)


@pytest.mark.parametrize(("count", "text"), [(999, "999 B"), (37_267_000, "37.3 MB"), (5_100_000_000, "5.1 GB")])
def test_sizes(count: int, text: str) -> None:
    assert info._size(count) == text


def test_real_frames(real_data: Path) -> None:
    files = sorted((real_data / "radar_raw/bom_20201031").glob("*.nc"))
    found = describe(open_cube([*files[:5], *files[6:20]]), history=6, horizon=6)
    assert found["CRS"] == "Albers Equal Area"
    assert found["grid spacing"] == "0.5 km x 0.5 km"
    assert (found["gaps"], found["missing frames"], found["step"]) == (1, 1, "10 min")
    assert found["windows of 6 + 6 frames"] == 3
    assert 0 < found["wet fraction (>= 0.1)"] < 0.1
    assert found["source"].endswith("66_20201031_000000.prcp-c10.nc and 18 more")
