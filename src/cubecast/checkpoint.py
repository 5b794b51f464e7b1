"""Where a training run stands, in one safetensors file: what makes a resumed run end with the same bits."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cubecast.atomic import atomic_path
from cubecast.errors import InputError

CHECKPOINT = "checkpoint.safetensors"
LOG = "training.csv"
REFIT = "refit"
"""In the folder of a run: that of the second training, on all of the data."""


@dataclass
class Run:
    """All that changes while training: what a checkpoint holds."""

    network: nn.Module
    average: nn.Module
    best: nn.Module
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    step: int = 0
    best_loss: float = math.inf
    best_epoch: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)


def save_checkpoint(run: Run, directory: Path, fingerprint: str) -> None:
    """Everything of the run in one safetensors file, and the log as CSV; both replace the old ones when whole."""
    tensors: dict[str, Tensor] = {"rng": torch.get_rng_state()}
    for part in ("network", "average", "best"):
        tensors |= {f"{part}.{k}": v for k, v in getattr(run, part).state_dict().items()}
    for index, state in run.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": v for k, v in state.items()}
    numbers = {k: getattr(run, k) for k in ("epoch", "step", "best_loss", "best_epoch", "rows")}
    metadata = {"run": json.dumps(numbers), "fingerprint": fingerprint}
    with atomic_path(directory / CHECKPOINT) as temporary:
        save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, temporary, metadata=metadata)
    with atomic_path(directory / LOG) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(run.rows[0]))
        writer.writeheader()
        writer.writerows(run.rows)


def load_checkpoint(run: Run, path: Path, fingerprint: str) -> None:
    """Bring ``run`` to where the checkpoint was written.

    Raises:
        InputError: an unreadable checkpoint, or one of another configuration or other data.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        tensors = load_file(path)
        numbers = json.loads(metadata["run"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"checkpoint {path}", found=str(error), remedy="delete it and train again") from None
    if metadata["fingerprint"] != fingerprint:
        raise InputError(
            f"checkpoint {path} belongs to another run",
            found="another configuration or other data",
            remedy="resume with the same settings and data, or use a new folder",
        )
    for part in ("network", "average", "best"):
        prefix = f"{part}."
        getattr(run, part).load_state_dict(
            {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        )
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = value
    run.optimizer.load_state_dict({**run.optimizer.state_dict(), "state": state})
    torch.set_rng_state(tensors["rng"])
    for name, value in numbers.items():
        setattr(run, name, value)
