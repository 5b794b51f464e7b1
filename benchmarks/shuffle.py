"""Does mixing a few blocks train as well as a full shuffle? Validation loss by epoch on generated rain.

The same cube, crops and start weights, in Eulerian coordinates, where there is most to learn; only the order of samples
differs: chunks of 12 frames of which 1, 4 or 16 are mixed at a time, and chunks of one frame that are all mixed: a full
shuffle. The cube changes slowly over its length, as archives do, so that an order in time is an order in kind.
Run: python benchmarks/shuffle.py [--quick] [--json shuffle.json --plot shuffle.png]
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from timing import machine, write

import cubecast
from cubecast.maps import save_figure

ORDERS = {"full shuffle": (1, 10_000), "16 blocks": (12, 16), "4 blocks": (12, 4), "1 block": (12, 1)}
"""Frames in a chunk, and chunks that are mixed."""
Curves = dict[str, list[list[float]]]


def archive(events: int) -> xr.DataArray:
    """Events of two hours one after the other, from drizzle to downpour and from calm to fast."""
    parts = [
        cubecast.generate_rain(frames=24, size=(64, 64), seed=i, wet_fraction=0.1 + 0.5 * i / events).values
        * (0.5 + 2 * i / events)
        for i in range(events)
    ]
    one = cubecast.generate_rain(frames=24 * events, size=(8, 8), seed=0)
    space = cubecast.generate_rain(frames=2, size=(64, 64), seed=0)
    values = np.concatenate(parts).astype(np.float32)
    return xr.DataArray(values, {**space.drop_vars("time").coords, "time": one.time}, space.dims, attrs=space.attrs)


def curve(cube: xr.DataArray, validation: xr.DataArray, order: str, seed: int, epochs: int) -> list[float]:
    """Validation loss after each epoch."""
    chunk, blocks = ORDERS[order]
    config = cubecast.Config.preset(
        "rain", history=4, horizon=6, hidden_channels=[16], crop=48, crops_per_window=1, epochs=epochs, seed=seed,
        shuffle_blocks=blocks, precision="fp32", coordinates="eulerian", learning_rate=4e-3,
    )  # fmt: skip
    model = cubecast.Nowcaster(config).fit(cube.chunk({"time": chunk}), validation=validation)
    return [row["validation_loss"] for row in model.log]


def draw(curves: Curves) -> Figure:
    """The mean of the seeds, and their extremes as a band."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    ax = figure.subplots()
    for order, each in curves.items():
        epochs = range(1, len(each[0]) + 1)
        ax.plot(epochs, np.mean(each, axis=0), marker="o", label=order)
        ax.fill_between(epochs, np.min(each, axis=0), np.max(each, axis=0), alpha=0.15)
    ax.set(xlabel="epoch", ylabel="validation loss")
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    return figure


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="seeds")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--quick", action="store_true", help="a short archive and two epochs")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, default=Path("shuffle.png"))
    options = parser.parse_args()
    events, epochs = (6, 2) if options.quick else (30, options.epochs)
    cube = archive(events)
    validation = cubecast.generate_rain(frames=96, size=(64, 64), seed=1000, wet_fraction=0.35)
    curves: Curves = {
        order: [curve(cube, validation, order, seed, epochs) for seed in range(options.rounds)] for order in ORDERS
    }
    save_figure(draw(curves), options.plot)
    rows = [["order", "lowest validation loss: median of seeds (min to max)", "against the full shuffle, median"]]
    best = {order: [min(c) for c in each] for order, each in curves.items()}
    for order, each in best.items():
        against = statistics.median(a / b for a, b in zip(each, best["full shuffle"], strict=True))
        text = f"{statistics.median(each):.4f} ({min(each):.4f} to {max(each):.4f})"
        rows.append([order, text, f"{against:.3f}"])
    results: dict[str, Any] = {"machine": machine("cpu") | {"threads": torch.get_num_threads()}, "curves": curves}
    write(options.json, results, rows)


if __name__ == "__main__":
    main()
