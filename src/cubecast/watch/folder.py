"""Which files of a folder are new and at rest: told by name, size and time of change, without opening one."""

from __future__ import annotations

import fnmatch
import os
from dataclasses import dataclass
from pathlib import Path

from cubecast.errors import InputError

_PARTS = (".tmp", ".temp", ".part", ".partial", ".filepart", ".crdownload", ".swp", "~")
"""Endings under which programs copy files that they rename when whole; hidden files (rsync) are left out as well."""


@dataclass(slots=True)
class Seen:
    """What is remembered of a file."""

    size: int
    mtime: int
    """In nanoseconds."""
    changed: float
    """When a look first found it as it is."""
    looks: int = 1
    """How many looks in a row found it as it is; no more than 2 are counted."""
    done: bool = False


class Folder:
    """The files of a folder whose names match ``pattern``.

    A file is at rest when two looks in a row found the same size and time of change. Each is given out until `done`
    is said of it, and again when it changes after that. Names that are gone are forgotten.
    """

    def __init__(self, path: Path, pattern: str = "*") -> None:
        self.path, self.pattern = path, pattern
        self.seen: dict[str, Seen] = {}

    def look(self, now: float) -> list[str]:
        """The names at rest that are not done, sorted.

        Raises:
            InputError: the folder cannot be read.
        """
        found = {}
        for name, size, mtime in self._files():
            old = self.seen.get(name)
            if old is None or (old.size, old.mtime) != (size, mtime):
                found[name] = Seen(size, mtime, now)
            else:
                old.looks = 2
                found[name] = old
        self.seen = found
        return sorted(name for name, seen in found.items() if seen.looks > 1 and not seen.done)

    def moving(self) -> int:
        """How many files the last look found changed, or for the first time."""
        return sum(seen.looks == 1 for seen in self.seen.values())

    def done(self, name: str) -> None:
        """Do not give out ``name`` again unless it changes."""
        self.seen[name].done = True

    def _files(self) -> list[tuple[str, int, int]]:
        files = []
        try:
            with os.scandir(self.path) as entries:
                for entry in entries:
                    if self._is_wanted(entry.name):
                        try:
                            if entry.is_file():
                                stat = entry.stat()
                                files.append((entry.name, stat.st_size, stat.st_mtime_ns))
                        except OSError:  # gone since, or a link to nothing
                            continue
        except OSError as error:
            raise InputError(f"cannot read the folder {self.path}", found=error.strerror or str(error)) from None
        return files

    def _is_wanted(self, name: str) -> bool:
        return not name.startswith(".") and not name.endswith(_PARTS) and fnmatch.fnmatch(name, self.pattern)
