"""Faults whose tests stand elsewhere, and take their time: a rank that is killed, and a thousand cycles of a watch."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_a_killed_rank(tally, rain, tmp_path, radar, request):
    if request.config.getoption("--faults", "short") == "short":
        pytest.skip("tests/test_ranks.py tries it once")
    fault = tally("one of two ranks killed", short=1, full=5)
    spec = importlib.util.spec_from_file_location("ranks", ROOT / "tests" / "test_ranks.py")
    assert spec is not None
    assert spec.loader is not None
    ranks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ranks)
    for seed in fault:
        (tmp_path / str(seed)).mkdir()
        try:
            ranks.test_a_killed_process_ends_the_others(radar, tmp_path / str(seed))
        except (AssertionError, subprocess.TimeoutExpired) as error:
            fault.lost(seed, error)


@pytest.mark.parametrize("maps", [False, True], ids=["without", "with"])
def test_soak(maps, tally, tmp_path, request):
    if request.config.getoption("--faults", "short") == "short":
        pytest.skip("tests/watch/test_soak.py runs sixty cycles")
    fault = tally(f"cycles of a watch {'with' if maps else 'without'} maps, 5 % faulty", short=60, full=1000)
    command = [
        sys.executable,
        "benchmarks/soak.py",
        "--cycles",
        str(fault.tries),
        "--json",
        str(tmp_path / "soak.json"),
    ]
    run = subprocess.run(
        [*command, *(["--maps"] if maps else [])], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if run.returncode:
        fault.lost("soak", run.stdout[-300:] + run.stderr[-300:])
    else:
        found = json.loads((tmp_path / "soak.json").read_text(encoding="utf-8"))
        fault.note(f"{found['measured']}, {found['forecasts']}")
