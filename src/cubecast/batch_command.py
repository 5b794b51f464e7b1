"""``cubecast batch``: a forecast for every reference time of an archive, on the workers of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cubecast.arguments import (
    Files,
    Matched,
    Members,
    Model,
    Precision,
    Seed,
    StaticFile,
    Variable,
    bar,
    err,
    fit_shipped,
)
from cubecast.errors import FailedError
from cubecast.shipped import DEFAULT

if TYPE_CHECKING:
    import xarray as xr

    from cubecast.nowcaster import Nowcaster

Output = Annotated[
    Path,
    typer.Option(
        "--output", "-o", metavar="OUT", help="Folder for one netCDF file a reference time; or one store, OUT.zarr."
    ),
]
Times = Annotated[
    list[str] | None, typer.Option("--at", metavar="TIME", help="A reference time; repeat. [all that have a history]")
]
Scheduler = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="A dask scheduler, for example tcp://host:8786. [a cluster on this machine]"),
]


def batch_command(
    archive: Files,
    output: Output,
    model: Model = DEFAULT,
    at: Times = None,
    start: Annotated[str | None, typer.Option(metavar="TIME", help="First reference time.")] = None,
    end: Annotated[str | None, typer.Option(metavar="TIME", help="Last reference time, included.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Use every Nth reference time.")] = 1,
    horizon: Annotated[int | None, typer.Option(min=1, help="Frames to forecast. [as trained]")] = None,
    members: Members = None,
    seed: Seed = 0,
    precision: Precision = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory of each worker: grids that need more go in tiles. [4GB]")
    ] = None,
    matched: Matched = False,
    maps: Annotated[bool, typer.Option("--maps", help="Draw maps of each forecast too, under maps/.")] = False,
    scheduler: Scheduler = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes on this machine. [one a core]")] = None,
    variable: Variable = None,
    static: StaticFile = None,
) -> None:
    """Forecast after every reference time in FILES, on a dask cluster; what is there and complete is skipped.

    What fails is listed with its reason in OUT/report.json (OUT.report.json beside a store), and the exit code is 1.
    """
    from cubecast.archive import run_archive

    which: dict[str, Any] = {"at": at, "start": start, "end": end, "every": every, "variable": variable}
    how: dict[str, Any] = {"horizon": horizon, "members": members, "seed": seed, "precision": precision}
    where: dict[str, Any] = {"scheduler": scheduler, "workers": workers, "memory": memory, "progress": bar}
    how |= {"static": static, "matched": matched, "maps": maps}

    def fit(cube: xr.DataArray, loaded: Nowcaster) -> xr.DataArray:
        return fit_shipped(cube, loaded, model)

    report = run_archive(archive, model, output, **which, **how, **where, fit=fit, say=err.print)
    found, unreadable = report["forecasts"], len(report["unreadable_files"])
    typer.echo(f"{found['written']} written, {found['there']} there already, {found['failed']} failed")
    if found["failed"] or unreadable:
        raise FailedError(
            f"{found['failed']} forecasts failed, {unreadable} files could not be read",
            remedy=f"read {report['report']}",
        )
