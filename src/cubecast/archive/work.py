"""What a worker does: load the model once, then read, forecast and write one history after the other."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import torch
import xarray as xr
from distributed import Worker, WorkerPlugin, get_worker

from cubecast.archive.histories import History, assemble, identity
from cubecast.archive.targets import Target
from cubecast.errors import InputError, one_line
from cubecast.matching import match_distribution
from cubecast.model_folder import MODEL
from cubecast.nowcaster import Nowcaster
from cubecast.sources import open_static
from cubecast.tiling import parse_memory
from cubecast.units import convert_units

WRITTEN, THERE, FAILED = "written", "there", "failed"
_TURN = threading.Lock()
"""Held while a forecast is computed, one at a time in a process."""
_FILES = threading.RLock()
"""Held while files are read or written: HDF5 takes one thread at a time, and xarray makes files without its lock."""


@dataclass(frozen=True)
class Job:
    """What all forecasts of a run share.

    Attributes:
        key: unlike that of any other run.
        model, digest: the model's folder, and what `model_digest` said of it.
        templates, names: of `cubecast.archive.histories.Archive`.
        target: where forecasts go.
        units: that values are converted to; None: as they are.
        static: file of static fields.
        matched: whether to match distributions.
        memory, options: of `Nowcaster.predict`.
    """

    key: str
    model: Path
    digest: str
    templates: tuple[xr.DataArray, ...]
    names: tuple[str, ...]
    target: Target
    units: str | None
    static: str | None
    matched: bool
    memory: int | str | None
    options: Mapping[str, Any]

    @property
    def about(self) -> dict[str, Any]:
        """What forecasts depend on besides their input: the model and the options."""
        static = self.static and identity(self.static)
        return {"model": self.digest, "units": self.units, "static": static, "matched": self.matched, **self.options}


def model_digest(folder: Path) -> str:
    """The SHA-256 of what vouches for a model: its model.json, which holds that of the weights."""
    return hashlib.sha256((folder / MODEL).read_bytes()).hexdigest()


class Forecaster(WorkerPlugin):
    """The model in a worker, from its start on, or when a lost one is replaced."""

    def __init__(self, job: Job) -> None:
        self.job, self.name = job, job.key

    def setup(self, worker: Worker) -> None:
        """Load the model.

        Raises:
            InputError: another model than the one that the run began with.
        """
        torch.set_num_threads(1)  # workers share the cores
        # What is lazy is computed where it is asked for: by default dask would send it back to the scheduler.
        self._settings = dask.config.set(scheduler="synchronous")
        self._model = Nowcaster.load(self.job.model)
        self._static = None if self.job.static is None else open_static(self.job.static)
        if model_digest(self.job.model) != self.job.digest:
            raise InputError(f"model in {self.job.model}", found="another than when the run began")

    def teardown(self, worker: Worker) -> None:
        """Leave the worker as it was."""
        self._settings.__exit__(None, None, None)

    def make(self, history: History, fingerprint: int) -> str:
        """Forecast after a history and write it, unless it is there.

        While one thread forecasts, the other one reads the next history or writes the last forecast.
        """
        job, reference = self.job, history.times[-1]
        with _FILES:
            if job.target.has(reference, fingerprint):
                return THERE
            cube = self._open(history)
        with _TURN:
            with _FILES if cube.chunks else nullcontext():
                options = {**job.options, "static": self._static, "memory": job.memory}
                forecast = self._model.predict(cube, at=[reference], **options)
                if job.matched:
                    forecast = match_distribution(forecast, cube)
            if forecast.chunks:  # in tiles, which are forecast as they are written
                self._write(forecast, reference, fingerprint)
                return WRITTEN
        self._write(forecast, reference, fingerprint)
        return WRITTEN

    def _open(self, history: History) -> xr.DataArray:
        """The cube of a history, in memory where that is a small part of what a forecast may take."""
        job = self.job
        cube = assemble(history, job.templates, job.names)
        if job.units is not None:
            source = cube.encoding
            cube = convert_units(cube, job.units)
            cube.encoding = source
        return cube.load() if cube.nbytes <= parse_memory(job.memory) / 16 else cube

    def _write(self, forecast: xr.Dataset, reference: Any, fingerprint: int) -> None:
        with _FILES:
            self.job.target.write(forecast, reference, fingerprint)


def forecast_one(key: str, history: History, fingerprint: int) -> tuple[str, str]:
    """What became of a forecast, and why it failed; run by a worker."""
    try:
        plugin: Any = get_worker().plugins[key]
        return plugin.make(history, fingerprint), ""
    except Exception as error:  # one bad frame must not cost the rest of the night
        return FAILED, one_line(error)
