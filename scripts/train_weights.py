"""Make the weights that come with the package, and the card that says what they are.

    python scripts/train_weights.py train -o src/cubecast/models/radar-5min --minutes 36 \\
        --real knmi.nc --attribution 'KNMI, CC BY 4.0'
    python scripts/train_weights.py scores src/cubecast/models/radar-5min scores.csv

They are trained on generated rain and radar cubes. To hold an event out, leave it out; `cubecast
verify` on it then makes the scores that the last command puts into the card.
"""

import logging
import os
import platform
import re
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
import xarray as xr

import cubecast
import markdown_table
from cubecast.arguments import read_settings
from cubecast.atomic import atomic_path
from cubecast.errors import InputError, UsageError
from cubecast.presets import PRESETS
from cubecast.scores.spatial import cell_km
from cubecast.training import choose_device
from one_line import one_line_errors

PIXELS_KM = (1.0, 1.0, 2.0)
"""Drawn from for every event."""
VALIDATION = 8
"""Events that validate."""
REPEAT = 60
"""How often the windows of a radar cube are drawn for once that those of the generated rain are: there are few."""
DRY = 0.01
"""Events with a smaller share of rain teach nothing and are left out."""
APART = 12
"""Frames that are missing between two events in a store, so that no window crosses."""
SETTINGS: dict[str, dict[str, Any]] = {
    "data": {"crops_per_window": 2, "stride": 4},
    "model": {"renewal": True, "hidden_channels": [24, 32, 48], "motion_window": 12.0},
    # The slopes of these weights are nearly those of the rain rate over its logarithm.
    "loss": {"kind": "crps", "thresholds": [0.5, 1.0, 2.0, 5.0, 10.0], "weights": [1.0, 2.4, 4.5, 10.0, 20.0, 30.0]},
    # Untrained, the network is a good forecast already: at 2e-3 it left that and did not come back in an hour.
    "training": {"epochs": 100, "learning_rate": 3e-4},
}
"""Over the preset for rain."""

