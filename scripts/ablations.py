"""What each part of the rain model brings: variants of it, trained alike and scored on the same held-out rain.

    python scripts/ablations.py -o ablations --minutes 10
    python scripts/ablations.py -o ablations --minutes 10 --real fmi1.nc --real fmi2.nc --test knmi.nc

All variants see the same rain, generated as `scripts/train_weights.py` does it, for the same time (or the same number
of steps: `--epochs`), with the same seed, and have about as many parameters as the first; their widths are what
differs. They are scored by the machinery of `cubecast verify` on the same cases and pixels, beside extrapolation: the
forecast (of an ensemble its mean), and the same with its distribution matched to what was observed last. The table is
printed; it and what it was made with stand in ablations.json, written anew after every variant.
"""

import json
import logging
import platform
import tempfile
import time
from bisect import bisect_left
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import typer
import xarray as xr

import cubecast
import markdown_table
from cubecast.atomic import atomic_path, make_folder
from cubecast.errors import UsageError
from cubecast.nn import build_network, count_parameters
from cubecast.presets import PRESETS
from cubecast.training import choose_device
from cubecast.verification import MATCHED, MODEL
from one_line import one_line_errors
from train_weights import REPEAT, VALIDATION, command, configure, generate, machine

log = logging.getLogger(__name__)

SINGLE: dict[str, Any] = {"renewal": False, **{f"loss.{k}": v for k, v in PRESETS["rain"]["loss"].items()}}
PLAIN: dict[str, Any] = {"cell": "conv_lstm", "coordinates": "eulerian", "bands": 1, **SINGLE}
VARIANTS: dict[str, dict[str, Any]] = {
    "conv_lstm": PLAIN,
    "conv_gru": {**PLAIN, "cell": "conv_gru"},
    "traj_gru": {**PLAIN, "cell": "traj_gru"},
    "lagrangian": {**PLAIN, "coordinates": "lagrangian"},
    "lagrangian+bands": {**PLAIN, "coordinates": "lagrangian", "bands": 6},
    "lagrangian+bands+members": {},  # the recipe for the shipped weights
}
"""What is set over the recipe; the first three in the coordinates of the grid."""
BASELINE = "extrapolation"
PRODUCTS = {MODEL: "mean", MATCHED: "matched"}
NEAR = 0.05
"""Share by which numbers of parameters may differ."""
COLUMNS = {
    "mse": "MSE",
    "csi_1": "CSI 1",
    "csi_5": "CSI 5",
    "frequency_bias_1": "bias 1",
    "frequency_bias_5": "bias 5",
    "fss_1_10km": "FSS 1, 10 km",
    "crps": "CRPS",
}
"""Scores of the table: means over leads, then over test cubes. The CRPS of a single forecast is its absolute error."""


def make_rain(folder: Path, counts: dict[str, int], *, frames: int, size: int, seed: int) -> dict[str, Any]:
    """Generated cubes by name, so many events each, with seeds that follow each other."""
    sets = {}
    for name, events in counts.items():
        (folder / name).mkdir()
        sets[name] = generate(folder / name, events=events, frames=frames, size=size, seed=seed)
        seed += events
    return sets


def parameters_of(config: cubecast.Config) -> int:
    """Of the network for rain: one variable, and its mask."""
    return count_parameters(build_network(config.model, in_channels=1 + config.model.mask_channel, out_channels=1))


def fit_width(config: cubecast.Config, parameters: int) -> cubecast.Config:
    """The configuration with all layers made wider or narrower alike, so that it has about so many parameters."""
    widths = config.model.hidden_channels

    def scaled(k: int) -> cubecast.Config:
        return cubecast.Config.build(
            config.model_dump(), hidden_channels=[max(1, round(w * k / max(widths))) for w in widths]
        )

    steps = range(1, 2 * max(widths) + 1)
    above = bisect_left(steps, parameters, key=lambda k: parameters_of(scaled(k)))  # the count grows with k
    near = [scaled(k) for k in steps[max(0, above - 1) : above + 1]]
    best = min(near, key=lambda c: abs(parameters_of(c) - parameters))
    if abs(parameters_of(best) / parameters - 1) > NEAR:
        log.warning("%d parameters is as near to %d as the layers allow", parameters_of(best), parameters)
    return best


def variant_configs(names: list[str], base: cubecast.Config, **budget: Any) -> dict[str, cubecast.Config]:
    """The configurations of some variants, each with about as many parameters as ``conv_lstm`` has by the recipe.

    Raises:
        UsageError: an unknown variant.
    """
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        raise UsageError("--variant", found=", ".join(unknown), allowed=", ".join(VARIANTS))
    made = {
        name: cubecast.Config.build(base.model_dump(), **VARIANTS[name], **budget) for name in ("conv_lstm", *names)
    }
    parameters = parameters_of(made["conv_lstm"])
    return {name: fit_width(made[name], parameters) for name in names}


def score(model: cubecast.Nowcaster, cubes: list[xr.DataArray], *, members: int, every: int) -> pd.DataFrame:
    """Means over leads of the model's products and of extrapolation; a row each cube and system."""
    count = members if model.config.model.has_members else None
    rows = []
    for cube in cubes:
        table = cubecast.verify(cube, model, baselines=[BASELINE], members=count, matched=True, every=every)
        if "crps" not in table:
            table = table.assign(crps=table["mae"])
        kept = [c for c in COLUMNS if c in table]
        found = table.groupby("system", sort=False)[kept].mean().reset_index()
        about = {"cube": cube.attrs["source"], "cases": int(table["cases"].max()), "pixels": int(table["pixels"].sum())}
        rows.append(found.assign(**about))
    return pd.concat(rows, ignore_index=True)


