"""The processes of one training run: under ``torchrun`` several, else this one alone."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from cubecast.errors import FailedError, UsageError
from cubecast.sharing import Array, Share

PATIENCE = datetime.timedelta(minutes=10)
"""How long a process waits for one that still runs and says nothing."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which process this is, and how many there are."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def sums(self, *numbers: float) -> list[float]:
        """Each number, summed over all processes."""
        return [float(v) for v in self._add(np.array(numbers, np.float64))]

    @property
    def reading(self) -> Share:
        """What of the data this process reads when all look at it together."""
        return Share(self.rank, self.count, self._add)

    def _add(self, own: Array) -> Array:
        if self.count == 1:
            return own
        # a copy, because what a process has is its own
        total = torch.tensor(own, device="cpu" if dist.get_backend() == "gloo" else "cuda")
        dist.all_reduce(total)
        return total.cpu().numpy()

    def share(self, batch_size: int) -> int:
        """What of a batch is this process's.

        Raises:
            UsageError: a batch that cannot be shared alike.
        """
        if batch_size % self.count:
            allowed = f"a multiple of {self.count}, the number of processes"
            raise UsageError("batch_size", found=batch_size, allowed=allowed)
        return batch_size // self.count

    def parallel(self, network: nn.Module) -> nn.Module:
        """The network, whose gradients are the means over all processes."""
        return network if self.count == 1 else nn.parallel.DistributedDataParallel(network)


def started_ranks() -> Ranks:
    """This process among those that torchrun started, by its environment variables."""
    return Ranks(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """The processes of this run, connected: over NCCL on CUDA, each with its own device, else over Gloo.

    Raises:
        FailedError: another process stopped.
    """
    ranks = started_ranks()
    if ranks.count == 1:
        yield ranks
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        try:
            yield ranks
        finally:
            dist.destroy_process_group()
    except RuntimeError as error:
        if isinstance(error, FailedError) or not any(w in str(error).lower() for w in ("gloo", "nccl", "connection")):
            raise
        raise FailedError(
            "another process of this run stopped or cannot be reached",
            found=str(error).splitlines()[0],
            remedy="see what it said, then start all again with --resume",
        ) from None
