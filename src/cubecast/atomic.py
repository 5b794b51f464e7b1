"""Whole files or none: every writer works under a temporary name in the same folder and renames when done."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cubecast.errors import OutputError

TEMPORARY = ".cubecast-tmp-"
"""How every temporary name begins: after a kill -9 or a power cut such a file or folder may be left, and may go."""

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_ACCESS = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def atomic_path(path: str | os.PathLike[str], *, replace_folder: bool = False) -> Iterator[Path]:
    """A temporary path to write a file or a folder at; it becomes ``path`` when the block ends without an error.

    Data and names are synced to the disk before and after the rename, so that after a crash of program or machine
    ``path`` is the old thing or the new one, never a part. After any exception, Ctrl-C included, nothing is left.

    Args:
        path: the final name; an existing file is replaced, a symbolic link is followed.
        replace_folder: whether an existing folder of that name may be replaced by the new folder.

    Yields:
        A name in the same folder that does not exist yet, with the suffix of ``path``.

    Raises:
        OutputError: the folder is missing or cannot be written, the disk is full, or the name is taken by
            something that is not replaced (a folder, a device).
    """
    target = Path(os.path.realpath(path))
    _check_target(target, replace_folder)
    temporary = target.parent / f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}{target.suffix}"
    try:
        yield temporary
        sync_tree(temporary)
        _rename(temporary, target, replace_folder)
        _sync(target.parent)
    except OSError as error:
        raise output_error(target, error) from error
    finally:
        _remove(temporary)


@contextmanager
def unchanged_on_error(thing: Any) -> Iterator[None]:
    """The attributes of ``thing`` are as they were when the block ends with an error, Ctrl-C included."""
    before = dict(vars(thing))
    try:
        yield
    except BaseException:
        vars(thing).clear()
        vars(thing).update(before)
        raise


def make_folder(folder: Path) -> None:
    """Make a folder, and its parents, unless it is there.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from None


def cache_folder(what: str) -> Path:
    """Where copies and results of other programs are kept: under XDG_CACHE_HOME, or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "cubecast" / what


def remove_stale(folder: Path) -> list[str]:
    """Remove the temporary files and folders in ``folder`` that processes of this machine left when they were killed.

    Returns:
        Their names.
    """
    stale = [path for path in folder.glob(f"{TEMPORARY}*") if not _is_running(path.name)]
    for path in stale:
        _remove(path)
    return [path.name for path in stale]


def _check_target(target: Path, replace_folder: bool) -> None:
    if not target.parent.is_dir():
        raise OutputError(f"cannot write {target}", found=f"no folder {target.parent}", remedy="make the folder first")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {target}", found=f"no permission to write in {target.parent}")
    if target.is_dir() and not replace_folder:
        raise OutputError(f"cannot write {target}", found="a folder of that name", remedy="choose another name")
    if target.exists() and not target.is_dir() and not stat.S_ISREG(target.stat().st_mode):
        raise OutputError(f"cannot write {target}", found="a device or pipe", allowed="a regular file")


def _rename(temporary: Path, target: Path, replace_folder: bool) -> None:
    """Put ``temporary`` in the place of ``target``; no system call swaps folders, so the old one steps aside first."""
    if temporary.is_dir() and target.exists():
        if not (target.is_dir() and replace_folder):
            raise OutputError(f"cannot write {target}", found="a file of that name", remedy="choose another name")
        aside = temporary.with_name(temporary.name + ".old")
        os.rename(target, aside)
        try:
            os.rename(temporary, target)
        except BaseException:
            os.rename(aside, target)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    else:
        os.replace(temporary, target)


def sync_tree(path: Path) -> None:
    """Wait until a file, or a folder with all that is in it, is on the disk."""
    for folder, _, files in os.walk(path):
        for name in files:
            _sync(Path(folder) / name)
        _sync(Path(folder))
    if path.is_file():
        _sync(path)


def _sync(path: Path) -> None:
    if os.name != "posix" and path.is_dir():  # Windows has no handle on a folder to sync
        return
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_running(name: str) -> bool:
    """Whether the process that a temporary name is of is alive, and another than this one."""
    pid = name.removeprefix(TEMPORARY).partition("-")[0]
    if not pid.isdigit() or int(pid) == os.getpid():
        return False
    if sys.platform == "win32":  # os.kill would end it
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _remove(path: Path) -> None:
    """Remove a file or folder, if there. What is left of a writer's threads may still put files into a folder."""
    if path.is_symlink() or not path.is_dir():
        with suppress(OSError):
            if path.is_file() and not path.is_symlink():
                os.truncate(path, 0)  # HDF5 may hold it, and its room on a full disk, until the process ends
            path.unlink(missing_ok=True)
        return
    for pause in (0.05, 0.1, 0.2, 0.5, 1.0):
        shutil.rmtree(path, ignore_errors=True)
        time.sleep(pause)
        if not path.exists():
            return
    shutil.rmtree(path, ignore_errors=True)


def output_error(target: Path, error: OSError) -> OutputError:
    """The error for a path that the operating system does not let us write."""
    if error.errno in _NO_SPACE:
        return OutputError(f"cannot write {target}", found=f"a full disk ({free_space(target)})", remedy="make space")
    if error.errno in _NO_ACCESS:
        # with the free space, because netCDF-C says the same where there is no room for a new file
        return OutputError(f"cannot write {target}", found=f"no permission ({error.strerror}), {free_space(target)}")
    return OutputError(f"cannot write {target}", found=str(error) or type(error).__name__)


def free_space(path: Path) -> str:
    """How much room the file system of ``path`` has, in words."""
    try:
        return f"{shutil.disk_usage(path.parent).free:,} bytes free"
    except OSError:
        return "free space unknown"
