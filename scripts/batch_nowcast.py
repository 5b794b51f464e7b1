"""Write one forecast file for every reference time in an archive.

    python scripts/batch_nowcast.py 'radar/*.nc' --model model -o nowcasts --start 2017-05-09 --every 3

Run it again to go on: files that are there are skipped. A time that fails is listed at the end, and the exit code is
then 1; the codes 2, 3 and 4 are those of the cubecast command.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
import xarray as xr
from rich.console import Console
from rich.progress import track

import cubecast
from cubecast.atomic import make_folder
from cubecast.errors import CubecastError, InputError, UsageError
from cubecast.forecast import possible_references
from cubecast.product import file_stem
from cubecast.sources import open_static

err = Console(stderr=True, highlight=False)


def choose(cube: xr.DataArray, history: int, start: str | None, end: str | None, every: int) -> np.ndarray[Any, Any]:
    """Every ``every``-th time from ``start`` to ``end`` that has a complete history (which may begin before)."""
    times = possible_references(cube, history=history)
    try:
        times = times[pd.Index(times).slice_indexer(start, end)][::every]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError("--start, --end", found=str(error), allowed="times such as 2017-05-09T12:30") from None
    if not times.size:
        frames = f"{cube.sizes[cube.dims[0]]} frames from {cube[cube.dims[0]].values[0]} on"
        raise InputError(f"no time with a history of {history} frames", found=frames, remedy="widen --start, --end")
    return times


def forecast(
    model: cubecast.Nowcaster, cube: xr.DataArray, time: Any, path: Path, *, static: xr.Dataset | None, maps: bool
) -> None:
    """Write the forecast after ``time``; its maps come first, so that a forecast that is there has them all."""
    result = model.predict(cube, at=[time], static=static)
    if maps:
        from cubecast.maps import draw_maps

        draw_maps(result, path.parent / "maps" / path.stem)
    cubecast.write_forecast(result, path)


def batch(
    archive: Sequence[str],
    model_folder: Path,
    folder: Path,
    *,
    start: str | None = None,
    end: str | None = None,
    every: int = 1,
    static: str | None = None,
    maps: bool = False,
) -> tuple[int, int, list[str]]:
    """How many forecasts were written, how many were there already, and one line for each time that failed."""
    model = cubecast.Nowcaster.load(model_folder)
    cube = cubecast.open_cube(archive[0] if len(archive) == 1 else list(archive))
    fields = None if static is None else open_static(static)
    times = choose(cube, model.config.task.history, start, end, every)
    make_folder(folder)
    written, there, failed = 0, 0, []
    for time in track(times, description=folder.name, console=err, disable=not err.is_terminal):
        path = folder / f"{file_stem(time)}.nc"
        if path.is_file():
            there += 1
            continue
        try:
            forecast(model, cube, time, path, static=fields, maps=maps)
            written += 1
        except Exception as error:  # one bad frame must not cost the rest of the night
            line = " ".join(str(error).split())
            failed.append(
                f"{path.name}: {line if isinstance(error, CubecastError) else f'{type(error).__name__}: {line}'}"
            )
    return written, there, failed


def main(
    archive: Annotated[
        list[str], typer.Argument(help="netCDF files, a quoted pattern, a Zarr store or an fsspec URL.")
    ],
    model: Annotated[Path, typer.Option(help="Folder that 'cubecast train' wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the forecasts.")],
    start: Annotated[str | None, typer.Option(help="First reference time.")] = None,
    end: Annotated[str | None, typer.Option(help="Last reference time, included.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Use every Nth reference time.")] = 1,
    static: Annotated[str | None, typer.Option(help="netCDF file of the model's static fields.")] = None,
    maps: Annotated[bool, typer.Option("--maps", help="Draw maps of each new forecast too, under maps/.")] = False,
) -> None:
    """Write one forecast file for every reference time in ARCHIVE; skip those that are there."""
    try:
        written, there, failed = batch(
            archive, model, output, start=start, end=end, every=every, static=static, maps=maps
        )
    except CubecastError as error:
        typer.echo(f"batch_nowcast: error: {error}", err=True)
        sys.exit(error.exit_code)
    typer.echo(f"{written} written, {there} there already, {len(failed)} failed")
    if failed:
        typer.echo("\n".join(["failed:", *failed]), err=True)
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
