"""In which precision a network is computed (float32, or bfloat16 autocast), and whether the same way each time."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from cubecast.errors import UsageError

log = logging.getLogger(__name__)

PRECISIONS = ("auto", "fp32", "bf16")


def choose_autocast(precision: str, device: torch.device) -> torch.dtype | None:
    """The autocast type of a precision; ``auto`` is bf16 where the hardware multiplies it, else none.

    Raises:
        UsageError: another precision.
    """
    check_precision(precision)
    if precision == "bf16" and not has_bf16(device):
        log.warning("this CPU does not multiply bf16 in hardware: precision bf16 works, and may be slower than fp32")
    return torch.bfloat16 if precision == "bf16" or (precision == "auto" and has_bf16(device)) else None


def check_precision(precision: str) -> None:
    """Raises `UsageError` for another one than fp32, bf16 and auto."""
    if precision not in PRECISIONS:
        raise UsageError("precision", found=repr(precision), allowed=", ".join(PRECISIONS))


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bf16: CUDA, and CPUs with AMX or AVX512-BF16."""
    found = torch.cpu.get_capabilities()
    return device.type == "cuda" or bool(found.get("amx_bf16") or found.get("avx512_bf16"))


def full_precision(device: str) -> AbstractContextManager[None]:
    """Within it autocast is off: for sums that would cancel in half precision."""
    known = torch.amp.is_autocast_available(device)  # not for meta tensors
    return torch.autocast(device, enabled=False) if known else nullcontext()


@contextmanager
def repeatable(on: bool) -> Iterator[None]:
    """Within it (``on``) torch takes deterministic algorithms only and cuDNN tries out none, whose choice would differ.

    cuBLAS wants CUBLAS_WORKSPACE_CONFIG for this, which is set when it is not.

    Raises:
        RuntimeError: by an operation, within the block, that has no such algorithm (on CUDA).
    """
    if not on:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.benchmark = before[1]
