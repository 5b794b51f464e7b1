"""Fetch a period of a public archive into a folder: resumed, checked for length, skipping what is there.

    python scripts/get_archive.py --list
    python scripts/get_archive.py oisst_v2_1 2024-01-01 2024-03-31 -o oisst

Files that the archive does not have are listed at the end, and the exit code is then 1.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from cubecast.archives import ARCHIVES, archive_urls
from cubecast.download import download
from cubecast.errors import InputError
from one_line import one_line_errors

err = Console(stderr=True, highlight=False)


def list_archives() -> None:
    """Print what there is, whose it is, and on what terms."""
    for name, archive in ARCHIVES.items():
        typer.echo(f"{name}\n  {archive.title}\n  owner: {archive.owner}; licence: {archive.licence}")
        typer.echo(f"  format: {archive.format}; open_cube: {archive.use}")


def fetch(urls: list[str], folder: Path) -> list[str]:
    """Download all of ``urls`` into ``folder``; one line for each that failed."""
    failed = []
    for url in track(urls, description=folder.name, console=err, disable=not err.is_terminal):
        try:
            download(url, folder / url.rpartition("/")[2])
        except InputError as error:
            failed.append(str(error))
    return failed


@one_line_errors("get_archive")
def main(
    name: Annotated[str | None, typer.Argument(help="Archive, one of --list.")] = None,
    start: Annotated[str | None, typer.Argument(help="UTC time of the first file, such as 2024-07-01T12:00.")] = None,
    end: Annotated[str | None, typer.Argument(help="UTC time of the last file.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to fill; without it, one named NAME.")
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="Say which archives there are, and stop.")] = False,
) -> None:
    """Fetch all files of a public archive from START to END, both included."""
    if show or name is None:
        list_archives()
        return
    urls = archive_urls(name, start, end)
    failed = fetch(urls, output or Path(name))
    typer.echo(f"{len(urls) - len(failed)} of {len(urls)} files are in {output or name}")
    if failed:
        typer.echo("\n".join(["failed:", *failed]), err=True)
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
