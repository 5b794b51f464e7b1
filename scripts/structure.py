"""What each part of the rain network brings before any training: parts are left out, one after the other.

    python scripts/structure.py knmi.nc fmi1.nc fmi2.nc --every 3

All of it is structure: bands of scale that fade as the history shows, growth that goes on as it did, motion within
wider windows for farther ways, the mean over ways that air may have gone astray. The network is that of
`scripts/train_weights.py`; its weights are those before training, which say nothing, so every radar is held out. The
scores are means over 12 leads and then over the cubes: of the forecast, of the same with its distribution matched to
what was observed last, and of members.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Annotated, Any
from unittest.mock import patch

import pandas as pd
import torch
import typer
import xarray as xr

import cubecast
import markdown_table
from ablations import BASELINE, COLUMNS, PRODUCTS
from cubecast.nn import fading, lagrangian, trajectories
from cubecast.verification import MODEL
from one_line import one_line_errors
from train_weights import configure

SINGLE = {c: COLUMNS[c] for c in ("mse", "csi_1", "csi_5", "frequency_bias_5", "fss_1_10km")}
ENSEMBLE = {"crps": COLUMNS["crps"], "crps_fair": "fair CRPS"}
"""Columns of `cubecast.verify`, and what the table calls them."""


def nothing_goes_on(parts: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """In place of `cubecast.nn.bands.persistences`."""
    return torch.zeros_like(parts[:, 0])


PARTS: dict[str, Callable[[], Any]] = {
    "motion within wider windows for farther ways": lambda: patch.object(trajectories, "PART", 0.0),
    "the mean over ways that air may have gone": lambda: patch.object(lagrangian, "STRAY", 0.0),
    "growth that goes on as it did": lambda: patch.object(fading, "persistences", nothing_goes_on),
}
"""What leaves a part out."""


def variants() -> Iterator[tuple[str, list[str]]]:
    """Names, and what is left out: first all parts, then one less each time."""
    names = list(PARTS)
    yield "bands that fade as the history shows", names
    for count, name in enumerate(names, start=1):
        yield f"+ {name}", names[count:]


def untrained(settings: list[str]) -> cubecast.Nowcaster:
    """The network of the shipped weights before training: on a little rain, by a step too small to change it."""
    config = configure(5.0, 0, [*settings, "epochs=1", "learning_rate=1e-12", "crops_per_window=1"])
    size, window = config.data.crop or 64, config.task.history + config.task.horizon
    rain = cubecast.generate_rain(frames=5 * window, size=(size, size), kind="stratiform", wet_fraction=0.5)
    return cubecast.Nowcaster(config).fit(rain)


def score(model: cubecast.Nowcaster, cube: xr.DataArray, *, every: int, members: int) -> dict[str, pd.Series]:
    """Means over leads: of the forecast, of the same matched, of the baseline, and of members."""
    single = cubecast.verify(cube, model, baselines=[BASELINE], matched=True, every=every)
    many = cubecast.verify(cube, model, baselines=[BASELINE], members=members, every=every)
    found = {str(name): part[list(SINGLE)].mean() for name, part in single.groupby("system")}
    found[f"{members} members"] = many[many["system"] == MODEL][list(ENSEMBLE)].mean()
    return found


@one_line_errors("structure")
def main(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Radar cubes, every 5 minutes.")],
    every: Annotated[int, typer.Option(min=1, help="Score every n-th start.")] = 3,
    members: Annotated[int, typer.Option(min=2, help="Of the ensembles.")] = 8,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Setting of all.")] = None,
) -> None:
    """Print the scores of the untrained network, with more and more of its parts."""
    model, cubes = untrained(set_ or []), [cubecast.open_cube(file) for file in files]
    columns = {**SINGLE, **ENSEMBLE}
    typer.echo(markdown_table.head(["network", "product", *columns.values()]))
    for number, (name, left_out) in enumerate(variants()):
        with ExitStack() as stack:
            for part in left_out:
                stack.enter_context(PARTS[part]())
            found = [score(model, cube, every=every, members=members) for cube in cubes]
        products = {**PRODUCTS, f"{members} members": f"{members} members"}
        rows = [(name, said, product) for product, said in products.items()]
        for network, said, product in [*([] if number else [(BASELINE, "", BASELINE)]), *rows]:
            mean = pd.concat([one[product] for one in found], axis=1).mean(axis=1)
            typer.echo(markdown_table.row([network, said, *(mean.get(c, "") for c in columns)]))


if __name__ == "__main__":
    typer.run(main)
