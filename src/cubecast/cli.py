"""The ``cubecast`` command, one function a subcommand. Data go to stdout, logs and bars to stderr."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.logging import RichHandler

from cubecast.arguments import (
    End,
    Files,
    Matched,
    Members,
    Memory,
    Model,
    Precision,
    Seed,
    Start,
    StaticFile,
    Variable,
    bar,
    err,
    fit_shipped,
    load_model,
    open_all,
    open_one,
    open_static_fields,
)
from cubecast.batch_command import batch_command
from cubecast.errors import UsageError
from cubecast.products_command import products_command
from cubecast.shipped import DEFAULT
from cubecast.train_command import train_command
from cubecast.verify_command import print_scores, verify_command
from cubecast.watch_command import watch_command

app = typer.Typer(
    name="cubecast",
    epilog="Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 wrong input, 4 output could not be written, 130 Ctrl-C. "
    "Start with 'cubecast demo', or 'cubecast info FILES' on your own data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def settings(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,
) -> None:
    """Nowcast radar rain, sea-surface temperature and point series with recurrent networks."""
    level = logging.DEBUG if debug else logging.INFO if verbose else logging.WARNING
    logger = logging.getLogger("cubecast")
    plain = logging.StreamHandler()
    plain.setFormatter(logging.Formatter("cubecast: %(levelname)s: %(message)s"))
    # On a terminal rich keeps log lines and progress bars apart; elsewhere a record is one line.
    logger.handlers[:] = [RichHandler(console=err, show_path=False) if err.is_terminal else plain]
    logger.setLevel(level)


@app.command()
def info(
    files: Files,
    variable: Variable = None,
    start: Start = None,
    end: End = None,
    history: Annotated[int, typer.Option(min=1, help="Frames of history for which windows are counted.")] = 6,
    horizon: Annotated[int, typer.Option(min=1, help="Frames of horizon for which windows are counted.")] = 12,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what is in the files: dims, step, gaps, units, CRS, wet and missing fractions, number of windows."""
    from cubecast.info import describe

    found = [describe(c, history=history, horizon=horizon, progress=bar) for c in open_all(files, variable, start, end)]
    if as_json:
        # JSON has no infinities (a radar's dry pixel in dBZ)
        shown = [{k: str(v) if isinstance(v, float) and math.isinf(v) else v for k, v in one.items()} for one in found]
        typer.echo(json.dumps(shown, indent=1, allow_nan=False))
        return
    for values in found:
        width = max(len(name) for name in values)
        for name, value in values.items():
            typer.echo(f"{name:<{width}}  {value}")


app.command(name="train")(train_command)


@app.command()
def forecast(
    files: Files,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Forecast file to write: .nc or .zarr.")
    ],
    model: Model = DEFAULT,
    at: Annotated[
        list[str] | None,
        typer.Option(metavar="TIME", help="Time of the last frame to use; repeat for several. [the last frame]"),
    ] = None,
    every: Annotated[
        int | None, typer.Option(min=1, help="Instead of --at: after every Nth frame that has a history.")
    ] = None,
    horizon: Annotated[int | None, typer.Option(min=1, help="Frames to forecast. [as trained]")] = None,
    members: Members = None,
    seed: Seed = 0,
    precision: Precision = None,
    memory: Memory = None,
    matched: Matched = False,
    for_pysteps: Annotated[
        bool, typer.Option("--for-pysteps", help="Names that pysteps.io.import_netcdf_pysteps knows, in mm h-1.")
    ] = False,
    variable: Variable = None,
    static: StaticFile = None,
) -> None:
    """Forecast with a trained model and write one CF netCDF (or Zarr) file."""
    from cubecast.forecast import possible_references, read_reference
    from cubecast.matching import match_distribution
    from cubecast.write import name_for_pysteps, write_forecast

    if at and every:
        raise UsageError("reference times", found="both --at and --every", allowed="one of them")
    if matched and members:
        found, remedy = "both --matched and --members", "leave --members out: then the mean of the members is matched"
        raise UsageError("forecast", found=found, allowed="one of them", remedy=remedy)
    if for_pysteps and output.suffix != ".nc":
        raise UsageError("--for-pysteps", found=str(output), allowed="a name in .nc: pysteps reads netCDF")
    loaded = load_model(model)
    cube = fit_shipped(open_one(files, variable), loaded, model)
    times: Any = [read_reference(t, cube) for t in dict.fromkeys(at)] if at else None
    if every:
        times = possible_references(cube, history=loaded.config.task.history)[::every]
    fields = open_static_fields(static, [cube], one=True)
    options: dict[str, Any] = {"horizon": horizon, "precision": precision, "members": members, "seed": seed}
    options |= {"memory": memory}
    result = loaded.predict(cube, at=times, static=fields, **options, progress=bar)
    result = match_distribution(result, cube) if matched else result
    write_forecast(name_for_pysteps(result) if for_pysteps else result, output)
    typer.echo(str(output))


app.command(name="batch")(batch_command)


app.command(name="watch")(watch_command)


app.command(name="verify")(verify_command)


app.command(name="products")(products_command)


@app.command(name="map")
def map_command(
    nowcast: Annotated[
        Path, typer.Argument(metavar="NOWCAST", help="A file that 'cubecast forecast' or 'products' wrote.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the pictures.")],
    observed: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Observed frames to set beside the forecast; repeat or quote a pattern."),
    ] = None,
    animation: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help="Also an animation of each forecast: gif, mp4 or html; repeat."),
    ] = None,
    variable: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Variable to draw, and of --observed. [all; the only one]"),
    ] = None,
    coastline: Annotated[
        Literal["auto", "110m", "50m", "10m", "none"],
        typer.Option(help="Natural Earth scale; 110m and 50m are packaged, 10m is downloaded."),
    ] = "auto",
) -> None:
    """Draw maps of a forecast: one PNG a lead time, a panel, and animations if wanted."""
    from cubecast.maps import draw_maps
    from cubecast.write import read_forecast

    cube = open_one(observed, None if variable is None else [variable]) if observed else None
    look: dict[str, Any] = {"variable": variable, "animations": animation or [], "coastline": coastline}
    paths = draw_maps(read_forecast(nowcast), output, cube=cube, **look, progress=bar)
    for path in paths:
        typer.echo(str(path))


@app.command(name="demo")
def demo_command(
    out_folder: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="Folder for everything the demo writes.")
    ] = Path("demo"),
    minutes: Annotated[float, typer.Option(help="Training time at most.")] = 3.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the generated rain and of the training.")] = 0,
) -> None:
    """Generate rain, train on it, forecast, draw maps and verify: the whole chain in a few minutes."""
    from cubecast.demo import run_demo

    table = run_demo(out_folder, minutes=minutes, seed=seed, progress=bar)
    print_scores(table)
    for path in sorted(p for p in out_folder.rglob("*") if p.is_file() and "model" not in p.parts):
        typer.echo(str(path))
