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
    )
    table = script.per_frame(scores, pixels=100)
    assert table["mse"].values.tolist() == [[50, 100], [150, 200], [100, 150]]
    assert table["mae"].loc["mean"].tolist() == [50, 75]


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
    assert done.stdout.split("\n")[-2].startswith("mean")
    model = cubecast.Nowcaster.load(tmp_path / "out" / "model")
    assert (model.config.task.history, model.config.task.horizon) == (10, 10)
    assert (tmp_path / "out" / "scores.csv").is_file()


def test_a_file_without_digits_is_one_line_on_stderr(tmp_path: Path) -> None:
    (tmp_path / "text.gz").write_text("no digits")
    command = [sys.executable, SCRIPT, tmp_path / "text.gz", "-o", tmp_path / "out"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 3
    assert done.stderr.startswith("moving_mnist: error: IDX images")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