CARD = """# {name}

{purpose}

{network}

## Data

{data}

The weights are made from nothing else. They come under the licence of cubecast; keep the attributions above with them.

## Recipe

```
{command}
```

Scalings, loss, optimiser and all other settings are in `config.yaml`, losses by epoch in `model.json`, both beside this
file. {seeds} {taken} {validation} generated
events that did not train. What is here lies {share:.0%} of the way to them from the weights before training.

Made with {versions}; {seconds:.0f} s to generate the rain and {minutes:.0f} minutes to train, on {machine}.

## Scores

None were measured yet.

## When not to trust it

- Frames every 5 minutes on a grid of 1 to 2 km, in mm/h: another step is refused, another grid is not. Train a model on
  such data, or start from this one: `cubecast train FILES -o FOLDER --from {name}`.
- It knows rain from what is listed under Data. Generated rain has no mountains, no bright band, no clutter, no blocked
  beams and no snow.
- What is not there yet does not start: the first shower of a day is never forecast.
- The mean of the members is smooth, the more so the longer the lead: heavy rain is too rare in it. Ask for members and
  their probabilities (`--members`, `cubecast products`), or for `--matched`.
- Leads beyond the {horizon} frames of its training can be asked for and were never judged.
- Probabilities are as reliable as the scores above say, for the climate that they were measured in. Warnings that lives
  depend on need a forecaster.
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help="Make the weights that are shipped.")


def generate(folder: Path, *, events: int, frames: int, size: int, seed: int) -> list[xr.DataArray]:
    """Cubes of generated rain, one for each size of a pixel, on disk; the events of a cube follow each other.

    Each event is generated with a seed of its own, from ``seed`` on, and forgotten once it is written.
    """
    rng = np.random.default_rng(seed)
    stores: dict[float, int] = {}
    for number in range(events):
        km = float(rng.choice(PIXELS_KM))
        event = cubecast.generate_rain(frames=frames, size=(size, size), grid_km=km, seed=seed + number)
        if float((event >= 0.1).mean()) < DRY:
            continue
        stores[km] = stores.get(km, 0) + 1
        append(event, folder / f"rain_{km:g}km.zarr", stores[km] - 1)
    if not stores:
        raise InputError("generated rain", found=f"{events} events, all nearly dry", remedy="take more of them")
    source = f"cubecast {version('cubecast')} generate_rain, seeds {seed} to {seed + events - 1}"
    cubes = [cubecast.open_cube(str(folder / f"rain_{km:g}km.zarr")) for km in sorted(stores)]
    return [cube.assign_attrs(source=source) for cube in cubes]


def append(event: xr.DataArray, store: Path, number: int) -> None:
    """Write an event as number ``number`` (from 0) of a Zarr store: int16, in hundredths of mm/h, one chunk."""
    times = event["time"].values
    later = number * (len(times) + APART) * (times[1] - times[0])
    event = event.assign_coords(time=("time", times + later, event["time"].attrs))
    event.attrs = {k: v for k, v in event.attrs.items() if k not in ("comment", "flow")}  # of this event alone
    dataset = event.clip(max=327.0, keep_attrs=True).to_dataset()
    if number:
        dataset.drop_vars(["y", "x", "crs"]).to_zarr(store, append_dim="time", consolidated=False)
        return
    packing = {"dtype": "int16", "scale_factor": 0.01, "_FillValue": -1, "chunks": event.shape}
    clock = {"units": f"minutes since {times[0]}", "dtype": "int64"}
    dataset.to_zarr(store, encoding={str(event.name): packing, "time": clock}, zarr_format=3, consolidated=False)


def open_real(files: list[str], attributions: list[str]) -> list[xr.DataArray]:
    """Radar cubes that say whose they are."""
    if len(files) != len(attributions):
        found = f"{len(attributions)} for {len(files)} files"
        raise UsageError("--attribution", found=found, allowed="one for each --real, in the same order")
    return [
        cubecast.open_cube(file).assign_attrs(source=f"{Path(file).name}, {said}")
        for file, said in zip(files, attributions, strict=True)
    ]


def configure(minutes: float, seed: int, settings: list[str]) -> cubecast.Config:
    """The preset for rain, `SETTINGS`, and what the command line says."""
    rooms = {
        room: {**PRESETS["rain"].get(room, {}), **SETTINGS.get(room, {})} for room in {*PRESETS["rain"], *SETTINGS}
    }
    return cubecast.Config.build(rooms, **{"max_minutes": minutes, "seed": seed, **read_settings(settings)})


def go_back(model: cubecast.Nowcaster, start: cubecast.Nowcaster | None, share: float) -> None:
    """Take weights between those before training and those after it: ``share`` of the way.

    They know less of the rain that trained them, and harm less on rain of other kinds. Source: Wortsman et al. (2022),
    DOI 10.48550/arXiv.2109.01903.
    """
    with torch.no_grad():
        for weight, old in zip(model.network.parameters(), model.initial_network(start).parameters(), strict=True):
            weight.lerp_(old.to(weight), 1 - share)


def write_card(folder: Path, model: cubecast.Nowcaster, trained: list[xr.DataArray], **facts: Any) -> None:
    """MODEL_CARD.md beside the weights."""
    config = model.config
    count = sum(p.numel() for p in model.network.parameters())
    size = (folder / "weights.safetensors").stat().st_size / 1e6
    kept = [row for row in model.log if row["kept"]]
    taken = f"The weights before training are taken: none after {len(model.log)} epochs was better on"
    if kept:
        epoch, loss = int(kept[0]["epoch"]), kept[0]["validation_loss"]
        taken = f"The weights after epoch {epoch} of {len(model.log)} are taken: their loss, {loss:.4g}, was lowest on"
    lines = [
        f"- {c.attrs['source']}: {len(c)} frames of {' x '.join(map(str, c.shape[1:]))} cells of {cell_km(c):.3g} km"
        for c in trained
    ]
    text = CARD.format(
        name=folder.name,
        purpose="Nowcasts of radar rain every 5 minutes on a grid of 1 to 2 km.",
        network=f"Encoder-forecaster ({config.model.cell}, {config.model.coordinates} coordinates, "
        f"{config.model.bands} bands of scale) of {count:,} parameters, {size:.1f} MB. It sees "
        f"{config.task.history} frames and was trained to forecast {config.task.horizon}, as members of an ensemble.",
        data="\n".join(lines),
        taken=taken,
        horizon=config.task.horizon,
        **facts,
    )
    with atomic_path(folder / "MODEL_CARD.md") as temporary:
        temporary.write_text(text, encoding="utf-8")


def machine(device: torch.device) -> str:
    """What trained: the GPU, or how many processors of which kind."""
    if device.type == "cuda":
        return f"one {torch.cuda.get_device_name(device)}"
    return f"{torch.get_num_threads()} threads of {os.cpu_count()} processors ({platform.machine()})"


@app.command()
@one_line_errors("train_weights")
def train(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder of the model and its card.")],
    events: Annotated[int, typer.Option(min=1, help="Generated events that train.")] = 400,
    frames: Annotated[int, typer.Option(min=1, help="Frames of an event.")] = 30,
    size: Annotated[int, typer.Option(min=8, help="Pixels on each side of an event.")] = 192,
    minutes: Annotated[float, typer.Option(help="Training time.")] = 50.0,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, order and crops.")] = 0,
    rain_seed: Annotated[int, typer.Option(min=0, help="Of the first generated event.")] = 10_000,
    real: Annotated[list[str] | None, typer.Option(metavar="FILE", help="Radar cube; repeat.")] = None,
    attribution: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Owner and licence of each --real, in their order.")
    ] = None,
    share: Annotated[float, typer.Option(min=0, max=1, help="Of the way from the weights before training.")] = 0.5,
    start: Annotated[Path | None, typer.Option("--from", metavar="FOLDER", help="Model to start from.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any setting.")] = None,
) -> None:
    """Train, and write model and card."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    model = cubecast.Nowcaster(configure(minutes, seed, set_ or []))
    observed = open_real(real or [], attribution or [])
    before = None if start is None else cubecast.Nowcaster.load(start)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        sets = {}
        for name, count, first in (("validation", VALIDATION, rain_seed), ("training", events, rain_seed + VALIDATION)):
            (Path(folder) / name).mkdir()
            sets[name] = generate(Path(folder) / name, events=count, frames=frames, size=size, seed=first)
        generated = time.monotonic()
        model.fit(
            sets["training"] + observed * REPEAT,
            validation=sets["validation"],
            start=before,
            directory=Path(folder) / "run",
            progress=True,
        )
        if not model.log:
            raise UsageError("--minutes", found=minutes, allowed="time for an epoch", remedy="or take fewer --events")
        go_back(model, before, share)
        model.save(output)
        write_card(
            output,
            model,
            sets["training"] + observed,
            command="\n".join([*commands_before(start), command()]),
            seeds=f"Seeds: {seed} of weights, order and crops, {rain_seed} and on of the generated events.",
            validation=VALIDATION,
            share=share,
            versions=f"cubecast {version('cubecast')}, torch {torch.__version__}, Python {platform.python_version()}",
            seconds=generated - begin,
            minutes=(time.monotonic() - generated) / 60,
            machine=machine(choose_device(model.config.training.device)),
        )
    typer.echo(str(output))


