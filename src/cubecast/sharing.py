"""Processes that look at the same data together: each reads a part of it, and they add up what they found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of the data this process reads, part ``rank`` of ``count``.

    Attributes:
        add: gives the sum of the arrays (of one shape and floating type) that all processes call it with; each must.
    """

    rank: int
    count: int
    add: Callable[[Array], Array]


ALL = Share(0, 1, lambda own: own)
"""One process reads everything."""
