"""read_forecast(write_forecast(f)) == f, for forecasts of any shape, values, attributes and place in time."""

import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import xarray as xr
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from cubecast.product import build_forecast
from cubecast.steps import Step
from cubecast.write import read_forecast, write_forecast

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=20)
NUMBER = st.floats(allow_nan=False) | st.integers(-(2**62), 2**62)
NAME = st.from_regex(r"[a-z][a-z0-9_]{0,12}", fullmatch=True).map("u_{}".format)
RESERVED = {"units_metadata"}


@st.composite
def parts(draw: st.DrawFn) -> dict[str, Any]:
    """What any forecast is built of: of a field or of stations, with or without members."""
    sizes = draw(
        st.tuples(st.integers(1, 3), st.integers(0, 2), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
    )
    references, members, leads, ny, nx = sizes
    stations = draw(st.booleans())
    space = (ny,) if stations else (ny, nx)
    dtype = draw(st.sampled_from(["float32", "float64", "int16", "int32"]))
    shape = (references, *([members] if members else []), leads, *space)
    values = draw(hnp.arrays(dtype, shape, elements={"allow_nan": True} if dtype.startswith("f") else None))
    step = Step("seconds", draw(st.sampled_from([0.01, 1.0, 300.0, 86400.0])))
    start = np.datetime64(draw(st.integers(-(10**9), 3 * 10**9)), "s").astype("datetime64[ns]")
    reference = step.add(np.array([start]), np.arange(references)).reshape(-1)
    attrs = draw(st.dictionaries(NAME, TEXT | NUMBER, max_size=3))
    coords: dict[str, object] = {"time": reference[:1]}
    if stations:
        coords["station"] = (
            "station",
            np.array(draw(st.lists(TEXT, min_size=ny, max_size=ny, unique=True)), dtype=str),
        )
    else:
        coords["y"] = ("y", -np.arange(ny) * 0.5, {"units": "km", "standard_name": "projection_y_coordinate"})
        coords["x"] = ("x", np.arange(nx, dtype="float32"), {"units": "km", "standard_name": "projection_x_coordinate"})
        coords["lat"] = (("y", "x"), draw(hnp.arrays("float32", (ny, nx))), {"units": "degrees_north"})
        coords["height"] = ((), 10.0, {"units": "m"})
        coords["crs"] = ((), np.int32(0), {"note": "a mapping unknown to pyproj"})
    dims = ("time", "station") if stations else ("time", "y", "x")
    field_attrs = {"units": "mm h-1", "long_name": draw(TEXT)} | ({} if stations else {"grid_mapping": "crs"})
    cube = xr.DataArray(np.zeros((1, *space)), coords, dims, "rain", field_attrs)
    return {"values": {"rain": values}, "cube": cube, "reference": reference, "step": step, "attrs": attrs}


@settings(max_examples=25, deadline=None, derandomize=True)
@given(parts=parts())
def test_reading_netcdf_is_the_inverse_of_writing(parts: dict[str, Any]) -> None:
    check_round_trip(".nc", parts)


@settings(max_examples=10, deadline=None, derandomize=True)  # a store is dozens of files, each synced to the disk
@given(parts=parts())
def test_reading_zarr_is_the_inverse_of_writing(parts: dict[str, Any]) -> None:
    check_round_trip(".zarr", parts)


def check_round_trip(suffix: str, parts: dict[str, Any]) -> None:
    forecast = build_forecast(**parts)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"f{suffix}"
        write_forecast(forecast, path)
        back = read_forecast(path).load()
        back.close()
    assert {n: v.dtype for n, v in back.variables.items()} == {n: v.dtype for n, v in forecast.variables.items()}
    for added in ("title", "source", "history", "Conventions"):
        assert back.attrs.pop(added)
    xr.testing.assert_identical(back, forecast)
