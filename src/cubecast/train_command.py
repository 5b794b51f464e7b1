"""``cubecast train``: from options to a configuration, and from cubes to a model in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cubecast.arguments import (
    End,
    Files,
    Precision,
    Start,
    StaticFile,
    Variable,
    bar,
    check_new_folder,
    fit_shipped,
    load_model,
    open_all,
    open_static_fields,
    read_settings,
)
from cubecast.errors import UsageError

if TYPE_CHECKING:
    from cubecast.config import Config
    from cubecast.nowcaster import Nowcaster

ConfigFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="YAML file with settings, as in config.yaml of a model.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any setting of config.yaml, e.g. hidden_channels=[64,64]."),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="FOLDER|NAME",
        help="Start from this model: its task, network, scaling, loss and weights; a quarter of the learning rate.",
    ),
]
Validation = Annotated[
    list[str] | None,
    typer.Option(metavar="FILE", help="Files to validate on; repeat. [the end of each cube's time axis]"),
]
Preset = Annotated[
    str,
    typer.Option(metavar="NAME", help="Defaults for: rain, sst, series, general, moving_mnist. [by units and step]"),
]


def train_command(
    files: Files,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the trained model.")],
    config: ConfigFile = None,
    preset: Preset = "auto",
    from_: From = None,
    history: Annotated[int | None, typer.Option(min=1, help="Frames the model sees.")] = None,
    horizon: Annotated[int | None, typer.Option(min=1, help="Frames it is trained to forecast.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Most passes over the training windows.")] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Stop after this time and keep the best.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of weights, crops and order.")] = None,
    precision: Precision = None,
    set_: Settings = None,
    validation: Validation = None,
    variable: Variable = None,
    start: Start = None,
    end: End = None,
    static: StaticFile = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in the output folder.")] = False,
) -> None:
    """Train a model on one or more cubes and write it to a folder."""
    from cubecast.channels import preset_for
    from cubecast.nowcaster import Nowcaster
    from cubecast.ranks import started_ranks

    cubes = open_all(files, variable, start, end)
    single: dict[str, Any] = {"history": history, "horizon": horizon, "epochs": epochs, "max_minutes": max_minutes}
    single |= {"seed": seed, "precision": precision}
    overrides = _overrides(single, set_ or [])
    first = None if from_ is None else load_model(from_)
    kind = preset_for(cubes[0]) if preset == "auto" else preset
    model = Nowcaster(_configuration(config, kind, first, overrides))
    check_new_folder(output, resume)
    checked = open_all(validation, variable, None, None) if validation else None
    if first is not None and from_ is not None:
        cubes = [fit_shipped(c, first, from_) for c in cubes]
        checked = checked and [fit_shipped(c, first, from_) for c in checked]
    fields = open_static_fields(static, cubes + (checked or []))
    model.fit(cubes, validation=checked, static=fields, start=first, directory=output, resume=resume, progress=bar)
    if not started_ranks().first:
        return
    model.save(output)
    kept = [
        f"after epoch {row['epoch']:.0f}, validation loss {row['validation_loss']:.4g}"
        for row in model.log
        if row["kept"]
    ]
    typer.echo(f"{output}: weights {kept[0] if kept else 'before training: no epoch was better'}")


def _configuration(path: Path | None, kind: str, first: Nowcaster | None, overrides: dict[str, Any]) -> Config:
    from cubecast.config import Config

    if first is not None:
        if path is not None:
            found, allowed = "both --from and --config", "one of them; --set changes single settings"
            raise UsageError("configuration", found=found, allowed=allowed)
        return first.config.continued(kind, **overrides)
    return Config.read(path, kind, **overrides) if path else Config.preset(kind, **overrides)


def _overrides(single: dict[str, Any], settings: list[str]) -> dict[str, Any]:
    """What options of their own and ``--set`` say, each setting once."""
    given, more = {k: v for k, v in single.items() if v is not None}, read_settings(settings)
    if twice := set(given) & set(more):
        raise UsageError(
            "setting given twice", found=", ".join(sorted(twice)), allowed="--set, or an option of its own"
        )
    return given | more
