"""Files as weather services write them, made in the tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest

EPOCH = np.datetime64("2020-10-31T00:00:00")

Writer = Callable[..., Path]


def write_frame(path: Path, minute: int, values: np.ndarray, **changes: Any) -> Path:
    """One file a frame, as the Australian bureau writes it: scalar times, an amount packed in int16, x and y in km.

    ``changes``: attrs of the variable (None deletes), or start=None to leave the start time out.
    """
    start = changes.pop("start", minute - 10)
    x = changes.pop("x", np.arange(values.shape[1]) * 0.5)
    fill = changes.pop("_FillValue", -1)
    with netCDF4.Dataset(path, "w", format=changes.pop("format", "NETCDF4")) as file:
        for name, size in zip("yx", values.shape, strict=True):
            file.createDimension(name, size)
        file.createDimension("n2", 2)
        kind = "i8" if file.data_model == "NETCDF4" else "i4"
        for name, when, attrs in (
            ("valid_time", minute, {"standard_name": "time", "long_name": "End of accumulation period"}),
            ("start_time", start, {"long_name": "Start of accumulation period"}),
        ):
            if when is not None:
                variable = file.createVariable(name, kind, ())
                variable.setncatts({**attrs, "units": "minutes since 2020-10-31 00:00:00"})
                variable[...] = when
        for name, places in (("y", 100.0 - np.arange(values.shape[0]) * 0.5), ("x", x)):
            variable = file.createVariable(name, "f8", (name,))
            variable.setncatts(
                {"standard_name": f"projection_{name}_coordinate", "units": "km", "bounds": f"{name}_bounds"}
            )
            variable[:] = places
            bounds = file.createVariable(f"{name}_bounds", "f8", (name, "n2"))
            bounds[:] = np.stack([places - 0.25, places + 0.25], axis=1)
        attrs = {
            "standard_name": "precipitation_amount",
            "long_name": "Accumulated precipitation",
            "units": "kg m-2",
            "scale_factor": 0.05,
            "add_offset": 0.0,
            "grid_mapping": "proj",
        } | changes
        variable = file.createVariable("precipitation", "i2", ("y", "x"), fill_value=fill)
        variable.setncatts({k: v for k, v in attrs.items() if v is not None})
        variable.set_auto_maskandscale(False)
        variable[:] = values
        mapping = file.createVariable("proj", "i1", ())
        mapping.setncatts(
            {
                "grid_mapping_name": "albers_conical_equal_area",
                "standard_parallel": np.array([-26.2, -29.3]),
                "longitude_of_central_meridian": 153.24,
                "latitude_of_projection_origin": -27.7178,
                "semi_major_axis": 6378137.0,
                "semi_minor_axis": 6356752.31414,
            }
        )
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Callable[..., list[Path]]:
    """Writes frames at the given minutes; stored values are ``minute + position``, the first pixel is missing."""

    def write(minutes: list[int], shape: tuple[int, int] = (4, 5), **changes: Any) -> list[Path]:
        out = []
        for i, minute in enumerate(minutes):
            values = (minute + np.arange(shape[0] * shape[1]).reshape(shape)).astype("i2")
            values[0, 0] = -1
            out.append(write_frame(tmp_path / f"{i:03d}_{minute:04d}.nc", minute, values, **changes))
        return out

    return write


def times(minutes: list[int]) -> np.ndarray:
    """The times of frames at ``minutes``."""
    return (EPOCH + np.array(minutes) * np.timedelta64(60, "s")).astype("datetime64[ns]")
