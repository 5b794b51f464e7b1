"""What a training run shows while it goes on: a bar on a terminal, and events for TensorBoard."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cubecast.config import TrainingConfig
from cubecast.errors import InputError


@contextlib.contextmanager
def progress_bar(wanted: bool, total: int, done: int) -> Iterator[Callable[[float, int], None]]:
    """A function to call after each batch with its loss and samples; shows a bar on a terminal's stderr."""
    console = Console(stderr=True)
    columns = (
        TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.4g}"),
        TextColumn("{task.fields[rate]:.1f} samples/s"), TimeRemainingColumn(),
    )  # fmt: skip
    start, samples = time.monotonic(), 0
    with Progress(*columns, console=console, disable=not (wanted and console.is_terminal)) as bar:
        task = bar.add_task("training", total=total, completed=done, loss=math.nan, rate=0.0)

        def show(value: float, count: int) -> None:
            nonlocal samples
            samples += count
            bar.update(task, advance=1, loss=value, rate=samples / (time.monotonic() - start))

        yield show


@contextlib.contextmanager
def tensorboard(config: TrainingConfig, directory: Path | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that records an epoch's row for TensorBoard, when that is wanted."""
    if not config.tensorboard or directory is None:
        yield lambda row: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("tensorboard is not installed", remedy="pip install 'cubecast[tensorboard]'") from None
    with SummaryWriter(directory / "tensorboard") as writer:

        def record(row: dict[str, Any]) -> None:
            for name, value in row.items():
                writer.add_scalar(name, value, int(row["epoch"]))

        yield record
