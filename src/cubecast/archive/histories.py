"""An archive cut into histories that travel to workers: each names the files of its frames, and no others."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np
import xarray as xr

from cubecast.channels import Array
from cubecast.cube import locate, sequence_dim, with_frames
from cubecast.errors import InputError
from cubecast.progress import Progress
from cubecast.sources import open_cube, probe
from cubecast.sources.blocks import Frames, dask_array, stored_frames

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class History:
    """The frames of one history: for each variable where they are, or a lazy cube of them."""

    times: Array
    parts: tuple[Frames | xr.DataArray, ...]


@dataclass(frozen=True)
class Archive:
    """A whole archive, lazily.

    Attributes:
        cube: all of it.
        singles: for each of its variables a cube, where there is more than one variable; else ``cube``.
        names: of the variables, where there is more than one.
        refused: files that cannot be read, and why.
    """

    cube: xr.DataArray
    singles: tuple[xr.DataArray, ...]
    names: tuple[str, ...]
    refused: dict[str, str]

    @property
    def templates(self) -> tuple[xr.DataArray, ...]:
        """All that frames share: the singles without a frame."""
        return tuple(one[:0].copy(data=np.empty((0, *one.shape[1:]), one.dtype)) for one in self.singles)

    def history(self, last: int, length: int) -> History:
        """The ``length`` frames up to frame ``last`` of the cube."""
        times = self.cube[sequence_dim(self.cube)].values[last + 1 - length : last + 1]
        parts: list[Frames | xr.DataArray] = []
        for one in self.singles:
            where, frames = locate(one, times), stored_frames(one)  # of a finer step than the cube, not one by one
            if (where < 0).any():
                raise InputError(f"frames of {one.name!r}", found=f"none at {times[where < 0][0]}")
            if frames is not None:
                parts.append(frames.part(where))
            else:
                piece = one[where]
                parts.append(piece.copy(data=dask.optimize(piece.data)[0]))  # without the rest of the archive
        return History(times, tuple(parts))


def open_archive(source: Sequence[str], *, variable: Sequence[str] | None, progress: Progress | None) -> Archive:
    """Open an archive; files that cannot be read, or that end the helper which opens each first, are left out of it.

    Raises:
        InputError: nothing can be read, or what can is not one cube.
    """
    names, opened = tuple(variable or ()), []
    by_name: list[dict[str, InputError]] = []
    try:
        for name in names or (None,):
            by_name.append({})
            opened.append(open_cube(source, variable=name, refused=by_name[-1].__setitem__, progress=progress))
    except InputError as error:
        if by_name[-1]:
            raise InputError(str(error), found=str(next(iter(by_name[-1].values())))) from None
        raise
    finally:
        probe.SHARED.close()
    refused = {path: str(why) for path, why in by_name[0].items() if all(path in others for others in by_name)}
    for path, why in refused.items():  # others have some of the variables
        logger.warning("%s is left out: %s", path, why)
    if len(opened) == 1:
        return Archive(opened[0], (opened[0],), (), refused)
    return Archive(open_cube(opened, variable=names), tuple(opened), names, refused)


def assemble(history: History, templates: Sequence[xr.DataArray], names: Sequence[str]) -> xr.DataArray:
    """The cube of a history, lazily, one chunk a frame."""
    cubes = []
    for part, template in zip(history.parts, templates, strict=True):
        if isinstance(part, Frames):
            chunks = ((1,) * len(history.times), *((n,) for n in part.shape[1:]))
            cube = with_frames(template, history.times, dask_array(part, chunks))
            cube.encoding["source"] = ", ".join(str(file) for file in part.files)
            cubes.append(cube)
        else:
            cubes.append(part)
    return cubes[0] if len(cubes) == 1 else open_cube(cubes, variable=list(names))


class Fingerprints:
    """A number that tells whether a forecast is of this model, these options and this input.

    Args:
        about: the model and the options.
    """

    def __init__(self, about: dict[str, Any]) -> None:
        self._about = json.dumps(about, sort_keys=True, default=str)
        self._files: dict[str, Any] = {}

    def of(self, history: History) -> int:
        """That of the forecast from a history: 63 bits, never 0.

        A file is known by its name, size and time of change; a store or a URL by its name.
        """
        files = [self._file(str(f)) for p in history.parts if isinstance(p, Frames) for f in p.files]
        text = json.dumps([self._about, np.asarray(history.times).view(np.int64).tolist(), files])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1 or 1

    def _file(self, path: str) -> Any:
        if path not in self._files:
            self._files[path] = identity(path)
        return self._files[path]


def identity(path: str) -> Any:
    """What tells a file from another version of it."""
    if not os.path.isfile(path):
        return path
    about = os.stat(path)
    return [os.path.basename(path), about.st_size, about.st_mtime_ns]
