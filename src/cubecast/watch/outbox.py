"""The output folder of a watch: one watcher at a time, names in the order of time, the latest, and what is too old."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import netCDF4
import numpy as np

from cubecast.atomic import TEMPORARY, atomic_path, make_folder, remove_stale
from cubecast.errors import OutputError
from cubecast.product import file_stem
from cubecast.sources.blocks import LOCK, READ_ERRORS

MARK = "cubecast watch"
"""The attribute ``creator`` of every forecast that a watch made; retention looks for it."""
LATEST, STATUS, MAPS = "latest", "status.json", "maps"
_LOCK_FILE = ".cubecast-watch.lock"
_LIST = ".cubecast-watch.json"
"""In a folder of maps: the names that the watch wrote there."""
_NAME = re.compile(r"nowcast_(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)")


def stem_time(name: str) -> np.datetime64 | None:
    """The inverse of `cubecast.product.file_stem`; None for any other name."""
    match = _NAME.fullmatch(name)
    with suppress(ValueError):
        return None if match is None else np.datetime64("{}-{}-{}T{}:{}:{}".format(*match.groups()), "ns")
    return None


class Outbox:
    """The folder that forecasts are written to.

    Args:
        path: made when missing.
        link: makes symbolic links; where it cannot, ``latest.nc`` is a copy.
    """

    def __init__(self, path: Path, link: Callable[[str, Path], None] = os.symlink) -> None:
        self.path, self._link = path, link
        self._others: set[str] = set()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other watchers out; the operating system lets go of the lock when the process ends, however it does.

        Raises:
            OutputError: another process holds it, or the folder cannot be made.
        """
        make_folder(self.path)
        with open(self.path / _LOCK_FILE, "a+", encoding="ascii") as file:
            if not _lock(file):
                file.seek(0)
                raise OutputError(
                    f"cannot write to {self.path}",
                    found=f"another watcher at work there (process {file.read().strip() or 'unknown'})",
                    remedy="stop it, or choose another folder with -o",
                )
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def clean(self) -> list[str]:
        """Remove what writers that were killed have left; the lock is held, so no watcher is writing now."""
        return [*remove_stale(self.path), *remove_stale(self.path / MAPS)]

    def times(self) -> list[np.datetime64]:
        """The reference times of the forecasts that are there, sorted; a name is there only when its file is whole."""
        found = [stem_time(p.stem) for p in self.path.glob("nowcast_*.nc") if p.is_file()]
        return sorted(t for t in found if t is not None)

    def forecast_path(self, time: np.datetime64) -> Path:
        """Where the forecast after ``time`` belongs."""
        return self.path / f"{file_stem(time)}.nc"

    def maps_path(self, time: np.datetime64) -> Path:
        """Where the maps of the forecast after ``time`` belong."""
        return self.path / MAPS / file_stem(time)

    @contextmanager
    def maps(self, time: np.datetime64) -> Iterator[Path]:
        """A folder to draw the maps of a forecast in; it gets its name, and ``maps/latest``, when all are drawn."""
        make_folder(self.path / MAPS)
        target = self.maps_path(time)
        with atomic_path(target, replace_folder=True) as folder:
            yield folder
            names = sorted(p.name for p in folder.iterdir())
            (folder / _LIST).write_text(json.dumps(names), encoding="utf-8")

    def point(self, target: Path) -> None:
        """Let ``latest`` beside ``target`` be that file or folder: a link replaced in one step, or a copy of a file.

        Raises:
            OutputError: neither can be written.
        """
        latest = target.with_name(LATEST + target.suffix)
        temporary = latest.with_name(f"{TEMPORARY}{os.getpid()}-{LATEST}")
        try:
            temporary.unlink(missing_ok=True)
            self._link(target.name, temporary)
            os.replace(temporary, latest)
        except (OSError, NotImplementedError):
            temporary.unlink(missing_ok=True)
            if target.is_dir():  # a file system without links: the name of the newest folder says as much
                return
            if latest.is_symlink():
                latest.unlink()
            with atomic_path(latest) as copy:
                shutil.copyfile(target, copy)

    def write_status(self, values: dict[str, Any]) -> None:
        """Write ``status.json``, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        with atomic_path(self.path / STATUS) as temporary:
            temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")

    def retire(self, before: np.datetime64) -> list[str]:
        """Remove forecasts and maps of reference times before ``before`` that a watch made; the newest stays.

        Returns:
            The names that were removed.
        """
        gone = []
        for time in self.times()[:-1]:
            path = self.forecast_path(time)
            if time < before and path.name not in self._others:
                if _is_ours(path):
                    _remove(path)
                    gone.append(path.name)
                else:
                    self._others.add(path.name)
        folders = [p for p in (self.path / MAPS).glob("nowcast_*") if not self.path.joinpath(f"{p.name}.nc").exists()]
        for folder in folders:
            found = stem_time(folder.name)
            if found is not None and found < before and _remove_maps(folder):
                gone.append(f"{MAPS}/{folder.name}")
        return gone


def _is_ours(path: Path) -> bool:
    try:
        with LOCK, netCDF4.Dataset(path) as file:
            return str(file.__dict__.get("creator", "")) == MARK
    except READ_ERRORS:
        return False


def _remove_maps(folder: Path) -> bool:
    """Remove the pictures that were drawn, and the folder unless something else is in it."""
    try:
        names = json.loads((folder / _LIST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    for name in [*names, _LIST]:
        if Path(str(name)).name == name:  # nothing outside of the folder, whatever the list says
            _remove(folder / name)
    with suppress(OSError):
        folder.rmdir()
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _lock(file: IO[str]) -> bool:
    """Take the lock on an open file; False when another process has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
