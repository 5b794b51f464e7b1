"""Rain with the statistics of radar rain, whose true motion is known."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import scipy.special
import xarray as xr

from cubecast.errors import InputError, UsageError
from cubecast.sources.synthetic.cascade import evolve
from cubecast.sources.synthetic.domain import Domain
from cubecast.sources.synthetic.event import KINDS, Event, draw_event
from cubecast.sources.synthetic.flow import Eddy, Flow

Array = npt.NDArray[Any]

DRIZZLE = 0.1
"""mm h-1: the weakest rain; everything below is dry."""
HAIL = 100.0
"""mm h-1: radar services cut off what is hail; rates come close to it more slowly than the log-normal ones."""


def generate_rain(
    *,
    frames: int = 300,
    size: tuple[int, int] = (128, 128),
    step_minutes: float = 5.0,
    grid_km: float = 1.0,
    seed: int = 0,
    kind: str | None = None,
    wet_fraction: float | None = None,
    life_time: float | None = None,
    flow: Flow | None = None,
) -> xr.DataArray:
    """Rain with known motion, growth and decay, made in memory: one event of a climate.

    What is not given is drawn from the seed, first whether the event is ``stratiform`` or ``convective``. A Gaussian
    field with two spectral slopes, stretched along an axis, lives and dies wave by wave while a flow with eddies
    carries it (`Event`, `Flow`, `cascade.evolve`: an AR(2) process for each wave, whose life time grows as a power of
    its length; Seed 2003, https://doi.org/10.1175/1520-0450(2003)042<0381:ADASSA>2.0.CO;2; Bowler et al. 2006,
    https://doi.org/10.1256/qj.04.100). Its wide waves also say where rain can be at all. The highest values are wet
    (Pegram and Clothier 2001, https://doi.org/10.1016/S0022-1694(00)00373-5), and in their order have a log-normal
    distribution above 0.1 mm h-1, which bends off towards 100 mm h-1. All lengths are in km and times in minutes, so
    that finer grids and other steps show rain of the same kind.

    The ranges were chosen so that their rain encloses seven radar events of five networks in the statistics of
    `cubecast.rain_statistics` (notebook 04_generated_rain). On 192 x 192 pixels of 1 or 2 km every 5 or 10 minutes
    these are: spectral exponents of 0.5 to 3.8 above 20 km and 1.8 to 4 below, life times of 10 to 120 minutes at 16 km
    and 25 to 600 at 64 km, a growth of 0.1 to 2, speeds of 2 to 32 m s-1, a vorticity of 1e-5 to 2e-4 s-1, and a
    divergence of 1e-5 to 2.5e-4 s-1.

    Args:
        frames: number of frames.
        size: (ny, nx).
        step_minutes: step of the frames.
        grid_km: side of a pixel.
        seed: the same seed gives the same rain, on every machine to rounding.
        kind: ``stratiform``: wide areas of light and moderate rain; ``convective``: showers and storms, alone or in
            groups; None: the seed decides.
        wet_fraction: share of pixels with 0.1 mm h-1 or more, over all frames; None: drawn, 0.2 to 0.8 in stratiform
            and 0.04 to 0.3 in convective rain.
        life_time: minutes in which waves of 64 km of the Gaussian field lose about 1 - 1/e of their correlation, seen
            from within; None: drawn, 90 to 360. Rain lives half to three quarters as long.
        flow: the motion; None: drawn, 3 to 28 m s-1. `motion` gives it on the grid.

    Returns:
        A cube ``rainfall_rate(time, y, x)`` in mm h-1, float32, on an azimuthal equidistant grid around 52N 5E. Its
        attribute ``event`` has the numbers that were drawn.

    Raises:
        UsageError: a value out of range.
    """
    for name, found, good, allowed in (
        ("frames", frames, frames >= 1, "1 or more"),
        ("size", size, len(size) == 2 and min(size) >= 8, "(ny, nx) of 8 or more each"),
        ("step_minutes", step_minutes, step_minutes > 0, "above 0"),
        ("grid_km", grid_km, grid_km > 0, "above 0"),
        ("seed", seed, seed >= 0, "0 or more"),
        ("kind", kind, kind is None or kind in KINDS, f"{' or '.join(KINDS)}, or None for either"),
        ("wet_fraction", wet_fraction, wet_fraction is None or 0 < wet_fraction <= 1, "above 0, at most 1"),
        ("life_time", life_time, life_time is None or life_time > 0, "above 0"),
    ):
        if not good:
            raise UsageError(name, found=found, allowed=allowed)
    domain = Domain.around(size, grid_km)
    draws, noise = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
    wishes = {"wet_fraction": wet_fraction, "life_time": life_time, "flow": flow}
    event = draw_event(kind, domain.period, draws)
    event = replace(event, **{name: wish for name, wish in wishes.items() if wish is not None})  # type: ignore[arg-type]
    field = np.empty((frames, *size), np.float32)
    evolution = evolve(domain, event.waves(domain), event.envelope(), event.flow, step_minutes * 60, noise)
    for index in range(frames):
        field[index] = next(evolution)
    return _cube(_rain(field, event), domain, step_minutes, event, seed)


def motion(cube: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """The true motion (u, v) in m s-1 towards +x and +y at the times and places of a cube of `generate_rain`.

    Args:
        cube: the cube or any part of it; the motion of one frame is ``motion(cube.isel(time=3))``.

    Returns:
        u and v (time, y, x), without time for one frame.

    Raises:
        InputError: the cube does not come from `generate_rain`.
    """
    try:
        saved = json.loads(cube.attrs["flow"])
        start, period = np.datetime64(saved.pop("start"), "ns"), tuple(saved.pop("period"))
        eddies = tuple(Eddy(**(eddy | {"waves": tuple(eddy["waves"])})) for eddy in saved.pop("eddies"))
        flow = Flow(**saved, eddies=eddies)
    except (KeyError, TypeError, ValueError):
        raise InputError(
            "the motion is unknown", found="no attribute 'flow'", allowed="a cube of cubecast.generate_rain"
        ) from None
    seconds = (cube["time"].drop_attrs() - start) / np.timedelta64(1, "s")
    time, y, x = xr.broadcast(seconds, cube["y"].drop_attrs(), cube["x"].drop_attrs())
    v, u = flow.at(y.values, x.values, time.values, period=period)
    units = {"units": "m s-1"}
    return y.copy(data=u).rename("u").assign_attrs(units), y.copy(data=v).rename("v").assign_attrs(units)


def _rain(field: Array, event: Event) -> Array:
    """Rain rates: the strongest share of the Gaussian field is wet, and keeps its order."""
    # Levels by the share of wet pixels that are stronger, from all of them to about ten pixels, closer to both ends.
    least = min(10 / (field.size * event.wet_fraction), 0.25)
    stronger = np.concatenate([[1], 1 - np.geomspace(1e-4, 0.5, 40), np.geomspace(0.5, least, 40)[1:]])
    level = np.quantile(field, 1 - event.wet_fraction * stronger)
    lowest = scipy.special.ndtr((math.log(DRIZZLE / event.median)) / event.spread)
    # Of wet pixels, those stronger in a log-normal distribution without what is below the weakest rain.
    amount = math.log(event.median) - event.spread * scipy.special.ndtri((1 - lowest) * stronger)
    wet = field >= level[0]
    value = field[wet]
    # The few above the last level go on along the last line.
    slope = (amount[-1] - amount[-8]) / (level[-1] - level[-8])
    log = np.interp(value, level, amount) + slope * np.maximum(value - level[-1], 0)
    rain = np.zeros_like(field)
    rain[wet] = HAIL * np.tanh(np.exp(log) / HAIL)
    return rain


def _cube(rain: Array, domain: Domain, step_minutes: float, event: Event, seed: int) -> xr.DataArray:
    """The cube of rain rates with its CF metadata."""
    start, step = np.datetime64("2024-06-01", "ns"), np.timedelta64(round(step_minutes * 60e9), "ns")
    crs = pyproj.CRS.from_dict({"proj": "aeqd", "lat_0": 52.0, "lon_0": 5.0, "datum": "WGS84"})
    coords: dict[str, Any] = {
        "time": ("time", start + np.arange(len(rain)) * step, {"standard_name": "time"}),
        "crs": ((), np.int32(0), crs.to_cf()),
    }
    for axis, dim in enumerate("yx"):
        values = domain.coordinate(axis, np.arange(domain.size[axis]))
        coords[dim] = (
            dim,
            values,
            {"standard_name": f"projection_{dim}_coordinate", "units": "m", "axis": dim.upper()},
        )
    numbers = asdict(event)
    flow = numbers.pop("flow") | {"period": domain.period, "start": str(start)}
    attrs = {
        "standard_name": "rainfall_rate",
        "long_name": "rain rate",
        "units": "mm h-1",
        "grid_mapping": "crs",
        "cell_methods": "time: point",
        "comment": f"synthetic rain of cubecast.generate_rain, seed {seed}",
        "event": json.dumps(numbers),
        "flow": json.dumps(flow),
    }
    return xr.DataArray(rain, dims=("time", "y", "x"), coords=coords, attrs=attrs, name="rainfall_rate")
