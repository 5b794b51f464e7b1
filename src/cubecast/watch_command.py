"""``cubecast watch``: the options of the watch, and from them to its rules."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cubecast.arguments import (
    Members,
    Memory,
    Model,
    Precision,
    Seed,
    StaticFile,
    Variable,
    check_folder,
    load_model,
    open_static_fields,
    sole,
)
from cubecast.errors import FailedError
from cubecast.shipped import DEFAULT

if TYPE_CHECKING:
    from cubecast.nowcaster import Nowcaster

Poll = Annotated[
    float | None, typer.Option(help="Seconds between two looks at the folder. [a sixtieth of a step, 0.5 to 30]")
]
Deadline = Annotated[
    float | None,
    typer.Option(help="Seconds from a frame's arrival to its forecast; late frames are waited for. [a step]"),
]
Patience = Annotated[
    float | None, typer.Option(help="Seconds that a file which cannot be read is tried again. [a step]")
]
Stale = Annotated[
    float | None, typer.Option(help="No forecast after a frame that is older than these seconds. [the horizon]")
]
Fill = Annotated[int, typer.Option(min=0, help="Most missing frames of a history that are interpolated.")]
Keep = Annotated[
    float | None, typer.Option(metavar="DAYS", help="Remove forecasts and maps of older reference times. [never]")
]


def watch_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that the frames come to.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for forecasts, maps and status.json.")
    ],
    model: Model = DEFAULT,
    once: Annotated[bool, typer.Option("--once", help="Process what is there and end, for cron.")] = False,
    pattern: Annotated[str, typer.Option(metavar="PATTERN", help="Names of the files, quoted: '*.nc'.")] = "*",
    poll: Poll = None,
    deadline: Deadline = None,
    patience: Patience = None,
    stale: Stale = None,
    fill: Fill = 1,
    keep: Keep = None,
    maps: Annotated[bool, typer.Option("--maps", help="Draw maps of each forecast too, under maps/.")] = False,
    horizon: Annotated[int | None, typer.Option(min=1, help="Frames to forecast. [as trained]")] = None,
    members: Members = None,
    seed: Seed = 0,
    precision: Precision = None,
    memory: Memory = None,
    variable: Variable = None,
    static: StaticFile = None,
) -> None:
    """Forecast after each new frame in a folder, until SIGTERM or Ctrl-C; docs/operations.md says by which rules."""
    from cubecast.watch import Outbox, Rules, Watcher

    check_folder(output)
    loaded = load_model(model)
    _check(loaded, members, precision, memory)
    steps = horizon or loaded.config.task.horizon
    times = {"poll": poll, "deadline": deadline, "patience": patience, "stale": stale}
    rules = Rules.build(loaded.step, steps, **times, fill=fill, keep=keep, maps=maps)
    watcher = Watcher(
        folder,
        loaded,
        Outbox(output),
        rules,
        pattern=pattern,
        variable=sole(variable),
        once=once,
        horizon=horizon,
        members=members,
        seed=seed,
        precision=precision,
        memory=memory,
        static=open_static_fields(static, [], one=True),
    )
    failed = watcher.run(lambda path: typer.echo(str(path)))
    if once and failed:
        raise FailedError(f"{failed} forecasts failed", remedy=f"read 'recent' in {output / 'status.json'}")


def _check(model: Nowcaster, members: int | None, precision: str | None, memory: str | None) -> None:
    """Refuse at the start what every forecast would fail for."""
    from cubecast.forecast import check_members
    from cubecast.precision import check_precision
    from cubecast.tiling import parse_memory

    check_members(members, model.config.model)
    check_precision(precision or "auto")
    parse_memory(memory)
