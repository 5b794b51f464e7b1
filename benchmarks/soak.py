"""A watch for a long time on a fast clock: frames that come as they should not, memory, file handles, and accounts.

Each cycle is one step of five minutes: its frame is written (or what a fault makes of it), and the folder is looked at
twice. Every due forecast must be there or accounted for; the exit code is 1 when one is not, or when memory grew by
more than --allowed MB after a quarter of the cycles.

Run: python benchmarks/soak.py [--cycles 1000] [--maps] [--faulty 0.05] [--seed 0] [--json soak.json]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from cubecast.nowcaster import Nowcaster
from cubecast.sources.synthetic import generate_rain
from cubecast.watch import Outbox, Rules, Watcher
from cubecast.write import read_forecast, write_cube

STEP = 300.0
START = np.datetime64("2024-01-01T00:00", "ns")
FAULTS = ("truncated", "duplicate", "out of order", "other grid", "missing", "all NaN")
HELD = 100
"""Files that stay in the folder, as where somebody else clears it."""
KEEP = HELD * STEP / 86400


class Source:
    """Writes the frames, and now and then spoils one; ``--seed`` decides which."""

    def __init__(self, folder: Path, fields: xr.DataArray, *, faulty: float, seed: int) -> None:
        self.folder, self.fields, self.faulty = folder, fields, faulty
        self.rng = np.random.default_rng(seed)
        self.faults: Counter[str] = Counter()
        self._held_back: int | None = None

    def write(self, i: int) -> None:
        """What comes in cycle ``i``."""
        late, self._held_back = self._held_back, None
        fault = str(self.rng.choice(FAULTS)) if self.rng.random() < self.faulty else ""
        self.faults[fault] += bool(fault)
        cube = self._frame(i)
        if fault == "out of order":
            self._held_back = i
        elif fault == "other grid":
            write_cube(cube.assign_coords(x=cube.x * 2), self._path(i))
        elif fault == "all NaN":
            write_cube(cube.where(cube < -1), self._path(i))
        elif fault != "missing":
            write_cube(cube, self._path(i))
        if fault == "duplicate":
            write_cube(cube * 2, self._path(i).with_suffix(".again.nc"))
        elif fault == "truncated":
            whole = self._path(i).read_bytes()
            self._path(i).write_bytes(whole[: int(len(whole) * self.rng.uniform(0.05, 0.95))])
        if late is not None:
            write_cube(self._frame(late), self._path(late))
        for old in sorted(self.folder.iterdir())[:-HELD]:
            old.unlink()

    def _frame(self, i: int) -> xr.DataArray:
        one = self.fields.isel(time=[i % len(self.fields)])
        return one.assign_coords(time=[START + i * np.timedelta64(int(STEP), "s")])

    def _path(self, i: int) -> Path:
        return self.folder / f"rain_{i:08d}.nc"


def resident() -> float:
    """Resident memory in MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def handles() -> int:
    """Open file handles (Linux)."""
    return len(os.listdir("/proc/self/fd"))


def soak(root: Path, *, cycles: int, faulty: float, maps: bool, seed: int, size: int = 32) -> dict[str, Any]:
    """Watch ``cycles`` steps below ``root``; memory, handles and accounts."""
    fields = generate_rain(frames=48, size=(size, size), seed=seed)
    small = {"history": 3, "horizon": 3, "hidden_channels": [4], "crop": 16, "epochs": 1}
    model = Nowcaster(**small).fit(fields)
    source = Source(root / "in", fields, faulty=faulty, seed=seed)
    source.folder.mkdir()
    clock = {"now": 0.0}
    rules = Rules.build(model.step, 3, maps=maps, keep=KEEP)
    outbox = Outbox(root / "out")
    watcher = Watcher(source.folder, model, outbox, rules, clock=lambda: clock["now"])
    begin, made = float(START.astype("datetime64[s]").astype(int)), []
    points = sorted({cycles // 4, cycles // 2, cycles})
    measured, begun = {}, time.perf_counter()
    with outbox.held():
        clock["now"] = begin
        watcher.start()
        for i in range(cycles):
            clock["now"] = begin + i * STEP + 60
            source.write(i)
            found = watcher.cycle()
            clock["now"] += 200
            found += watcher.cycle()
            made += [p.name for p in found if read_forecast(p).attrs["creator"]]
            if i + 1 in points:
                measured[i + 1] = {"resident_MB": round(resident(), 1), "handles": handles()}
        seconds = time.perf_counter() - begun
        clock["now"] += STEP  # what was waited for is decided
        made += [p.name for p in watcher.cycle()]
    status = json.loads((outbox.path / "status.json").read_text(encoding="utf-8"))
    return {
        "cycles": cycles, "maps": maps, "faults": dict(source.faults), "measured": measured,
        "forecasts": status["forecasts"], "refused": status["files"]["refused"], "made": len(set(made)),
        "left": len(list(outbox.path.rglob("*"))), "seconds_a_cycle": round(seconds / cycles, 4),
    }  # fmt: skip


def complaints(found: dict[str, Any], allowed: float) -> list[str]:
    """What is not as it must be."""
    f, points = found["forecasts"], list(found["measured"].values())
    newest_missing = found["cycles"] - f["due"]  # frames at the very end that never came
    out = []
    if f["due"] != f["made"] + f["skipped"] + f["failed"] or f["waiting"] or f["made"] != found["made"] or f["failed"]:
        out.append(f"accounts: {f}, {found['made']} files made")
    if not 0 <= newest_missing <= 3:
        out.append(f"{f['due']} forecasts due in {found['cycles']} cycles")
    growth = points[-1]["resident_MB"] - points[0]["resident_MB"]
    if growth > allowed:
        out.append(f"memory grew by {growth:.1f} MB")
    if points[-1]["handles"] > points[0]["handles"]:
        out.append(f"file handles: {points[0]['handles']} to {points[-1]['handles']}")
    return out


def main() -> None:
    """Read the options, soak, say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--faulty", type=float, default=0.05)
    parser.add_argument("--maps", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--allowed", type=float, help="MB that memory may grow [2, with maps 20]")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    logging.getLogger("cubecast").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        found = soak(Path(folder), cycles=options.cycles, faulty=options.faulty, maps=options.maps, seed=options.seed)
    text = json.dumps(found, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text, encoding="utf-8")
    wrong = complaints(found, options.allowed if options.allowed is not None else 20.0 if options.maps else 2.0)
    print("; ".join(wrong) or "all due forecasts are made or accounted for")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
