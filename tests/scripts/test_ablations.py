"""The ablation table, small: variants that differ in what they say, alike in parameters and budget."""

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import cubecast
from cubecast.errors import UsageError
from cubecast.nn import TrajGRUCell
from cubecast.write import write_cube

TINY = ["history=2", "horizon=2", "hidden_channels=[6]", "crop=32"]
SIZE = ["--events", 2, "--tests", 2, "--frames", 10, "--size", 32, "--epochs", 1, "--every", 3, "--members", 2]
SMALL = [*SIZE, *(word for setting in TINY for word in ("--set", setting))]


def test_variants_have_about_as_many_parameters_and_differ_in_what_they_say(script: ModuleType) -> None:
    configs = script.variant_configs(list(script.VARIANTS), script.configure(1.0, 3, []), max_minutes=2.0)
    counts = [script.parameters_of(c) for c in configs.values()]
    plain = configs["conv_lstm"]
    assert plain.model.hidden_channels == script.configure(1.0, 3, []).model.hidden_channels
    assert max(np.abs(np.array(counts) / counts[0] - 1)) < 0.05
    assert {c.training for c in configs.values()} == {plain.training}
    assert (plain.training.seed, plain.training.max_minutes) == (3, 2.0)
    found = {n: (c.model.cell, c.model.coordinates, c.model.bands, c.loss.kind) for n, c in configs.items()}
    assert found == {
        "conv_lstm": ("conv_lstm", "eulerian", 1, "balanced"),
        "conv_gru": ("conv_gru", "eulerian", 1, "balanced"),
        "traj_gru": ("traj_gru", "eulerian", 1, "balanced"),
        "lagrangian": ("conv_lstm", "lagrangian", 1, "balanced"),
        "lagrangian+bands": ("conv_lstm", "lagrangian", 6, "balanced"),
        "lagrangian+bands+members": ("conv_lstm", "lagrangian", 6, "crps"),
    }
    assert [n for n, c in configs.items() if c.model.has_members] == ["lagrangian+bands+members"]
    with pytest.raises(UsageError, match="--variant: found transformer"):
        script.variant_configs(["conv_gru", "transformer"], plain)


def test_it_trains_scores_and_writes_what_it_prints(script: ModuleType, run, tmp_path: Path, capsys) -> None:
    wanted = ["--variant", "traj_gru", "--variant", "lagrangian+bands+members"]
    assert run("-o", tmp_path / "out", *wanted, *SMALL) == 0
    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert lines[0][:6] == ["variant", "product", "parameters", "epochs", "minutes", "MSE"]
    pairs = [tuple(line[:2]) for line in lines[2:]]
    two = ["traj_gru", "lagrangian+bands+members"]
    assert pairs == [*((n, p) for n in two for p in ("mean", "matched")), ("extrapolation", "mean")]
    result = json.loads((tmp_path / "out" / "ablations.json").read_text(encoding="utf-8"))
    assert set(result) == {"seeds", "budget", "command", "machine", "versions", "trained_on", "rows"}
    assert result["budget"] == {"max_minutes": None, "epochs": 1}
    assert result["command"].startswith("python scripts/ablations.py -o out --variant traj_gru")
    assert str(tmp_path) not in json.dumps(result)
    models = {name: cubecast.Nowcaster.load(tmp_path / "out" / name) for name in two}
    assert any(isinstance(m, TrajGRUCell) for m in models["traj_gru"].network.modules())
    for line in lines[2:]:
        rows = [r for r in result["rows"] if (r["variant"], r["product"]) == tuple(line[:2])]
        assert rows
        for column, title in script.COLUMNS.items():
            expected = np.mean([r[column] for r in rows if r[column] is not None])
            assert float(line[lines[0].index(title)]) == pytest.approx(expected, rel=1e-3)
        if line[0] in models:
            count = sum(p.numel() for p in models[line[0]].network.parameters())
            assert line[2:4] == [f"{count:,}", "1"]


def test_given_cubes_train_and_test(run, tmp_path: Path, rain) -> None:
    """The scores are those of the library's verification of the model that was kept."""
    for name, frames in (("radar", 12), ("held", 14)):
        write_cube(rain(frames), tmp_path / f"{name}.nc")
    cubes = ["--real", tmp_path / "radar.nc", "--repeat", 2, "--test", tmp_path / "held.nc"]
    assert run("-o", tmp_path / "out", "--variant", "conv_lstm", *SMALL, *cubes) == 0
    result = json.loads((tmp_path / "out" / "ablations.json").read_text(encoding="utf-8"))
    assert result["trained_on"][-1] == "radar.nc"
    assert result["trained_on"].count("radar.nc") == 1
    assert {r["cube"] for r in result["rows"]} == {"held.nc"}
    model = cubecast.Nowcaster.load(tmp_path / "out" / "conv_lstm")
    table = cubecast.verify(rain(14), model, baselines=["extrapolation"], matched=True, every=3)
    for system, row in zip(["model", "matched", "extrapolation"], result["rows"], strict=True):
        own = table[table["system"] == system]
        assert row["mse"] == pytest.approx(own["mse"].mean(), rel=1e-4)
        assert row["crps"] == pytest.approx(own["mae"].mean(), rel=1e-4)  # of one forecast
        assert row["csi_1"] == pytest.approx(own["csi_1"].mean(), rel=1e-4)
        assert row["cases"] == own["cases"].max() > 1


def test_an_unknown_variant_is_one_line(run, tmp_path: Path, capsys) -> None:
    assert run("-o", tmp_path / "out", "--variant", "transformer") == 2
    line = capsys.readouterr().err
    assert line.startswith("ablations: error: --variant: found transformer; allowed: conv_lstm, conv_gru")
    assert line.count("\n") == 1
    assert not list(tmp_path.iterdir())
