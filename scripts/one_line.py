"""What all scripts share: an error is one line."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from cubecast.errors import CubecastError


@contextmanager
def one_line_errors(name: str) -> Iterator[None]:
    """Within it, or a function that it decorates, a wrong wish or input ends the script ``name`` with one line."""
    try:
        yield
    except CubecastError as error:
        typer.echo(f"{name}: error: {error}", err=True)
        sys.exit(error.exit_code)
