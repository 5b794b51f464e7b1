"""The Moving MNIST recipe: train on some handwritten digits, test on others, 10 frames from 10.

    python scripts/moving_mnist.py t10k-images-idx3-ubyte.gz -o mnist

The first four fifths of the digits make the training sequences, the others those for validation and test. Errors are
summed over the pixels of a frame and averaged over frames and sequences, as papers give them, beside a forecast that
repeats the last frame, and beside what was published. The structural similarity is that of frames cut to [0, 1], in
windows as its paper has it, and in those of 7 x 7 pixels that papers on video report.
The digits are those of MNIST (LeCun et al. 1998): its file of 10,000 test images, as `torchvision.datasets.MNIST` and
others fetch it.
"""

import logging
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
import typer
import xarray as xr

import cubecast
import markdown_table
from cubecast.baselines import persistence
from cubecast.scores import structural_similarity, to_table, verify_forecasts
from cubecast.sources.moving_mnist import BLOCK, read_idx_images
from cubecast.verification import write_scores
from one_line import one_line_errors

NAMES = {"model": "this model", "persistence": "last frame repeated"}
SIMILARITIES: dict[str, Literal["gaussian", "uniform"]] = {"ssim": "gaussian", "ssim_7x7": "uniform"}
"""Column of scores.csv and window."""
PUBLISHED = (
    ("ConvLSTM, in the paper of PredRNN (Wang et al. 2017)", 103.3, 0.707),
    ("ConvLSTM, OpenSTL, 200 epochs", 29.80, None),
    ("PredRNN, OpenSTL, 200 epochs", 23.97, None),
    ("SimVP (IncepU), OpenSTL, 200 epochs", 32.15, 0.9268),
    ("SimVP (gSTA), OpenSTL, 200 epochs", 26.69, 0.9402),
)
"""Squared error of a frame, and SSIM in windows of 7 x 7."""
NOTE = """Published values are not of these sequences: they were trained on all 60,000 digits of MNIST, paired anew in
every epoch, for 200 epochs or more on a GPU, and tested on the fixed file of 10,000 sequences that Srivastava et al.
made of the 10,000 test digits. Here both come from the digits of the one file that was given, the test has digits that
training has not, and sequences are drawn by cubecast's own generator, which follows theirs. Their frames were cut to
8 bits for the SSIM; networks differ in size."""


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
    """The scores of one forecast a sequence: after its first half, for its second; a row each system and lead."""
    history, horizon = model.config.task.history, model.config.task.horizon
    reference = test["time"].values[history - 1 :: history + horizon]
    forecasts = {
        "model": model.predict(test, at=reference),
        "persistence": persistence(test, reference=reference, horizon=horizon),
    }
    table = to_table(verify_forecasts(forecasts, test))
    alike = pd.concat([similarity(forecast, test).assign(system=name) for name, forecast in forecasts.items()])
    return table.merge(alike, on=["system", "lead_step"], validate="one_to_one")


def similarity(forecast: xr.Dataset, test: xr.DataArray) -> pd.DataFrame:
    """The structural similarity to the observed frames by lead, a mean over all sequences."""
    fields, parts = forecast[str(test.name)], []
    for first in range(0, len(fields), BLOCK):
        made = fields.values[first : first + BLOCK].clip(0, 1)
        times = forecast["valid_time"].values[first : first + BLOCK]
        truth = test.sel(time=times.ravel()).values.reshape(made.shape)
        parts.append([structural_similarity(made, truth, window=window) for window in SIMILARITIES.values()])
    means = np.concatenate(parts, axis=1).mean(axis=1)
    return pd.DataFrame(dict(zip(SIMILARITIES, means, strict=True)) | {"lead_step": np.arange(1, means.shape[1] + 1)})


def per_frame(scores: pd.DataFrame, *, pixels: int) -> pd.DataFrame:
    """Errors of a frame and its similarity by lead and system, with their means over all leads in the last row."""
    scores = scores.assign(mse=scores["mse"] * pixels, mae=scores["mae"] * pixels)
    table = scores.pivot_table(index="lead_step", columns="system", values=["mse", "mae", *SIMILARITIES])
    table.loc["mean"] = table.mean()
    return table


def beside_published(table: pd.DataFrame) -> str:
    """The means of `per_frame` and the published values as a Markdown table, and what differs."""
    means = table.loc["mean"].unstack()
    rows = [
        (NAMES[str(s)], f"{r.mse:.1f}", f"{r.mae:.1f}", f"{r.ssim:.3f}", f"{r.ssim_7x7:.3f}")
        for s, r in means.T.iterrows()
    ]
    rows += [(name, f"{mse:g}", "-", "-", "-" if ssim is None else f"{ssim:g}") for name, mse, ssim in PUBLISHED]
    head = markdown_table.head(["a frame, mean of all leads", "MSE", "MAE", "SSIM", "SSIM 7 x 7"])
    return "\n".join([head, *map(markdown_table.row, rows), "", NOTE])


@one_line_errors("moving_mnist")
def main(
    digits: Annotated[Path, typer.Argument(help="IDX file of digits, such as t10k-images-idx3-ubyte.gz.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for model and scores.")],
    sequences: Annotated[int, typer.Option(min=1, help="Training sequences.")] = 8000,
    tests: Annotated[int, typer.Option(min=1, help="Test sequences.")] = 2000,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training sequences.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights and order.")] = 0,
    precision: Annotated[str, typer.Option(help="fp32, bf16, or auto: bf16 where hardware has it.")] = "auto",
) -> None:
    """Train and test the recipe (a run that was interrupted goes on); print errors and similarity per frame."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    made = cubes(digits, sequences=sequences, tests=tests)
    config = cubecast.Config.preset("moving_mnist", epochs=epochs, seed=seed, precision=precision)
    model = cubecast.Nowcaster(config)
    model.fit(made["training"], validation=made["validation"], directory=output / "model", progress=True, resume=True)
    model.save(output / "model")
    scores = score(made["test"], model)
    write_scores(scores, output / "scores.csv")
    table = per_frame(scores, pixels=made["test"][0].size)
    typer.echo(table.round(3).to_string() + "\n\n" + beside_published(table))


if __name__ == "__main__":
    typer.run(main)
