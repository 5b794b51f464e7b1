"""Fixtures shared by all tests: where the real data is, and small generated cubes."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real radar, SST and series data; tests that need it skip where it is absent."""
    root = Path(os.environ.get("CUBECAST_DATA", Path(__file__).parents[1] / "../shared/data")).resolve()
    if not (root / "radar").is_dir():
        pytest.skip(f"real data is absent: no folder {root / 'radar'} (set CUBECAST_DATA)")
    return root
