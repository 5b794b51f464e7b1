"""kill -9 during training: a resumed run ends with the bits of one that nobody killed."""

import hashlib
import time
from pathlib import Path

import numpy as np
from safetensors import safe_open

from cubecast.checkpoint import CHECKPOINT
from cubecast.model_folder import WEIGHTS

TRAIN = """
import logging, torch
from cubecast.__main__ import main
torch.set_num_threads(1)
logging.basicConfig(filename=log, level=logging.INFO)
raise SystemExit(main([str(part) for part in command]))
"""
EPOCHS = 6
SETTINGS = ["--history", "3", "--horizon", "2", "--epochs", str(EPOCHS)]
SETTINGS += ["--set", "hidden_channels=[4]", "--set", "crop=16"]
SETTINGS += ["--set", "coordinates=eulerian"]  # where an epoch is enough to get ahead of the start
KILLS = 3


def test_kill_while_training(tally, launch, radar, memory_disk):
    """A kill comes a random while after a random epoch: by what the training says of itself, not by a clock."""
    fault = tally("kill -9, 3 times in a training", short=1, full=20)

    def start(folder: Path):
        command = ["train", radar, "-o", folder, *SETTINGS, "--resume", "-v"]
        return launch(TRAIN, command=command, log=f"{folder}.log")

    def train(folder: Path) -> float:
        begun, process = time.perf_counter(), start(folder)
        process.join()
        assert process.exitcode == 0, Path(f"{folder}.log").read_text(encoding="utf-8")
        return time.perf_counter() - begun

    def kill(folder: Path, rng: np.random.Generator) -> bool:
        """Whether it came before the end."""
        wanted = int(rng.integers(min(epochs_told(folder), EPOCHS - 1), EPOCHS))
        wait, process = float(rng.uniform(0, seconds / EPOCHS)), start(folder)
        while epochs_told(folder) < wanted and process.exitcode is None:
            time.sleep(0.002)
        process.join(wait)
        in_time = process.exitcode is None
        process.kill()
        process.join()
        return in_time

    launch("").join()  # the process that all others are forked from takes its time to start
    seconds, in_time = train(memory_disk / "whole"), 0
    whole = sha256(memory_disk / "whole" / WEIGHTS)
    assert "kept the weights after epoch" in (memory_disk / "whole.log").read_text(), "it learned nothing"
    for seed in fault:
        rng, folder = np.random.default_rng(seed), memory_disk / str(seed)
        for _ in range(KILLS):
            in_time += kill(folder, rng)
            kept, told = checkpoint_epoch(fault, seed, folder), epochs_told(folder)
            if told - kept > 1:
                fault.lost(seed, f"{told} epochs were trained and the checkpoint is of epoch {kept}")
        train(folder)
        if sha256(folder / WEIGHTS) != whole:
            fault.lost(seed, "other weights than those of the uninterrupted run")
    fault.note(f"{in_time} kills came before the end of a training, which takes {seconds:.1f} s alone")
    assert in_time > fault.tries * KILLS / 2, "the kills came too late: too little was tried"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def checkpoint_epoch(fault, seed: int, folder: Path) -> int:
    """The epoch that the checkpoint is of; 0 without one."""
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    try:
        with safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118  it is no dict
                file.get_tensor(name)
            return int(file.metadata()["run"].partition('"epoch": ')[2].partition(",")[0])
    except Exception as error:
        fault.lost(seed, f"unreadable checkpoint: {error}")
        return 0


def epochs_told(folder: Path) -> int:
    """How far the run says that it has come: the line of an epoch stands before its checkpoint."""
    log = Path(f"{folder}.log")
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return max((int(line.split("epoch ")[1].partition(":")[0]) for line in lines if ":epoch " in line), default=0)
