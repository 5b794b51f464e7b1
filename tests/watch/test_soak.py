"""The soak of benchmarks/soak.py, short: accounts, handles and memory after faults of every kind."""

import importlib.util
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[2] / "benchmarks" / "soak.py"


@pytest.fixture(scope="module")
def soak():
    spec = importlib.util.spec_from_file_location("soak", SOAK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory and handles are read from /proc")
def test_sixty_cycles_with_every_fault(soak, tmp_path):
    found = soak.soak(tmp_path, cycles=60, faulty=0.25, maps=False, seed=5, size=16)
    assert {k for k, n in found["faults"].items() if n} == set(soak.FAULTS)
    assert soak.complaints(found, allowed=5.0) == []
    assert found["forecasts"]["made"] > 25


def test_a_lost_forecast_a_leak_and_an_open_handle_are_seen(soak):
    def point(memory, handles):
        return {"resident_MB": memory, "handles": handles}

    accounts = {"due": 60, "made": 50, "skipped": 10, "failed": 0, "waiting": 0}
    good = {"cycles": 60, "forecasts": accounts, "made": 50, "measured": {15: point(100.0, 8), 60: point(101.0, 8)}}
    assert soak.complaints(good, allowed=2.0) == []
    assert "accounts" in soak.complaints({**good, "made": 49}, allowed=2.0)[0]
    assert "accounts" in soak.complaints({**good, "forecasts": {**accounts, "skipped": 9}}, allowed=2.0)[0]
    assert "due in" in soak.complaints({**good, "cycles": 70}, allowed=2.0)[0]
    assert "memory" in soak.complaints({**good, "measured": {15: point(100.0, 8), 60: point(103.0, 8)}}, allowed=2.0)[0]
    assert (
        "handles" in soak.complaints({**good, "measured": {15: point(100.0, 8), 60: point(101.0, 9)}}, allowed=2.0)[0]
    )
