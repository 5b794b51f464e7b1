"""Scores of several verifications in one table: the means are those of the numbers in the files."""

from pathlib import Path

import pandas as pd
import pytest

import cubecast
from cubecast.__main__ import main
from cubecast.write import write_cube


def rows_of(capsys) -> list[list[str]]:
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in capsys.readouterr().out.splitlines()]


def scores(folder: Path, **columns: list[object]) -> Path:
    folder.mkdir()
    leads = {"lead_time": [5.0, 10.0], "lead_units": ["min"] * 2}
    pd.DataFrame({"system": ["model"] * 2, **leads, **columns}).to_csv(folder / "scores.csv", index=False)
    return folder


def test_means_over_leads_then_over_events(run, tmp_path: Path, capsys) -> None:
    one = scores(tmp_path / "one", mse=[1.0, 3.0], csi_1=[0.5, 0.25], crps=[1.0, 1.0])
    two = scores(tmp_path / "two", mse=[10.0, 20.0], csi_1=[0.5, None])
    assert run(one, two) == 0
    rows = rows_of(capsys)
    assert rows[0] == ["event", "system", "MSE", "CSI 1"], "CRPS is not in both"
    assert rows[2:] == [
        ["one", "model", "2", "0.375"],
        ["two", "model", "15", ""],
        ["mean", "model", "8.5", ""],
    ]


def test_what_verify_writes(run, tmp_path: Path, capsys) -> None:
    cube = cubecast.generate_rain(frames=20, size=(32, 32), seed=8, wet_fraction=0.6)
    write_cube(cube, tmp_path / "rain.nc")
    tiny = {"hidden_channels": [2], "epochs": 1, "crop": 16, "patch": 2}
    cubecast.Nowcaster(history=3, horizon=2, **tiny).fit(cube).save(tmp_path / "model")
    words = ["verify", str(tmp_path / "rain.nc"), "--model", str(tmp_path / "model"), "-o", str(tmp_path / "verify")]
    assert main(words) == 0
    capsys.readouterr()
    assert run(tmp_path / "verify") == 0
    rows = rows_of(capsys)
    table = pd.read_csv(tmp_path / "verify" / "scores.csv")
    means = table.groupby("system", sort=False)["mse"].mean()
    assert [(row[1], float(row[2])) for row in rows[2:5]] == [(k, pytest.approx(v, rel=1e-3)) for k, v in means.items()]


def test_what_cannot_be_averaged_is_refused(run, tmp_path: Path, capsys) -> None:
    one = scores(tmp_path / "one", mse=[1.0, 3.0])
    other = scores(tmp_path / "other", mse=[1.0, 3.0])
    later = pd.read_csv(other / "scores.csv").assign(lead_time=[60.0, 65.0])
    later.to_csv(other / "scores.csv", index=False)
    assert run(one, other) == 3
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "no system, lead and score that all have" in said
    pd.concat([later, later]).to_csv(other / "scores.csv", index=False)
    assert run(one, other) == 3
    assert "several variables" in capsys.readouterr().err
    assert run(tmp_path / "absent") == 3
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "scores.csv" in said
    assert run(one, one) == 2
