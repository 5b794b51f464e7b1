"""Nowcasts of pysteps as baselines: S-PROG, STEPS and LINDA by its public API, each made once and kept on disk.

pysteps (Pulkkinen et al. 2019, https://doi.org/10.5194/gmd-12-4185-2019) is what weather services run; here it gets
what its own documentation recommends: the last three frames, Lucas-Kanade motion of rain in decibels above 0.1 mm/h,
six cascade levels. It is an optional extra: ``pip install 'cubecast[pysteps]'``.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import logging
import os
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.system import CPU_COUNT

from cubecast import units
from cubecast.atomic import cache_folder, make_folder
from cubecast.baselines import check_horizon, find_references
from cubecast.cube import channel_names, cube_step, select_channel, sequence_dim, space_dims, window_starts
from cubecast.errors import InputError, UsageError
from cubecast.product import build_forecast, file_stem
from cubecast.progress import Progress, follow
from cubecast.scores.spatial import cell_km
from cubecast.write import read_forecast, write_forecast

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]

METHODS = ("sprog", "steps", "linda")
FRAMES = 3
"""What all three methods see: two steps of an autoregression of order 2."""
MEMBERS = 24
"""Members of STEPS, as many as pysteps makes by itself."""
THRESHOLD, DECIBEL, DRY = 0.1, -10.0, -15.0
"""Less rain than this is none: in mm h-1, in dB, and the dB that dry ground then has."""
_NEEDED = {"pysteps": "pysteps", "cv2": "opencv-python-headless", "skimage": "scikit-image"}


def check_pysteps() -> None:
    """Refuse to go on without pysteps and what it needs for these methods.

    Raises:
        UsageError: something is not installed.
    """
    absent = [package for module, package in _NEEDED.items() if importlib.util.find_spec(module) is None]
    if absent:
        raise UsageError(
            "baselines of pysteps", found=f"no {', '.join(absent)}", remedy="pip install 'cubecast[pysteps]'"
        )


def pysteps_nowcast(
    cube: xr.DataArray,
    *,
    method: str,
    reference: Any,
    horizon: int,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """The nowcasts of pysteps after some reference times.

    - ``sprog``: S-PROG, a field that loses its small scales as they become unpredictable, with the distribution of the
      last frame (Seed 2003, https://doi.org/10.1175/1520-0450(2003)042<0381:ADASSA>2.0.CO;2).
    - ``steps``: STEPS, `MEMBERS` members with noise and perturbed motion (Bowler et al. 2006,
      https://doi.org/10.1256/qj.04.100).
    - ``linda``: LINDA without perturbations, for small and strong rain; takes minutes a nowcast (Pulkkinen et al.
      2021, https://doi.org/10.1109/TGRS.2021.3126648).

    Missing is what comes from outside of the grid or was missing in any of the three frames. Where one of them has no
    rain, or pysteps finds too little to fit its models to (then a warning says so), the last frame stands for the
    nowcast: no rain stays none. The noise of STEPS depends on the reference time alone, so every run is the same.

    Each nowcast is a forecast file in ``cache``, named by the SHA-256 of all that it depends on: the three frames, the
    method with its settings, step, cell size, horizon, reference time and the version of pysteps. A file that is
    broken or says it is another is made again.

    Args:
        cube: what was observed: fields of rain, in any of its units; other channels are passed over.
        method: one of `METHODS`.
        reference: one or many reference times, each that of a frame with two more before it.
        horizon: number of leads, in steps.
        cache: folder of the files, made when missing; None: `cubecast.atomic.cache_folder`.
        progress: shows how many reference times are done.

    Returns:
        The forecast Dataset of `cubecast.product.build_forecast`, float32, lazy (dask), for ``steps`` with members.

    Raises:
        UsageError: an unknown method, no rain, pysteps is not installed. OutputError: the cache cannot be written.
        InputError: a reference time without its three frames, or (STEPS) a grid whose cell size is not known.
    """
    check_horizon(horizon)
    if method not in METHODS:
        raise UsageError("method of pysteps", found=repr(method), allowed=", ".join(METHODS))
    check_pysteps()
    index = find_references(cube, reference)
    dim, step, times = sequence_dim(cube), cube_step(cube), cube[sequence_dim(cube)].values[index]
    rain = [name for name in channel_names(cube) if units.is_rain(select_channel(cube, name))]
    if len(space_dims(cube)) != 2 or step.kind != "seconds" or not rain:
        found = f"{', '.join(channel_names(cube))} {tuple(cube.dims)}, step {step}"
        raise UsageError(f"baseline {method}", found=found, allowed="fields of rain at a step of minutes or hours")
    whole = np.isin(index, window_starts(cube, FRAMES) + FRAMES - 1)
    if not whole.all():
        raise InputError(
            f"frames before {times[~whole][0]}", found="a gap or the start", allowed=f"{FRAMES} frames in a row"
        )
    folder = cache_folder("pysteps") if cache is None else Path(cache)
    make_folder(folder)
    fixed: dict[str, Any] = {"minutes": step.size / 60, "km": cell_km(cube)}
    values: dict[str, list[Any]] = {name: [] for name in rain}
    for last in follow(index.tolist(), f"pysteps {method}", len(index), progress):
        past = cube.isel({dim: slice(last + 1 - FRAMES, last + 1)}).load()
        for name, cases in values.items():
            cases.append(_kept_or_made(select_channel(past, name).rename(name), method, horizon, folder, **fixed))
    attrs = {
        "title": f"pysteps {method} of {', '.join(rain)}",
        "source": f"pysteps {version('pysteps')} {method}, by cubecast",
    }
    stacked = {name: dask.array.stack(cases) for name, cases in values.items()}
    return build_forecast(stacked, cube, reference=times, step=step, attrs=attrs)


def pysteps_settings(method: str, *, minutes: float, km: float | None, seed: int) -> dict[str, Any]:
    """What a method of pysteps is called with: what its examples recommend, said in full where it matters.

    Args:
        method: one of `METHODS`.
        minutes, km: the step of the frames and the side of a cell; only STEPS asks for them.
        seed: of the noise of STEPS.

    Raises:
        InputError: STEPS on a grid whose cell size is not known.
    """
    cascade = {"n_cascade_levels": 6, "precip_thr": DECIBEL, "probmatching_method": "cdf"}
    if method == "sprog":
        return cascade
    if method == "linda":
        return {"add_perturbations": False}
    if km is None:
        raise InputError("STEPS on a grid of unknown cell size", allowed="space coordinates in m, km or degrees")
    noise = {"noise_method": "nonparametric", "vel_pert_method": "bps", "mask_method": "incremental"}
    return {**cascade, **noise, "n_ens_members": MEMBERS, "kmperpixel": km, "timestep": minutes, "seed": seed}


def call_pysteps(rain: Array, method: str, horizon: int, settings: dict[str, Any]) -> Array:
    """What pysteps itself makes of three frames of rain, motion included.

    Args:
        rain: float64 (time, y, x) in mm h-1, NaN where missing.
        method: one of `METHODS`.
        horizon: number of leads.
        settings: of `pysteps_settings`.

    Returns:
        ([member,] lead, y, x) in mm h-1.

    Raises:
        Nearly anything, where there is too little rain to fit its models to.
    """
    with _silent():
        from pysteps import motion, nowcasts
        from pysteps.utils import transformation

        decibel = transformation.dB_transform(rain, threshold=THRESHOLD, zerovalue=DRY)[0]
        velocity = motion.get_method("LK")(decibel)
        make = nowcasts.get_method(method)
        if method == "linda":
            return np.asarray(make(rain, velocity, horizon, num_workers=CPU_COUNT, **settings))
        found = make(decibel, velocity, horizon, num_workers=CPU_COUNT, **settings)
        return np.asarray(transformation.dB_transform(found, threshold=DECIBEL, inverse=True)[0])


def _kept_or_made(
    past: xr.DataArray, method: str, horizon: int, folder: Path, *, minutes: float, km: float | None
) -> Any:
    """The nowcast after the last of three frames, ([member,] lead, y, x), as the file in the cache holds it."""
    dim = sequence_dim(past)
    last = past[dim].values[-1]
    settings = pysteps_settings(method, minutes=minutes, km=km, seed=zlib.crc32(str(last).encode()))
    about = {"pysteps": version("pysteps"), "method": method, "horizon": horizon, "minutes": minutes, "km": km}
    about |= {"settings": settings, "reference": str(last), "variable": [str(past.name), past.attrs["units"]]}
    about |= {"type": str(past.dtype), "shape": past.shape}
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode() + past.values.tobytes()).hexdigest()
    path = folder / f"{method}_{file_stem(last)}_{key[:16]}.nc"
    kept = _kept(path, key, str(past.name))
    if kept is not None:
        return kept
    found = _nowcast(past, method, horizon, settings)
    made = _in_units(_still(past, horizon, settings) if found is None else found, past)
    if found is None:  # not kept: it may have been the machine
        return made.astype(np.float32)
    attrs = {"cache": key, "source": f"pysteps {version('pysteps')} {method}", "settings": settings}
    bare = past.reset_coords(drop=True)
    forecast = build_forecast({str(past.name): made[None]}, bare, reference=[last], step=cube_step(past), attrs=attrs)
    write_forecast(forecast, path)
    return read_forecast(path)[str(past.name)].data[0]


def _kept(path: Path, key: str, name: str) -> Any:
    """The nowcast in a file of the cache; None where there is none that can be trusted."""
    if not path.is_file():
        return None
    try:
        found = read_forecast(path)
        if found.attrs["cache"] == key:
            kept = found[name].data[0]
            kept.sum().compute()  # reads every chunk: one that is damaged fails its checksum
            return kept
    except (InputError, KeyError, RuntimeError, OSError) as error:
        log.warning("%s is broken and made again: %s", path, error)
    return None


def _still(past: xr.DataArray, horizon: int, settings: dict[str, Any]) -> Array:
    """The last frame at every lead ([member,] lead, y, x) in mm h-1."""
    last = units.convert_units(past[-1:], "mm h-1").values.astype(np.float64)[0]
    shape = (settings["n_ens_members"], horizon) if "n_ens_members" in settings else (horizon,)
    return np.broadcast_to(last, (*shape, *last.shape))


def _nowcast(past: xr.DataArray, method: str, horizon: int, settings: dict[str, Any]) -> Array | None:
    """([member,] lead, y, x) in mm h-1; the last frame where it is dry, None where pysteps has nothing to give."""
    rain = units.convert_units(past, "mm h-1").values.astype(np.float64)
    if not (rain >= THRESHOLD).any(axis=(1, 2)).all():
        return _still(past, horizon, settings)
    try:
        return call_pysteps(rain, method, horizon, settings)
    except MemoryError:
        raise
    except Exception as error:  # pysteps raises nearly anything where there is too little rain to fit a model to
        last = past[sequence_dim(past)].values[-1]
        log.warning("pysteps %s has no nowcast at %s, the last frame stands for it: %s", method, last, error)
        return None


@contextmanager
def _silent() -> Iterator[None]:
    """pysteps prints what it does, divides by zero, and seeds NumPy's global generator, which is put back."""
    state = np.random.get_state()  # noqa: NPY002
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _in_units(rate: Array, past: xr.DataArray) -> Array:
    """``rate`` (mm h-1) in the units of the frames; no rain in dBZ is the least that they hold, not minus infinity."""
    field = units.convert_units(xr.DataArray(rate, attrs={"units": "mm h-1"}), str(past.attrs["units"]))
    least = past.min().item() if units.same(str(past.attrs["units"]), "dBZ") else None
    return field.clip(min=least).values.astype(np.float32)
