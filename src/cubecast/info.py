"""What a cube holds, in a few lines: the text behind ``cubecast info`` and ``cube.nowcast.info()``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from cubecast.cube import (
    CHANNEL,
    channel_names,
    channel_units,
    check_cube,
    cube_crs,
    cube_step,
    gaps,
    iter_blocks,
    select_channel,
    sequence_dim,
    space_dims,
    window_starts,
)
from cubecast.errors import InputError
from cubecast.progress import Progress, follow
from cubecast.units import is_rain_rate

SHOWN_GAPS = 3
_SIZES = {"TB": 1e12, "GB": 1e9, "MB": 1e6, "kB": 1e3}


def describe(
    cube: xr.DataArray,
    *,
    history: int,
    horizon: int,
    wet_threshold: float = 0.1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Label and value of what is worth knowing of a cube, ready for JSON; all values are read once, block by block.

    The wet fraction is the share of observed values of rain at or above ``wet_threshold``; the missing fraction is the
    share of NaN in the frames that are there (missing frames are counted apart). With several channels, the labels
    that speak of values carry the channel's name.

    Args:
        cube: any cube, also a series (see `cubecast.cube`).
        history, horizon: lengths of the windows that are counted, in steps.
        wet_threshold: in the cube's units.
        progress: shows the reading.

    Raises:
        InputError: not a cube, or a file behind it cannot be read.
    """
    check_cube(cube)
    dim, space = sequence_dim(cube), space_dims(cube)
    values, holes = cube[dim].values, gaps(cube)
    out: dict[str, Any] = {"source": str(cube.encoding["source"])} if "source" in cube.encoding else {}
    out |= {
        "variable": ", ".join(channel_names(cube)),
        "units": ", ".join(channel_units(cube).values()),
        "dims": _pairs(cube.sizes),
        f"first {dim}": _shown(values[0]),
        f"last {dim}": _shown(values[-1]),
        "step": str(cube_step(cube)) if len(values) > 1 else "unknown: one frame",
        "gaps": len(holes),
        "missing frames": sum(missing for _, _, missing in holes),
    }
    if holes:
        listed = [f"{n} after {_shown(before)}" for before, _, n in holes[:SHOWN_GAPS]]
        out["first gaps"] = ", ".join(listed) + (", ..." if len(holes) > SHOWN_GAPS else "")
    if len(space) == 2:
        out |= {"CRS": _crs_name(cube), "grid spacing": " x ".join(_spacing(cube, d) for d in space)}
    out["chunks"] = "in memory" if cube.chunks is None else _pairs({d: c[0] for d, c in cube.chunksizes.items()})
    out["memory when loaded"] = _size(cube.nbytes)
    for name, one in _statistics(cube, wet_threshold, progress).items():
        suffix = f" ({name})" if CHANNEL in cube.dims else ""
        attrs = select_channel(cube, name).attrs
        rain = is_rain_rate(str(attrs["units"]), str(attrs.get("standard_name", "")))
        out |= {f"{label}{suffix}": value for label, value in one.lines(rain).items()}
    out[f"windows of {history} + {horizon} frames"] = len(window_starts(cube, history + horizon))
    return out


@dataclass(slots=True)
class _Statistics:
    """Counts and extremes of one channel, piece by piece."""

    wet_threshold: float
    count: int = 0
    observed: int = 0
    wet: int = 0
    lowest: float = field(default=np.inf)
    highest: float = field(default=-np.inf)

    def add(self, values: npt.NDArray[Any]) -> None:
        seen = values[~np.isnan(values)] if values.dtype.kind == "f" else values.ravel()
        self.count += values.size
        self.observed += seen.size
        if seen.size:
            self.wet += int((seen >= self.wet_threshold).sum())
            self.lowest, self.highest = min(self.lowest, float(seen.min())), max(self.highest, float(seen.max()))

    def lines(self, rain: bool) -> dict[str, Any]:
        missing = {"missing fraction": _rounded(1 - self.observed / max(1, self.count))}
        if not self.observed:
            return {"values": "all missing", **missing}
        out: dict[str, Any] = {"lowest value": _rounded(self.lowest), "highest value": _rounded(self.highest)}
        if rain:
            out[f"wet fraction (>= {self.wet_threshold:g})"] = _rounded(self.wet / self.observed)
        return {**out, **missing}


def _statistics(cube: xr.DataArray, wet_threshold: float, progress: Progress | None) -> dict[str, _Statistics]:
    names = channel_names(cube)
    out = {name: _Statistics(wet_threshold) for name in names}
    for _, values in follow(iter_blocks(cube), "reading values", None, progress):
        for i, name in enumerate(names):
            out[name].add(values[:, i] if CHANNEL in cube.dims else values)
    return out


def _crs_name(cube: xr.DataArray) -> str:
    try:
        crs = cube_crs(cube)
    except InputError as error:
        return str(error)
    if crs is None:
        return "unknown"
    if crs.is_geographic:
        return "latitude and longitude"
    method = crs.coordinate_operation.method_name if crs.coordinate_operation else ""
    return " / ".join(n for n in (method, crs.name) if n and n not in ("unknown", "undefined")) or crs.name


def _spacing(cube: xr.DataArray, dim: str) -> str:
    if dim not in cube.coords or cube.sizes[dim] < 2 or cube[dim].dtype.kind not in "iuf":
        return "unknown"
    steps = np.abs(np.diff(cube[dim].values.astype(float)))
    middle = float(np.median(steps))
    uneven = "" if np.allclose(steps, middle, rtol=1e-2) else "uneven, about "
    unit = str(cube[dim].attrs.get("units", "")).split("_")[0]
    return f"{uneven}{middle:.6g} {unit}".rstrip()


def _pairs(sizes: Any) -> str:
    return ", ".join(f"{name} {size}" for name, size in sizes.items())


def _shown(value: Any) -> str:
    return str(value.astype("datetime64[s]")) if isinstance(value, np.datetime64) else f"{value:g}"


def _size(count: int) -> str:
    unit = next((u for u in _SIZES if count >= _SIZES[u]), "B")
    return f"{count / _SIZES.get(unit, 1):.3g} {unit}"


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
