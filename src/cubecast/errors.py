"""The error tree. Every error a user can cause says what was found, what is allowed and what to do."""

from typing import Any


class CubecastError(Exception):
    """Base of all errors that cubecast raises on purpose.

    The message is one line: ``WHAT: found FOUND; allowed: ALLOWED; REMEDY``. The command line prints it
    without a traceback and leaves with ``exit_code``.
    """

    exit_code = 1

    def __init__(self, what: str, *, found: Any = None, allowed: Any = None, remedy: str | None = None) -> None:
        parts = []
        if found is not None:
            parts.append(f"found {found}")
        if allowed is not None:
            parts.append(f"allowed: {allowed}")
        if remedy is not None:
            parts.append(remedy)
        message = what + (": " + "; ".join(parts) if parts else "")
        super().__init__(" ".join(message.split()))


class FailedError(CubecastError, RuntimeError):
    """The work itself failed, for example a training run whose loss is no longer finite (exit code 1)."""


class UsageError(CubecastError, ValueError):
    """An argument or a configuration value is wrong (exit code 2)."""

    exit_code = 2


class InputError(CubecastError, ValueError):
    """A file or a cube that was read is not what it must be (exit code 3)."""

    exit_code = 3


class ModelMismatchError(InputError):
    """A cube does not fit the saved model: other units, step, channels or too few frames (exit code 3)."""


class OutputError(CubecastError, RuntimeError):
    """A file could not be written whole (exit code 4)."""

    exit_code = 4


def one_line(error: BaseException) -> str:
    """An error for a list of failures: our own as they are, others with their type."""
    text = str(error) if isinstance(error, CubecastError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())
