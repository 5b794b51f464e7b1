"""``cubecast forecast``: a trained model on files, into one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cubecast.arguments import (
    Files,
    Matched,
    Memory,
    Model,
    Precision,
    StaticFile,
    Variable,
    bar,
    open_one,
    open_static_fields,
)
from cubecast.errors import UsageError


def forecast_command(
    files: Files,
    model: Model,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Forecast file to write: .nc or .zarr.")
    ],
    at: Annotated[
        list[str] | None,
        typer.Option(metavar="TIME", help="Time of the last frame to use; repeat for several. [the last frame]"),
    ] = None,
    every: Annotated[
        int | None, typer.Option(min=1, help="Instead of --at: after every Nth frame that has a history.")
    ] = None,
    horizon: Annotated[int | None, typer.Option(min=1, help="Frames to forecast. [as trained]")] = None,
    precision: Precision = None,
    memory: Memory = None,
    matched: Matched = False,
    variable: Variable = None,
    static: StaticFile = None,
) -> None:
    """Forecast with a trained model and write one CF netCDF (or Zarr) file."""
    from cubecast.forecast import possible_references, read_reference
    from cubecast.matching import match_distribution
    from cubecast.nowcaster import Nowcaster
    from cubecast.write import write_forecast

    if at and every:
        raise UsageError("reference times", found="both --at and --every", allowed="one of them")
    loaded = Nowcaster.load(model)
    cube = open_one(files, variable)
    times: Any = [read_reference(t, cube) for t in at] if at else None
    if every:
        times = possible_references(cube, history=loaded.config.task.history)[::every]
    fields = open_static_fields(static, [cube], one=True)
    result = loaded.predict(
        cube, at=times, horizon=horizon, static=fields, precision=precision, memory=memory, progress=bar
    )
    write_forecast(match_distribution(result, cube) if matched else result, output)
    typer.echo(str(output))
