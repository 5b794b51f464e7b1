"""The making of the shipped weights, small: packed events on disk, a model that forecasts, and a card that is true."""

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
import zarr

import cubecast
from cubecast.cube import window_starts
from cubecast.errors import InputError, UsageError
from cubecast.presets import PRESETS
from cubecast.write import write_cube

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_weights.py"
TINY = ["history=2", "horizon=2", "hidden_channels=[4]", "crop=32", "epochs=1", "noise_channels=1"]
SMALL = ["--events", "3", "--frames", "8", "--size", "32", *(word for s in TINY for word in ("--set", s))]
FEW = {"events": 6, "frames": 12, "size": 32, "seed": 3}


@pytest.fixture(scope="module")
def trained(run, rain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a few generated events and one cube that stands for a radar's."""
    root = tmp_path_factory.mktemp("weights")
    write_cube(rain(20), root / "radar.nc")
    real = ["--real", root / "radar.nc", "--attribution", "A weather service, CC BY 4.0"]
    assert run("train", "-o", root / "radar-tiny", *SMALL, "--minutes", 1, *real) == 0
    return root / "radar-tiny"


def test_events_are_packed_on_disk_as_they_were_generated(script: ModuleType, tmp_path: Path) -> None:
    cubes = script.generate(tmp_path, **FEW)
    sizes = np.random.default_rng(3).choice(script.PIXELS_KM, size=6)
    found = {km: c for c in cubes for km in (1.0, 2.0) if abs(float(c.x[1] - c.x[0]) - 1000 * km) < 1}
    assert sorted(found) == sorted(set(sizes))
    for km, cube in found.items():
        seeds = 3 + np.flatnonzero(sizes == km)
        events = [cubecast.generate_rain(frames=12, size=(32, 32), grid_km=km, seed=int(s)) for s in seeds]
        np.testing.assert_allclose(cube.values, np.concatenate([e.values for e in events]), atol=0.0051)
        stored = zarr.open_array(tmp_path / f"rain_{km:g}km.zarr", path="rainfall_rate", mode="r")
        assert (stored.dtype, stored.chunks) == (np.int16, (12, 32, 32))
        starts = window_starts(cube, 12)
        np.testing.assert_array_equal(starts, 12 * np.arange(len(seeds)))  # no window crosses two events
        assert cube.attrs["source"].endswith("generate_rain, seeds 3 to 8")


def test_dry_events_are_left_out(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "DRY", 1.1)
    with pytest.raises(InputError, match="all nearly dry"):
        script.generate(tmp_path, **FEW)


def test_settings_are_the_preset_then_the_recipe_then_the_command_line(script: ModuleType) -> None:
    config = script.configure(7.0, 5, ["learning_rate=1e-4", "loss.thresholds=[2]", "loss.weights=[1,2]"])
    assert config.data.crops_per_window == script.SETTINGS["data"]["crops_per_window"]
    assert config.data.flips == PRESETS["rain"]["data"]["flips"]
    assert (config.training.max_minutes, config.training.seed, config.training.learning_rate) == (7.0, 5, 1e-4)
    assert (config.loss.kind, config.loss.thresholds) == ("crps", [2.0])


def test_every_radar_cube_says_whose_it_is(script: ModuleType) -> None:
    with pytest.raises(UsageError, match="one for each --real"):
        script.open_real(["a.nc", "b.nc"], ["KNMI"])


def test_it_makes_a_model_and_its_card_and_no_more(trained: Path, rain) -> None:
    assert sorted(p.name for p in trained.iterdir()) == [
        "MODEL_CARD.md",
        "config.yaml",
        "model.json",
        "weights.safetensors",
    ]
    model = cubecast.Nowcaster.load(trained)
    assert model.predict(rain(12), members=2)["rainfall_rate"].shape == (1, 2, 2, 24, 28)
    assert yaml.safe_load((trained / "config.yaml").read_text())["model"]["coordinates"] == "lagrangian"
    card = (trained / "MODEL_CARD.md").read_text(encoding="utf-8")
    parameters = sum(p.numel() for p in model.network.parameters())
    for words in (
        "# radar-tiny",
        f"{parameters:,} parameters",
        "- radar.nc, A weather service, CC BY 4.0: 20 frames of 24 x 28 cells of 1 km",
        "generate_rain, seeds 10008 to 10010:",
        "python scripts/train_weights.py train -o radar-tiny --events 3",
        "--real radar.nc --attribution 'A weather service, CC BY 4.0'",
        "None were measured yet.",
        "cubecast train FILES -o FOLDER --from radar-tiny",
    ):
        assert words in card
    for text in (card, (trained / "model.json").read_text(encoding="utf-8")):
        assert str(trained.parent) not in text
        assert "/tmp" not in text
    assert not re.search(r"[{}]", card)


def test_training_goes_on_from_a_model_and_the_card_has_both_commands(run, trained: Path) -> None:
    further = trained.parent / "radar-further"
    one = ["--events", 1, "--minutes", 1, "--set", "learning_rate=1e-9"]
    assert run("train", "-o", further, "--from", trained, *SMALL, *one) == 0
    before, after = cubecast.Nowcaster.load(trained).network, cubecast.Nowcaster.load(further).network
    for one, other in zip(before.parameters(), after.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    card = (further / "MODEL_CARD.md").read_text(encoding="utf-8")
    first = card.index("python scripts/train_weights.py train -o radar-tiny --events 3")
    assert card.index("python scripts/train_weights.py train -o radar-further --from radar-tiny") > first


def test_scores_take_the_place_of_those_before(run, trained: Path, tmp_path: Path) -> None:
    card = trained / "MODEL_CARD.md"
    before = card.read_text(encoding="utf-8")
    for mse in (0.123456, 2.0):
        pd.DataFrame({"system": ["model"], "mse": [mse]}).to_csv(tmp_path / "s.csv", index=False)
        assert run("scores", trained, tmp_path / "s.csv", "--note", "Of one event.") == 0
    after = card.read_text(encoding="utf-8")
    assert "| system | mse |\n| --- | --- |\n| model | 2 |\n" in after
    assert "0.1235" not in after
    head, tail = before.split("None were measured yet.\n")
    assert after.startswith(head)
    assert after.endswith(tail)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["train", "-o", "m", "--real", "radar.nc"], 2, "--attribution"),
        (["train", "-o", "m", "--set", "depth=3"], 2, "unknown setting"),
        (["train", "-o", "m", "--real", "no.nc", "--attribution", "x"], 3, "no.nc"),
        (["train", "-o", "m", "--minutes", "0.0001", *SMALL], 2, "--minutes: found 0.0001"),
        (["scores", "m", "s.csv"], 3, "card or scores"),
    ],
)
def test_what_cannot_be_is_one_line(run, words, code, said, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*words) == code
    line = capsys.readouterr().err
    assert line.startswith("train_weights: error: ")
    assert line.count("\n") == 1
    assert said in line
    assert not list(tmp_path.iterdir())


def test_it_runs_as_a_program() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--help"], check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0
    assert "train" in done.stdout
    assert "scores" in done.stdout


def test_weights_go_back_to_those_before_training_by_a_share(script: ModuleType, trained: Path) -> None:
    one, other = (cubecast.Nowcaster.load(trained) for _ in range(2))
    head = [weight for name, weight in one.network.named_parameters() if "head." in name]
    assert head
    for weight in head:  # zero before training
        torch.nn.init.ones_(weight)
    script.go_back(one, None, 0.25)
    assert all((weight == 0.25).all() for weight in head)
    script.go_back(one, other, 0.0)
    for name, weight in one.network.named_parameters():
        assert torch.equal(weight, other.network.get_parameter(name))
    assert "50% of the way" in (trained / "MODEL_CARD.md").read_text(encoding="utf-8")
