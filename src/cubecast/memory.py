"""Memory that is free, and still counts as this process's."""

from __future__ import annotations

import ctypes
import sys


def give_back() -> None:
    """Give what the C library keeps for later back to the system: after large pieces of work, or it adds up."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl does not need it
        if trim is not None:
            trim(0)
