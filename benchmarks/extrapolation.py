"""Speed of the extrapolation, part by part, and of pysteps' own on the same frames where it is installed.

pysteps is called through its public API with its defaults: Lucas-Kanade on three frames, semi-Lagrangian extrapolation.
It has to be compiled, so it may live in another environment: --peer names that environment's Python. Then both are run
in turn, round by round.
Run: OMP_NUM_THREADS=2 python benchmarks/extrapolation.py --peer /path/to/other/python
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import timing
import torch

import cubecast
from cubecast.extrapolation import extrapolation
from cubecast.nn.advection import advect
from cubecast.nn.motion import estimate_motion

PEER = """
import contextlib, io, sys, time
with contextlib.redirect_stdout(io.StringIO()):
    import numpy as np
    from pysteps import extrapolation, motion
    rain, leads = np.load(sys.argv[1]), int(sys.argv[2])
    track, carry = motion.get_method("LK"), extrapolation.get_method("semilagrangian")
    decibel = np.where(rain >= 0.1, 10 * np.log10(np.maximum(rain, 0.1)), -15.0)
for line in sys.stdin:
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.perf_counter()
        flow = track(decibel[-3:])
        middle = time.perf_counter()
        carry(rain[-1], flow, leads)
        end = time.perf_counter()
    print(middle - start, end - middle, flush=True)
"""


class Peer:
    """pysteps in a process of its own, which waits while others are timed."""

    def __init__(self, python: str, rain: np.ndarray, leads: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "rain.npy"
        np.save(path, rain.astype(np.float64))
        self.process = subprocess.Popen(
            [python, "-c", PEER, str(path), str(leads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.parts: list[list[float]] = []

    def __call__(self) -> None:
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        self.parts.append([float(word) for word in self.process.stdout.readline().split()])

    def close(self) -> None:
        self.process.communicate()
        self.folder.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=[640, 710])
    parser.add_argument("--leads", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--peer", help="a Python that has pysteps")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cube = cubecast.generate_rain(frames=6, size=tuple(args.size), seed=0)
    frames = torch.from_numpy(np.log(np.clip(cube.values, 0.1, 50) / 0.1))[None, :, None].to(args.device)
    with torch.no_grad():
        motion = estimate_motion(frames)
        last = cube.time.values[-1]
        candidates = {
            "motion of 6 frames": lambda: estimate_motion(frames),
            "advection": lambda: advect(frames[:, -1], motion, args.leads),
            "extrapolation of a cube": lambda: extrapolation(
                cube, reference=last, horizon=args.leads, device=args.device
            ),
        }
        peer = Peer(args.peer, cube.values, args.leads) if args.peer else None
        if peer:
            candidates["pysteps, both"] = peer
        seconds = timing.rounds(candidates, count=args.rounds, clock="wall", device=args.device)
    rows = [["part", "median s", "min", "max"]]
    if peer:
        peer.close()
        seconds["pysteps motion"], seconds["pysteps advection"] = map(list, zip(*peer.parts[1:], strict=True))
    rows += [[n, *(f"{v:.3f}" for v in (statistics.median(s), min(s), max(s)))] for n, s in seconds.items()]
    results = {"machine": timing.machine(args.device), "size": args.size, "leads": args.leads, "seconds": seconds}
    if peer:
        results["ratio"] = timing.ratio(seconds, "pysteps, both", "extrapolation of a cube")
        rows.append(["times faster", *(f"{results['ratio'][k]:.1f}" for k in ("median", "min", "max"))])
    timing.write(args.json, results, rows)


if __name__ == "__main__":
    main()
