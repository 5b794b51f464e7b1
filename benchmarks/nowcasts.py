"""Speed of a nowcast: a model, our extrapolation, and S-PROG and STEPS of pysteps on the same frames, in turn.

pysteps (``pip install 'cubecast[pysteps]'``) gets the settings that `cubecast verify` gives it and all processors.
Weights do not matter for speed: without --model it is the rain preset with members, hardly trained.
Run: OMP_NUM_THREADS=2 python benchmarks/nowcasts.py [--model FOLDER]
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import timing
import torch
import xarray as xr

from cubecast import Config, Nowcaster, generate_rain
from cubecast.errors import UsageError
from cubecast.extrapolation import extrapolation
from cubecast.nn.advection import advect
from cubecast.nn.motion import estimate_motion
from cubecast.presets import PRESETS
from cubecast.pysteps_baselines import FRAMES, call_pysteps, check_pysteps, pysteps_settings

RATIOS = {"model, 1 member": "pysteps S-PROG", "model, {} members": "pysteps STEPS, {} members"}


def hardly_trained(device: str) -> Nowcaster:
    """The rain preset with members."""
    values = {**PRESETS["rain"], "loss": {"kind": "crps"}}
    config = Config.build(values, renewal=True, epochs=1, crops_per_window=1, device=device)
    return Nowcaster(config).fit(generate_rain(frames=60, size=(96, 96)))


def ours(
    cube: xr.DataArray, model: Nowcaster, *, leads: int, members: int, device: str
) -> dict[str, Callable[[], object]]:
    """What this package makes of the cube."""
    last = cube.time.values[-1]
    predict = partial(model.predict, cube, at=last, horizon=leads)
    frames = torch.from_numpy(np.log(np.clip(cube.values, 0.1, 50) / 0.1))[None, :, None].to(device)
    motion = estimate_motion(frames)
    found: dict[str, Callable[[], object]] = {
        "motion of 6 frames": lambda: estimate_motion(frames),
        "advection": lambda: advect(frames[:, -1], motion, leads),
        "extrapolation": lambda: extrapolation(cube, reference=last, horizon=leads, device=device),
        "model, 1 member": partial(predict, members=1 if model.config.model.has_members else None),
    }
    if model.config.model.has_members:
        found[f"model, {members} members"] = partial(predict, members=members)
    return found


def theirs(cube: xr.DataArray, *, leads: int, members: int) -> dict[str, Callable[[], object]]:
    """What pysteps makes of it; nothing, with a reason on stderr, where it is not installed."""
    try:
        check_pysteps()
    except UsageError as error:
        print(f"left out: {error}", file=sys.stderr)
        return {}
    rain = cube.values[-FRAMES:].astype(float)
    sprog, steps = (pysteps_settings(method, minutes=5, km=1.0, seed=0) for method in ("sprog", "steps"))
    return {
        "pysteps S-PROG": partial(call_pysteps, rain, "sprog", leads, sprog),
        f"pysteps STEPS, {members} members": partial(
            call_pysteps, rain, "steps", leads, {**steps, "n_ens_members": members}
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=[640, 710])
    parser.add_argument("--leads", type=int, default=12)
    parser.add_argument("--members", type=int, default=24)
    parser.add_argument("--model", type=Path, help="folder of a saved model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quick", action="store_true", help="small sizes: does everything run?")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.quick:
        args.size, args.leads, args.members = [96, 128], 3, 4
    cube = generate_rain(frames=6, size=tuple(args.size), seed=0)
    model = Nowcaster.load(args.model) if args.model else hardly_trained(args.device)
    candidates = ours(cube, model, leads=args.leads, members=args.members, device=args.device)
    candidates |= theirs(cube, leads=args.leads, members=args.members)
    with torch.no_grad():
        seconds = timing.rounds(candidates, count=args.rounds, clock="wall", device=args.device)
    rows = [["nowcast", "median s", "min", "max"]]
    rows += [[n, *(f"{v:.3f}" for v in (statistics.median(s), min(s), max(s)))] for n, s in seconds.items()]
    results = {"machine": timing.machine(args.device), "size": args.size, "leads": args.leads, "seconds": seconds}
    for fast, slow in ((f.format(args.members), s.format(args.members)) for f, s in RATIOS.items()):
        if fast in seconds and slow in seconds:
            results[f"{slow} / {fast}"] = ratio = timing.ratio(seconds, slow, fast)
            rows.append([f"{slow} / {fast}", *(f"{ratio[k]:.1f}" for k in ("median", "min", "max"))])
    if any(name.startswith("pysteps") for name in seconds):
        results["machine"]["pysteps"] = version("pysteps")
    timing.write(args.json, results, rows)


if __name__ == "__main__":
    main()
