"""The sample cube in data/ is small, is a cube, and is what its command makes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from cubecast.cube import check_cube

DATA = Path(__file__).parents[1] / "data"
SAMPLE = DATA / "sample_rain.nc"


@pytest.fixture(scope="module")
def sample() -> xr.DataArray:
    with xr.open_dataset(SAMPLE) as dataset:
        return dataset["rainfall_rate"].load()


def test_the_sample_is_small_and_keeps_the_contract(sample: xr.DataArray) -> None:
    assert SAMPLE.stat().st_size < 1_000_000
    assert check_cube(sample).shape == (96, 96, 96)
    assert sample.attrs["units"] == "mm h-1"
    assert 0.1 < float((sample >= 0.1).mean()) < 0.5


def test_the_command_makes_the_sample_again(sample: xr.DataArray, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(DATA / "make_sample.py"), str(tmp_path / "again.nc")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with xr.open_dataset(tmp_path / "again.nc") as dataset:
        again = dataset["rainfall_rate"].load()
    xr.testing.assert_equal(again.coords.to_dataset(), sample.coords.to_dataset())
    # On another processor a value may fall on the other side of a rounding, or of the threshold of rain.
    same = np.abs(again.values - sample.values) < 1e-3
    assert same.mean() > 0.9999, "generate_rain has changed: run python data/make_sample.py and commit its file"
    assert np.abs(again.values - sample.values).max() < 0.11
