"""``cubecast verify``: a model beside its baselines on the same cases and pixels, and its scores on stdout."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cubecast.arguments import (
    Baselines,
    Bootstrap,
    Files,
    Members,
    Model,
    Region,
    StaticFile,
    Thresholds,
    Variable,
    Windows,
    bar,
    check_folder,
    fit_shipped,
    load_model,
    open_one,
    open_static_fields,
    read_numbers,
    read_ranges,
)
from cubecast.shipped import DEFAULT

if TYPE_CHECKING:
    import pandas as pd

Times = Annotated[
    list[str] | None,
    typer.Option("--at", metavar="TIME", help="Time of the last frame to use; repeat. [all that are possible]"),
]
Matching = Annotated[
    bool,
    typer.Option("--matched", help="Also score forecasts with the distribution of the last observed frame (matched)."),
]
Cache = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Folder that keeps the nowcasts of pysteps. [~/.cache/cubecast/pysteps]"),
]
NeverBelow = Annotated[
    float | None, typer.Option(help="Leave out pixels ever observed below this; -1.79 keeps ice-free ocean (degC).")
]
Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for scores.csv, scores.png and report.html.")
]

_SHOWN = r"variable|system|lead_time|lead_units|mse|rmse|bias|corr|crps|spread_error|csi_[^_]+|fss_[^_]+_[^_]+"


def verify_command(
    files: Files,
    output: Output,
    model: Model = DEFAULT,
    baselines: Baselines = "auto",
    members: Members = None,
    matched: Matching = False,
    start: Annotated[str | None, typer.Option(metavar="TIME", help="First valid time that counts.")] = None,
    end: Annotated[str | None, typer.Option(metavar="TIME", help="Last valid time that counts.")] = None,
    at: Times = None,
    every: Annotated[int, typer.Option(min=1, help="Use every Nth of these.")] = 1,
    horizon: Annotated[int | None, typer.Option(min=1, help="Frames to forecast. [as trained]")] = None,
    thresholds: Thresholds = None,
    windows: Windows = None,
    bootstrap: Bootstrap = 0,
    region: Region = None,
    never_below: NeverBelow = None,
    cache: Cache = None,
    variable: Variable = None,
    static: StaticFile = None,
) -> None:
    """Score a model beside its baselines on the same cases and pixels, by lead time."""
    from cubecast.forecast import read_reference
    from cubecast.report import write_evaluation
    from cubecast.verification import evaluate

    check_folder(output)
    loaded = load_model(model)
    cube = fit_shipped(open_one(files, variable), loaded, model)
    found = evaluate(
        cube,
        loaded,
        baselines=None if baselines == "auto" else [b.strip() for b in baselines.split(",") if b.strip()],
        members=members,
        matched=matched,
        start=start,
        end=end,
        at=[read_reference(t, cube) for t in at] if at else None,
        every=every,
        horizon=horizon,
        thresholds=None if thresholds is None else read_numbers("--thresholds", thresholds),
        windows=None if windows is None else [w for w in windows.split(",") if w],
        region=read_ranges(region or []),
        never_below=never_below,
        static=open_static_fields(static, [cube], one=True),
        cache=cache,
        bootstrap=bootstrap,
        progress=bar,
    )
    write_evaluation(found, output, cube=cube)
    print_scores(found.table)


def print_scores(table: pd.DataFrame) -> None:
    """The score table on stdout: one row a system and lead, and how far the model is ahead of the baselines."""
    from cubecast.verification import compare

    shown = [c for c in table.columns if re.fullmatch(_SHOWN, c)]
    typer.echo(table[shown].to_string(index=False, float_format="{:.4g}".format))
    for line in compare(table):
        typer.echo(line)
