"""Foreign files are read by a process of their own first: a file that crashes HDF5 ends that process, not this one.

HDF5 and netCDF-C are C libraries: a damaged file, or one made for it, can crash, hang or exhaust the process that
opens it. `Probe.check` lets a helper read what will be read here, under limits of time and memory. The helper lives
on, so that a file costs milliseconds; after a crash the next file finds a new one. Limits are those of POSIX systems;
elsewhere the helper keeps crashes out, and nothing else.

The helper is ``python -m cubecast.sources.probe SECONDS BYTES``; a request and its answer are one line of JSON each.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
from typing import IO, Any

from cubecast.errors import CubecastError, InputError

SECONDS = 10
"""For one file."""
MEMORY = 4 * 2**30
"""Bytes that the helper may take beyond what it has before the first file."""
_LIFE = 10_000
"""Files after which a new helper begins: what the libraries do not give back would be taken for a file's."""
_READY = "ready"


class Probe:
    """A helper process that reads files; it starts with the first file. One thread at a time may use it.

    Args:
        seconds: what a file may take.
        memory: bytes that it may take.
    """

    def __init__(self, *, seconds: int = SECONDS, memory: int = MEMORY) -> None:
        self.seconds, self.memory = seconds, memory
        self._helper: subprocess.Popen[str] | None = None
        self._left = 0

    def check(self, path: str | os.PathLike[str], *, variable: Any = None, frames: int = 1) -> None:
        """Refuse a file that cannot be read without harm.

        Args:
            path: a file or store.
            variable: as in `cubecast.open_cube`.
            frames: how many of its last frames are read; 0: it is opened, and no value is read.

        Raises:
            InputError: reading it fails, crashes, takes too long or takes too much memory.
        """
        helper = self._started()
        self._left -= 1
        assert helper.stdin is not None
        assert helper.stdout is not None
        # The helper began in the folder of then; a relative path means the folder of now.
        request = {"folder": os.getcwd(), "path": os.fspath(path), "variable": variable, "frames": frames}
        answer = ""
        with contextlib.suppress(OSError):  # it died before it read the request
            helper.stdin.write(json.dumps(request) + "\n")
            helper.stdin.flush()
            answer = helper.stdout.readline()
        if not answer:
            raise self._died(str(path))
        error = json.loads(answer)
        if error is not None:
            raise InputError(error)

    def close(self) -> None:
        """End the helper, if there is one."""
        helper, self._helper = self._helper, None
        if helper is not None:
            with helper:  # closes its input, which is its end
                helper.kill()

    def _started(self) -> subprocess.Popen[str]:
        if self._helper is not None and (not self._left or self._helper.poll() is not None):
            self.close()
        if self._helper is None:
            command = [sys.executable, "-m", "cubecast.sources.probe", str(self.seconds), str(self.memory)]
            self._helper = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            self._left = _LIFE
            assert self._helper.stdout is not None
            if self._helper.stdout.readline().strip() != _READY:
                raise RuntimeError("the helper that reads foreign files does not start")
        return self._helper

    def _died(self, path: str) -> InputError:
        """What the end of the helper says about the file."""
        assert self._helper is not None
        code = self._helper.wait()
        self.close()
        reason = f"exit code {code}"
        if code == -getattr(signal, "SIGALRM", 0):
            reason = f"more than {self.seconds} s of reading"
        elif code < 0:
            reason = f"a crash of the library that reads it ({signal.Signals(-code).name})"
        return InputError(f"cannot read {path}", found=reason, remedy="the file is damaged: get it again")


SHARED = Probe()
"""The probe of this process."""


def _limit(memory: int) -> None:
    """No more address space than ``memory`` beyond what is taken now, and no core dumps."""
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        with open("/proc/self/statm", encoding="ascii") as file:
            taken = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory, taken + memory))
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the program that asks, whose end is the end of this
        signal.signal(number, signal.SIG_IGN)


def _read(folder: str, path: str, variable: Any, frames: int, known: list[Any]) -> str | None:
    """Open a file, as it is called in a folder, and read its last frames; what is wrong with it."""
    from cubecast.sources.blocks import read_frame
    from cubecast.sources.opening import open_cube, try_scan

    try:
        os.chdir(folder)
        if not frames:
            try_scan(path, variable if isinstance(variable, list) else [variable], known)
            return None
        cube = open_cube(path, variable=variable)
        for index in range(max(0, len(cube) - frames), len(cube)):
            read_frame(cube, index)
    except CubecastError as error:
        return str(error)
    except Exception as error:  # what a damaged file can make of a library has no end
        return str(InputError(f"cannot read {path}", found=f"{type(error).__name__}: {error}"))
    return None


def _serve(requests: IO[str], answers: IO[str], seconds: int, memory: int) -> None:
    import dask

    import cubecast.sources  # noqa: F401  what is needed is there before memory is limited

    dask.config.set(scheduler="synchronous")  # each thread would take memory of its own
    logging.disable()  # the program that asks reads the file, too, and says what there is to say
    _limit(memory)
    answers.write(_READY + "\n")
    answers.flush()
    known: list[Any] = []
    for line in requests:
        if hasattr(signal, "alarm"):
            signal.alarm(seconds)  # without a handler: it ends the process, in whatever library it is
        error = _read(**json.loads(line), known=known)
        if hasattr(signal, "alarm"):
            signal.alarm(0)
        answers.write(json.dumps(error) + "\n")
        answers.flush()


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    _serve(sys.stdin, answers, int(sys.argv[1]), int(sys.argv[2]))
