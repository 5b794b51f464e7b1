"""The Moving MNIST recipe, small: digits of their own for the test, and errors that are sums over a frame."""

import gzip
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

import cubecast
from cubecast.baselines import persistence
from cubecast.scores import structural_similarity
from cubecast.sources.moving_mnist import moving_mnist, read_idx_images

SCRIPT = Path(__file__).parents[2] / "scripts" / "moving_mnist.py"


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """Forty blurred squares and crosses of 28 x 28 pixels, in an IDX file."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:28, :28] - 13.5
    shapes = [np.maximum(abs(y), abs(x)) < r if i % 2 else np.minimum(abs(y), abs(x)) < r / 4
              for i, r in enumerate(rng.uniform(4, 10, 40))]  # fmt: skip
    header = np.array([0x803, 40, 28, 28], ">i4").tobytes()
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(header + (np.array(shapes) * 255).astype(np.uint8).tobytes()))
    return path


def test_training_shares_no_digit_with_validation_and_test(script: ModuleType, digits: Path) -> None:
    made = script.cubes(digits, sequences=3, tests=4)
    assert [made[n].sizes["time"] // 20 for n in ("training", "validation", "test")] == [3, 1, 4]
    assert made["test"].attrs["comment"] != made["validation"].attrs["comment"]
    images = read_idx_images(digits)
    everything = [moving_mnist(digits=images[a:b], sequences=3, seed=0) for a, b in ((0, 32), (32, 40))]
    assert (made["training"] == everything[0]).all()
    assert not (made["training"] == everything[1]).all()


def test_errors_are_sums_over_the_pixels_of_a_frame(script: ModuleType) -> None:
    scores = pd.DataFrame(
        [(1, "model", 0.5, 0.25), (1, "persistence", 1.0, 0.5), (2, "model", 1.5, 0.75), (2, "persistence", 2.0, 1.0)],
        columns=["lead_step", "system", "mse", "mae"],
    ).assign(ssim=[0.5, 0.25, 0.75, 0.5], ssim_7x7=[0.25, 0.0, 0.5, 0.125])
    table = script.per_frame(scores, pixels=100)
    assert table["mse"].values.tolist() == [[50, 100], [150, 200], [100, 150]]
    assert table["mae"].loc["mean"].tolist() == [50, 75]
    assert table["ssim"].loc["mean"].tolist() == [0.625, 0.375]
    lines = script.beside_published(table).splitlines()
    assert lines[2:4] == [
        "| this model | 100.0 | 50.0 | 0.625 | 0.375 |",
        "| last frame repeated | 150.0 | 75.0 | 0.375 | 0.062 |",
    ]
    for line in ("103.3 | - | - | 0.707", "29.8 | - | - | -", "23.97 | - | - | -", "26.69 | - | - | 0.9402"):
        assert sum(line in found for found in lines) == 1


def test_similarity_is_the_mean_over_sequences_of_frames_cut_to_their_range(script: ModuleType, digits: Path) -> None:
    cube = script.cubes(digits, sequences=1, tests=35)["test"]  # more than are taken at once
    reference = cube["time"].values[9::20]
    repeated = persistence(cube, reference=reference, horizon=10)
    frames = cube.values.reshape(35, 20, 64, 64)
    found = script.similarity(repeated, cube)
    assert found["lead_step"].tolist() == list(range(1, 11))
    for name, window in (("ssim", "gaussian"), ("ssim_7x7", "uniform")):
        expected = [structural_similarity(frames[:, 9], frames[:, 9 + k], window=window).mean() for k in range(1, 11)]
        np.testing.assert_allclose(found[name], expected, atol=1e-7)
    truth = cube.sel(time=repeated["valid_time"].values.ravel()).values.reshape(repeated["brightness"].shape)
    beyond = repeated.assign(brightness=repeated["brightness"].copy(data=np.where(truth > 0.5, truth + 3, truth - 0.2)))
    cut = repeated.assign(brightness=repeated["brightness"].copy(data=np.where(truth > 0.5, 1, (truth - 0.2).clip(0))))
    pd.testing.assert_frame_equal(script.similarity(beyond, cube), script.similarity(cut, cube))


def test_the_recipe_trains_and_prints_its_table(digits: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        SCRIPT,
        digits,
        "-o",
        tmp_path / "out",
        "--sequences",
        "2",
        "--tests",
        "2",
        "--epochs",
        "1",
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sum(line.startswith("mean") for line in lines) == 1
    assert lines[-1].endswith("networks differ in size.")
    model = cubecast.Nowcaster.load(tmp_path / "out" / "model")
    assert (model.config.task.history, model.config.task.horizon) == (10, 10)
    scores = pd.read_csv(tmp_path / "out" / "scores.csv")
    assert scores.groupby("system").size().to_dict() == {"model": 10, "persistence": 10}
    assert scores[["ssim", "ssim_7x7"]].abs().max().max() <= 1


def test_a_file_without_digits_is_one_line_on_stderr(tmp_path: Path) -> None:
    (tmp_path / "text.gz").write_text("no digits")
    command = [sys.executable, SCRIPT, tmp_path / "text.gz", "-o", tmp_path / "out"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 3
    assert done.stderr.startswith("moving_mnist: error: IDX images")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
