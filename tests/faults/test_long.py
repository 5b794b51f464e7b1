"""Faults whose tests stand elsewhere, or take their time: killed ranks, workers and schedulers, and long watches."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from distributed import LocalCluster

from cubecast.nowcaster import Nowcaster
from cubecast.write import write_cube

ROOT = Path(__file__).parents[2]
CLUSTER = {
    "a worker lost in a run on a cluster": "test_a_killed_worker_is_replaced_and_the_run_completes",
    "a scheduler lost in a run, and another one": "test_a_lost_scheduler_is_said_and_another_one_completes_the_run",
}


def of(path: str) -> ModuleType:
    """A file of other tests."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / "tests" / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_killed_rank(tally, rain, tmp_path, radar, request):
    if request.config.getoption("--faults", "short") == "short":
        pytest.skip("tests/test_ranks.py tries it once")
    fault = tally("one of two ranks killed", short=1, full=5)
    ranks = of("test_ranks.py")
    for seed in fault:
        (tmp_path / str(seed)).mkdir()
        try:
            ranks.test_a_killed_process_ends_the_others(radar, tmp_path / str(seed))
        except (AssertionError, subprocess.TimeoutExpired) as error:
            fault.lost(seed, error)


@pytest.mark.parametrize("name", list(CLUSTER))
def test_cluster(name, tally, rain, tmp_path, request):
    if request.config.getoption("--faults", "short") == "short":
        pytest.skip("tests/archive/test_faults.py tries it once")
    fault, archive = tally(name, short=1, full=5), of("archive/test_faults.py")
    settings = of("archive/conftest.py").SMALL
    Nowcaster(**settings, coordinates="lagrangian").fit(rain(40)).save(tmp_path / "model")
    write_cube(rain(archive.FRAMES), tmp_path / "long.nc")
    with LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address="127.0.0.1:0") as cluster:
        for seed in fault:
            (tmp_path / str(seed)).mkdir()
            try:
                getattr(archive, CLUSTER[name])(
                    cluster, str(tmp_path / "long.nc"), tmp_path / "model", tmp_path / str(seed)
                )
            except (Exception, pytest.fail.Exception) as error:
                fault.lost(seed, f"{type(error).__name__}: {error}")


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
