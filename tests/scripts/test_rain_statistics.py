"""The table of statistics: a column for each file, finer grids averaged, and the spread of generated rain."""

from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

import cubecast


def test_a_column_for_each_file_and_for_generated_rain(script: ModuleType, run, tmp_path: Path) -> None:
    cube = cubecast.generate_rain(frames=16, size=(80, 80), grid_km=0.5, seed=2)
    cubecast.write_cube(cube, tmp_path / "fine.nc")
    out = tmp_path / "table.csv"
    assert run(tmp_path / "fine.nc", "--generated", 1, "-o", out) == 0
    table = pd.read_csv(out, index_col="statistic")
    assert list(table) == ["fine", "median", "lowest", "highest"]
    assert table["fine"]["wet"] == pytest.approx(float((script.coarsened(cube, 1.0) >= 0.1).mean()), rel=1e-3)
    assert (table["median"] == table["lowest"])["wet"]


def test_pixels_are_averaged_to_the_finest_size(script: ModuleType) -> None:
    cube = cubecast.generate_rain(frames=1, size=(20, 21), grid_km=0.5)
    coarse = script.coarsened(cube, 1.0)
    assert coarse.shape == (1, 10, 10)
    assert float(coarse[0, 0, 0]) == pytest.approx(float(cube[0, :2, :2].mean()), abs=1e-6)
    assert script.coarsened(cube, 0.9) is cube


def test_errors_are_one_line(run, tmp_path: Path, capsys) -> None:
    assert run(tmp_path / "nothing.nc") == 3
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "rain_statistics: error: " in said
