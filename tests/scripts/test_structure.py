"""What parts of the untrained network bring, small: each part is left out, and brings something."""

from pathlib import Path
from types import ModuleType

import cubecast
from cubecast.nn import fading, lagrangian, trajectories
from cubecast.write import write_cube

TINY = ["history=4", "horizon=3", "hidden_channels=[2]", "crop=32", "bands=3"]


def test_parts_are_left_out_and_put_back(script: ModuleType, run, tmp_path: Path, capsys) -> None:
    write_cube(cubecast.generate_rain(frames=12, size=(64, 64), seed=8, wet_fraction=0.6), tmp_path / "rain.nc")
    before = (trajectories.PART, lagrangian.STRAY, fading.persistences)
    assert run(tmp_path / "rain.nc", "--every", 3, "--members", 2, *(w for s in TINY for w in ("--set", s))) == 0
    assert (trajectories.PART, lagrangian.STRAY, fading.persistences) == before
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows[2:]] == ["extrapolation", *(n for n, _ in script.variants() for _ in range(3))]
    squared = [float(row[2]) for row in rows[3:] if row[1] == "mean"]
    assert len(squared) == 4
    assert len(set(squared)) > 2, "parts change the forecast"
