"""The same seed, data and machine: the same bits, in processes that know nothing of each other."""

import hashlib

from cubecast.model_folder import WEIGHTS
from cubecast.write import read_forecast

RUN = """
import torch
from cubecast.__main__ import main
torch.set_num_threads(1)
train = ["train", radar, "-o", folder, "--history", "3", "--horizon", "2", "--epochs", "2", "--set", "crop=16"]
train += ["--set", "hidden_channels=[4]", *(["--set", "deterministic=true"] if flag else [])]
assert main(train) == 0
assert main(["forecast", radar, "--model", folder, "-o", folder + "/nowcast.nc"]) == 0
"""


def test_training_and_forecasts_are_bit_for_bit_the_same(tally, launch, radar, memory_disk):
    """The default settings of rain; in every second process with the setting ``deterministic``, too."""
    fault = tally("trainings and forecasts that must have the same bits", short=2, full=10)
    seen = []
    for seed in fault:
        folder = memory_disk / str(seed)
        process = launch(RUN, radar=str(radar), folder=str(folder), flag=bool(seed % 2))
        process.join()
        assert process.exitcode == 0
        values = read_forecast(folder / "nowcast.nc").rainfall_rate.values.tobytes()
        log = (folder / "training.csv").read_text(encoding="utf-8").splitlines()
        losses = [row.split(",")[:3] for row in log]
        bits = [hashlib.sha256(b).hexdigest() for b in ((folder / WEIGHTS).read_bytes(), values)]
        seen.append((bits, losses))
        if seen[-1] != seen[0]:
            fault.lost(seed, "other weights, losses or forecasts than the first")