def commands_before(start: Path | None) -> list[str]:
    """The commands in the card of the model that training starts from."""
    card = None if start is None else start / "MODEL_CARD.md"
    if card is None or not card.exists():
        return []
    return re.findall("^python scripts/train_weights.py.*", card.read_text(encoding="utf-8"), flags=re.MULTILINE)


def command() -> str:
    """This command line, without the folders of this machine."""
    words = [Path(w).name if os.sep in w and " " not in w else w for w in sys.argv[1:]]
    return " ".join([f"python scripts/{Path(sys.argv[0]).name}", *(f"'{w}'" if " " in w else w for w in words)])


@app.command()
@one_line_errors("train_weights")
def scores(
    model: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the model.")],
    table: Annotated[Path, typer.Argument(metavar="CSV", help="Scores, a row a line of the card's table.")],
    note: Annotated[str, typer.Option(metavar="TEXT", help="What they are of, and the command that made them.")] = "",
) -> None:
    """Put scores into the card of a model, in the place of those that it has."""
    card = model / "MODEL_CARD.md"
    try:
        text, found = card.read_text(encoding="utf-8"), pd.read_csv(table)
    except (OSError, ValueError) as error:
        raise InputError("card or scores", found=str(error), allowed="a model of this script, and a CSV file") from None
    lines = [note, ""] if note else []
    lines += [markdown_table.head(found.columns), *map(markdown_table.row, found.itertuples(index=False))]
    body = "## Scores\n\n" + "\n".join(lines) + "\n\n"
    with atomic_path(card) as temporary:
        temporary.write_text(re.sub(r"## Scores\n.*?(?=## )", lambda _: body, text, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    app()
