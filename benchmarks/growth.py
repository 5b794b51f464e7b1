"""How time grows: a training step and a forecast with the grid, the hidden size and the length of the sequence, opening
with the length of the archive. One plot on log axes with the fitted exponents.

Run: python benchmarks/growth.py [--quick] [--device cuda] [--json growth.json --plot growth.png]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import open_many
import torch
from matplotlib.figure import Figure
from timing import machine, rounds, write

import cubecast
from cubecast.config import ModelConfig
from cubecast.maps import save_figure
from cubecast.nn import build_network
from cubecast.presets import PRESETS

USUAL = {"side": 128, "hidden": 32, "frames": 6}
SIZES = {"side": [32, 64, 128, 256], "hidden": [8, 16, 32, 64, 128], "frames": [3, 6, 12, 24]}
FILES = [125, 250, 500, 1000, 2000]
NAMES = {
    "side": "side of the grid (pixels)",
    "hidden": "hidden channels a layer",
    "frames": "frames seen and forecast",
    "files": "files in the archive",
}
Seconds = dict[float, list[float]]


def network_runs(device: str, *, side: int, hidden: int, frames: int) -> dict[str, Callable[[], None]]:
    """A training step and a forecast of the rain preset's network, one sample."""
    config = ModelConfig(**PRESETS["rain"].get("model", {}) | {"hidden_channels": [hidden, hidden]})
    torch.manual_seed(0)
    network = build_network(config, in_channels=2, out_channels=1).to(device)
    x = torch.rand(1, frames, 2, side, side, device=device)
    x[:, :, 1] = 1

    def train() -> None:
        network.zero_grad(set_to_none=True)
        network(x, frames).square().mean().backward()

    def forecast() -> None:
        with torch.no_grad():
            network(x, frames)

    return {"training step": train, "forecast": forecast}


def grow_network(what: str, sizes: list[int], options: argparse.Namespace) -> dict[str, Seconds]:
    """Seconds of each run by size, all sizes in turn within a round."""
    runs = {}
    for size in sizes:
        made = network_runs(options.device, **{**USUAL, what: size})
        runs |= {(name, size): run for name, run in made.items()}
    seconds = rounds(runs, count=options.rounds, clock=options.clock, device=options.device)
    return {name: {s: seconds[name, s] for s in sizes} for name in ("training step", "forecast")}


def grow_archive(counts: list[int], options: argparse.Namespace) -> dict[str, Seconds]:
    """Seconds to open files of one frame each as one cube."""
    with tempfile.TemporaryDirectory() as folder:
        open_many.write(Path(folder), max(counts), 64)
        files = sorted(Path(folder).glob("*.nc"))
        runs = {n: lambda n=n: cubecast.open_cube(files[:n]) for n in counts}
        return {"open_cube": rounds(runs, count=options.rounds, clock=options.clock, device="cpu")}


def exponent(seconds: Seconds) -> float:
    """b of the fit a n^b to the medians of the upper half of the sizes, where fixed costs matter least."""
    sizes = sorted(seconds)[-max(3, len(seconds) // 2 + 1) :]
    medians = [statistics.median(seconds[s]) for s in sizes]
    return float(np.polyfit(np.log(sizes), np.log(medians), 1)[0])


def draw(found: Mapping[str, Mapping[str, Seconds]]) -> Figure:
    """One panel a size, one line a run, the extremes of the rounds as a band."""
    figure = Figure(figsize=(12, 7), layout="constrained")
    for ax, (what, runs) in zip(figure.subplots(2, 2).flat, found.items(), strict=True):
        for (name, seconds), marker in zip(runs.items(), "os", strict=False):
            sizes = sorted(seconds)
            label = f"{name}: exponent {exponent(seconds):.2f}"
            ax.plot(sizes, [statistics.median(seconds[s]) for s in sizes], marker=marker, label=label)
            ax.fill_between(sizes, [min(seconds[s]) for s in sizes], [max(seconds[s]) for s in sizes], alpha=0.2)
        ax.set(xscale="log", yscale="log", xlabel=NAMES[what], ylabel="seconds")
        ax.set_xticks(sizes, [str(s) for s in sizes])
        ax.minorticks_off()
        ax.grid(alpha=0.3)
        ax.legend(frameon=False)
    return figure


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: with one thread only")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="the three smallest sizes of everything")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, default=Path("growth.png"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    last = 3 if options.quick else None
    found = {what: grow_network(what, sizes[:last], options) for what, sizes in SIZES.items()}
    found["files"] = grow_archive(FILES[:last], options)
    save_figure(draw(found), options.plot)
    rows = [["size", "from", "to", "run", "seconds: median (min to max) at the largest", "exponent"]]
    for what, runs in found.items():
        for name, seconds in runs.items():
            each = seconds[max(seconds)]
            text = f"{statistics.median(each):.3g} ({min(each):.3g} to {max(each):.3g})"
            rows.append([NAMES[what], f"{min(seconds)}", f"{max(seconds)}", name, text, f"{exponent(seconds):.2f}"])
    results: dict[str, Any] = {"machine": machine(options.device), "usual": USUAL, "seconds": found}
    write(options.json, results, rows)


if __name__ == "__main__":
    main()