def train_and_score(
    name: str, config: cubecast.Config, sets: dict[str, Any], folder: Path, **options: Any
) -> list[dict[str, Any]]:
    """Train a variant, save it, and score it: a row each test cube and product (and extrapolation)."""
    begin = time.monotonic()
    model = cubecast.Nowcaster(config).fit(sets["training"], validation=sets["validation"], progress=True)
    minutes = (time.monotonic() - begin) / 60
    model.save(folder / name)
    found = score(model, sets["test"], **options)
    kept = [int(row["epoch"]) for row in model.log if row["kept"]]
    about = {
        "variant": name,
        "parameters": count_parameters(model.network),
        "hidden_channels": config.model.hidden_channels,
        "epochs": len(model.log),
        "best_epoch": kept[0] if kept else 0,
        "minutes": round(minutes, 3),
    }
    rows: list[dict[str, Any]] = []
    for row in found.to_dict("records"):
        system = row.pop("system")
        own = about | {"product": PRODUCTS[system]} if system in PRODUCTS else {"variant": system, "product": "mean"}
        rows.append(own | {str(k): v for k, v in row.items()})
    return rows


def to_markdown(rows: list[dict[str, Any]]) -> str:
    """The scores of each variant and product, means over the test cubes, one line each, extrapolation last."""
    table = pd.DataFrame([row for last in (False, True) for row in rows if (row["variant"] == BASELINE) == last])
    scores = [c for c in COLUMNS if c in table]
    names = ["variant", "product", "parameters", "epochs", "minutes", *(COLUMNS[c] for c in scores)]
    lines = [markdown_table.head(names)]
    for _, part in table.groupby(["variant", "product"], sort=False):
        first = part.iloc[0]
        variant, product = str(first["variant"]), str(first["product"])
        trained = [f"{first['parameters']:,.0f}", f"{first['epochs']:.0f}", f"{first['minutes']:.1f}"]
        means = [part[c].mean() for c in scores]
        lines.append(markdown_table.row([variant, product, *(["-"] * 3 if variant == BASELINE else trained), *means]))
    return "\n".join(lines)


def write_result(path: Path, rows: list[dict[str, Any]], about: dict[str, Any]) -> None:
    """The rows and what they were made with, as JSON; NaN is null."""
    clean = [{k: None if isinstance(v, float) and v != v else v for k, v in row.items()} for row in rows]
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps({**about, "rows": clean}, indent=1) + "\n", encoding="utf-8")


def sourced(files: list[str]) -> list[xr.DataArray]:
    """Radar cubes that know the name of their file."""
    return [cubecast.open_cube(file).assign_attrs(source=Path(file).name) for file in files]


def circumstances(device: torch.device) -> dict[str, Any]:
    """The command, the machine, and the versions of what ran."""
    versions = {"cubecast": version("cubecast"), "torch": torch.__version__, "python": platform.python_version()}
    return {"command": command(), "machine": machine(device), "versions": versions}


@one_line_errors("ablations")
def main(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder of models and result.")],
    variant: Annotated[list[str] | None, typer.Option(help="Of " + ", ".join(VARIANTS) + "; repeat. [all]")] = None,
    minutes: Annotated[float, typer.Option(help="Training time of each.")] = 10.0,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Instead of minutes: passes, equal numbers of steps.")
    ] = None,
    events: Annotated[int, typer.Option(min=1, help="Generated events that train.")] = 200,
    tests: Annotated[int, typer.Option(min=1, help="Generated events that test, when no --test is given.")] = 8,
    frames: Annotated[int, typer.Option(min=1, help="Frames of an event.")] = 30,
    size: Annotated[int, typer.Option(min=8, help="Pixels on each side of an event.")] = 192,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, order and crops.")] = 0,
    rain_seed: Annotated[int, typer.Option(min=0, help="Of the first generated event.")] = 20_000,
    real: Annotated[list[str] | None, typer.Option(metavar="FILE", help="Radar cube to train on; repeat.")] = None,
    repeat: Annotated[int, typer.Option(min=1, help="How often windows of radar cubes are drawn.")] = REPEAT,
    test: Annotated[list[str] | None, typer.Option(metavar="FILE", help="Held-out radar cube; repeat.")] = None,
    members: Annotated[int, typer.Option(min=2, help="Of ensembles that are scored.")] = 8,
    every: Annotated[int, typer.Option(min=1, help="Score every n-th start.")] = 4,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Setting of all.")] = None,
) -> None:
    """Train variants of the rain model alike, and print their scores on held-out rain."""
    budget: dict[str, Any] = {"max_minutes": minutes} if epochs is None else {"max_minutes": None, "epochs": epochs}
    configs = variant_configs(variant or list(VARIANTS), configure(minutes, seed, set_ or []), **budget)
    for name, config in configs.items():
        log.info("%s: %d parameters, layers of %s", name, parameters_of(config), config.model.hidden_channels)
    observed, held_out = sourced(real or []), sourced(test or [])
    make_folder(output)
    device = choose_device(next(iter(configs.values())).training.device)
    about: dict[str, Any] = {"seeds": {"training": seed, "rain": rain_seed}, "budget": budget, **circumstances(device)}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        counts = {"validation": VALIDATION, "training": events} | ({} if held_out else {"test": tests})
        sets = make_rain(Path(folder), counts, frames=frames, size=size, seed=rain_seed)
        about["trained_on"] = [c.attrs["source"] for c in sets["training"] + observed]
        sets = {"test": held_out, **sets, "training": sets["training"] + observed * repeat}
        for name, config in configs.items():
            found = train_and_score(name, config, sets, output, members=members, every=every)
            rows += [row for row in found if row["variant"] != BASELINE or not rows]
            write_result(output / "ablations.json", rows, about)
    typer.echo(to_markdown(rows))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    typer.run(main)
