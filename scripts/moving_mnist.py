"""The Moving MNIST recipe: train on some handwritten digits, test on others, 10 frames from 10.

    python scripts/moving_mnist.py t10k-images-idx3-ubyte.gz -o mnist

The first four fifths of the digits make the training sequences, the others those for validation and test. Errors are
summed over the pixels of a frame and averaged over frames and sequences, as papers give them, beside a forecast that
repeats the last frame. `python scripts/get_archive.py --help` tells where the digits come from.
"""

import logging
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
import xarray as xr

import cubecast
from cubecast.baselines import persistence
from cubecast.errors import CubecastError
from cubecast.scores import to_table, verify_forecasts
from cubecast.sources.moving_mnist import read_idx_images
from cubecast.verification import write_scores


def cubes(digits: Path, *, sequences: int, tests: int) -> dict[str, xr.DataArray]:
    """Cubes ``training``, ``validation`` and ``test``; the first shares no digit with the others."""
    images = read_idx_images(digits)
    split = len(images) * 4 // 5
    parts = {
        "training": (images[:split], sequences),
        "validation": (images[split:], max(1, tests // 4)),
        "test": (images[split:], tests),
    }
    return {
        name: cubecast.moving_mnist(digits=part, sequences=count, seed=seed)
        for seed, (name, (part, count)) in enumerate(parts.items())
    }


def score(test: xr.DataArray, model: cubecast.Nowcaster) -> pd.DataFrame:
    """The scores of one forecast a sequence: after its first half, for its second."""
    history, horizon = model.config.task.history, model.config.task.horizon
    reference = test["time"].values[history - 1 :: history + horizon]
    forecasts = {
        "model": model.predict(test, at=reference),
        "persistence": persistence(test, reference=reference, horizon=horizon),
    }
    return to_table(verify_forecasts(forecasts, test))


def per_frame(scores: pd.DataFrame, *, pixels: int) -> pd.DataFrame:
    """Squared and absolute error of a frame by lead and system, with their means over all leads in the last row."""
    table = scores.pivot_table(index="lead_step", columns="system", values=["mse", "mae"]) * pixels
    table.loc["mean"] = table.mean()
    return table


def main(
    digits: Annotated[Path, typer.Argument(help="IDX file of digits, such as t10k-images-idx3-ubyte.gz.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for model and scores.")],
    sequences: Annotated[int, typer.Option(min=1, help="Training sequences.")] = 8000,
    tests: Annotated[int, typer.Option(min=1, help="Test sequences.")] = 2000,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training sequences.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights and order.")] = 0,
    precision: Annotated[str, typer.Option(help="fp32, bf16, or auto: bf16 where hardware has it.")] = "auto",
) -> None:
    """Train and test the recipe; print errors per frame."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        made = cubes(digits, sequences=sequences, tests=tests)
        config = cubecast.Config.preset("moving_mnist", epochs=epochs, seed=seed, precision=precision)
        model = cubecast.Nowcaster(config)
        model.fit(made["training"], validation=made["validation"], directory=output / "model", progress=True)
        model.save(output / "model")
        scores = score(made["test"], model)
        write_scores(scores, output / "scores.csv")
    except CubecastError as error:
        typer.echo(f"moving_mnist: error: {error}", err=True)
        raise typer.Exit(error.exit_code) from None
    typer.echo(per_frame(scores, pixels=made["test"][0].size).round(2).to_string())


if __name__ == "__main__":
    typer.run(main)
