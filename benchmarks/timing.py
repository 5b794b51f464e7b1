"""Fair timing: interleaved rounds, medians with extremes, and the machine that they were taken on."""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch


def rounds(
    candidates: Mapping[str, Callable[[], object]], *, count: int, clock: str, device: str
) -> dict[str, list[float]]:
    """Seconds of each candidate in each of ``count`` rounds; every round runs all, after one that warms up.

    Args:
        candidates: what to time.
        count: rounds.
        clock: ``wall``, or ``cpu``: the time of this process on all its cores. On one thread the latter does not see
            what other processes take of a shared machine.
        device: ``cuda`` waits for the device before it reads the clock.
    """
    read = time.process_time if clock == "cpu" else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(count + 1):
        for name, function in candidates.items():
            start = read()
            function()
            if device == "cuda":
                torch.cuda.synchronize()
            if number:
                seconds[name].append(read() - start)
        print(f"round {number} of {count}", file=sys.stderr, flush=True)
    return seconds


def ratio(seconds: Mapping[str, list[float]], slow: str, fast: str) -> dict[str, float]:
    """How many times faster ``fast`` is: the ratio of medians, and the extremes of the ratios within a round."""
    each = [s / f for s, f in zip(seconds[slow], seconds[fast], strict=True)]
    median = statistics.median(seconds[slow]) / statistics.median(seconds[fast])
    return {"median": median, "min": min(each), "max": max(each)}


def resident(name: str) -> int:
    """Resident memory of this process in kB: ``VmRSS`` now, ``VmHWM`` at its peak."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def machine(device: str) -> dict[str, Any]:
    """Processor, what it multiplies in bf16, threads and versions."""
    names = [n for n in _lines("/proc/cpuinfo") if n.startswith("model name")]
    able = torch.cpu.get_capabilities()
    return {
        "processor": names[0].split(":")[1].strip() if names else platform.processor(),
        "bf16": [n for n in ("amx_bf16", "avx512_bf16") if able.get(n)],
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "command": " ".join(["python", *(_shown(word) for word in sys.argv)]),
    }


def write(path: Path | None, results: Mapping[str, Any], rows: list[list[str]]) -> None:
    """Print ``rows`` (the first: the head) as a Markdown table; write everything as JSON to ``path``."""
    table = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    print("\n".join(f"| {' | '.join(row)} |" for row in table))
    if path is not None:
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _shown(word: str) -> str:
    """A word of the command line, as one would type it in the repository."""
    path = Path(word)
    root = Path(__file__).parents[1]
    return str(path.relative_to(root)) if path.is_relative_to(root) else path.name if path.is_absolute() else word


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
