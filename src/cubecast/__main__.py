"""The entry point of ``cubecast`` and ``python -m cubecast``: errors become one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence

_GLOBAL = ("-v", "--verbose", "--debug")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and give its exit code: 0 ok, 1 failed, 2 usage, 3 input, 4 output."""
    import typer

    from cubecast.cli import app
    from cubecast.errors import CubecastError

    given = list(sys.argv[1:] if arguments is None else arguments)
    # -v and --debug may stand anywhere, as users type them.
    first = [a for a in given if a in _GLOBAL]
    try:
        app(first + [a for a in given if a not in _GLOBAL], prog_name="cubecast", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("cubecast: stopped\n")
        return 130
    except Exception as error:
        if "--debug" in first:
            raise
        if isinstance(error, CubecastError):
            sys.stderr.write(f"cubecast: error: {error}\n")
            return error.exit_code
        if hasattr(error, "format_message"):  # typer's: the command line itself
            sys.stderr.write(_usage(error.format_message()))
            return 2
        line = " ".join(f"{type(error).__name__}: {error}".split())
        sys.stderr.write(f"cubecast: internal error: {line}; run again with --debug and report it\n")
        return 1
    return 0


def _usage(message: str) -> str:
    """What typer says of a wrong command line, as one line; the help text, said when nothing was given, as it is."""
    if message.startswith("Usage:"):
        return f"{message}\n"
    text = " ".join(message.split()).rstrip(".")
    if "unexpected extra argument" in text and len(text) > 160:  # all files that a shell made of a pattern
        text = f"{text[:160]}...; quote patterns: --observed 'radar/*.nc'"
    return f"cubecast: error: {text[0].lower()}{text[1:]}; 'cubecast COMMAND --help' lists what there is\n"


if __name__ == "__main__":
    sys.exit(main())
