"""Training in several processes: real ones, started by torchrun, over Gloo."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from cubecast.batches import Batches
from cubecast.channels import Channels
from cubecast.config import DataConfig, ScalingConfig, TaskConfig
from cubecast.errors import UsageError
from cubecast.ranks import Ranks
from cubecast.sharing import Share
from cubecast.windows import find_windows
from cubecast.write import write_cube

SETTINGS = ["--history", "3", "--horizon", "2", "--epochs", "15", "--set", "hidden_channels=[4]", "--set", "crop=null"]
# A whole epoch in one batch: then both runs see the same samples in each step, whatever their order.
WHOLE = ["--set", "batch_size=64", "--set", "coordinates=eulerian", "--set", "average=0", "--set", "flips=false"]
WHOLE += ["--set", "learning_rate=0.02", "--set", "warmup=0"]


@pytest.fixture(scope="module")
def radar(rain, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("ranks") / "radar.nc"
    write_cube(rain(38), path)
    return path


def start(ranks: int, radar: Path, out: Path, *options: str) -> "subprocess.Popen[str]":
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    command = [sys.executable, *launcher, "-m", "cubecast", "train", str(radar), "-o", str(out), *SETTINGS, *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def losses(folder: Path) -> np.ndarray:
    with open(folder / "training.csv", newline="", encoding="utf-8") as file:
        return np.array([[float(r["training_loss"]), float(r["validation_loss"])] for r in csv.DictReader(file)])


def test_two_processes_train_as_one_with_the_same_batch(radar, tmp_path):
    runs = {n: start(n, radar, tmp_path / str(n), *WHOLE, "--precision", "fp32") for n in (1, 2)}
    for process in runs.values():
        _, said = process.communicate(timeout=240)
        assert process.returncode == 0, said
    one, two = (losses(tmp_path / str(n)) for n in runs)
    assert one.shape == (15, 2)
    assert one[-1, 0] < 0.97 * one[0, 0], "it learns"
    np.testing.assert_allclose(two, one, rtol=1e-3)
    scalings = [json.loads((tmp_path / str(n) / "model.json").read_text())["channels"]["scalings"] for n in runs]
    (first,), (second,) = (s.values() for s in scalings)
    assert second.pop("scale") == pytest.approx(first.pop("scale"), rel=1e-12), "each read a part, and both know all"
    assert second == first
    weights = [load_file(tmp_path / str(n) / "weights.safetensors") for n in runs]
    for name, value in weights[0].items():
        np.testing.assert_allclose(weights[1][name], value, atol=1e-3)


def test_a_killed_process_ends_the_others(radar, tmp_path):
    process = start(2, radar, tmp_path / "model", "--set", "batch_size=2", "--epochs", "5000")
    deadline = time.monotonic() + 200
    while not (tmp_path / "model" / "checkpoint.safetensors").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    workers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout
    os.kill(int(workers.split()[-1]), signal.SIGKILL)
    killed = time.monotonic()
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert time.monotonic() - killed < 60
    with pytest.raises(ProcessLookupError):
        os.kill(int(workers.split()[0]), 0)


def test_ranks_share_an_epoch_and_no_sample_comes_twice(rain):
    """Windows are told apart by the first value of their first frame."""
    cube = rain(40) + np.arange(40, dtype=np.float32).reshape(-1, 1, 1)
    cube.attrs = rain(2).attrs
    windows = find_windows(cube, length=5, stride=1)
    channels = Channels.fit([cube], outputs=None, scaling=ScalingConfig(kind="identity"), mask_channel=False)
    data = DataConfig(crop=None, batch_size=3)

    def of(rank: int) -> list[float]:
        batches = Batches(
            [cube], windows, channels, task=TaskConfig(history=3, horizon=2), data=data, static=[None],
            wet_bias=0, seed=0, train=True, share=Share(rank, 2, lambda own: own),
        )  # fmt: skip
        return [round(float(x), 3) for b in batches.epoch(1) for x in b.inputs[:, 0, 0].amin(dim=(1, 2))]

    first, second = of(0), of(1)
    assert len(first) == len(second) == len(windows) // 2
    assert len(set(first) | set(second)) == len(first) + len(second)


def test_a_batch_that_cannot_be_shared_is_refused():
    assert Ranks(1, 4).share(8) == 2
    with pytest.raises(UsageError, match="a multiple of 3, the number of processes"):
        Ranks(0, 3).share(4)


def test_one_process_sums_alone():
    assert Ranks().sums(1.5, 2) == [1.5, 2]
    assert Ranks().first
