"""The entry point of ``cubecast`` and ``python -m cubecast``: errors become one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence

_GLOBAL = ("-v", "--verbose", "--debug")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and give its exit code: 0 ok, 1 failed, 2 usage, 3 input, 4 output."""
    from cubecast.cli import app
    from cubecast.errors import CubecastError

    given = list(sys.argv[1:] if arguments is None else arguments)
    # -v and --debug may stand anywhere, as users type them.
    first = [a for a in given if a in _GLOBAL]
    try:
        app(first + [a for a in given if a not in _GLOBAL], prog_name="cubecast")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        sys.stderr.write("cubecast: stopped\n")
        return 130
    except Exception as error:
        if "--debug" in first:
            raise
        if isinstance(error, CubecastError):
            sys.stderr.write(f"cubecast: error: {error}\n")
            return error.exit_code
        line = " ".join(f"{type(error).__name__}: {error}".split())
        sys.stderr.write(f"cubecast: internal error: {line}; run again with --debug and report it\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
