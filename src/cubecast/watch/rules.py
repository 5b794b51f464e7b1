"""The rules of a watch: how often to look, how long to wait, what to fill, what is too old, what to keep."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from cubecast.errors import UsageError
from cubecast.steps import Step

LONGEST_POLL = 30.0
"""Seconds: the status file is a heartbeat too, so it is written at least so often."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """All times are seconds; those of the clock that the watcher is given, which is UTC as the frames' times are."""

    span: float
    """One step of the model."""
    poll: float
    """Pause between two looks at the folder."""
    deadline: float
    """A forecast is to be on disk so long after its frame was there as a whole file."""
    patience: float
    """A file that cannot be read is tried again so long after its last change, then skipped."""
    stale: float
    """No forecast is made after a frame that is older than this."""
    fill: int = 1
    """Most missing frames of a history that are interpolated."""
    keep: float | None = None
    """Days after which forecasts and maps are removed, by reference time; None: never."""
    maps: bool = False

    @classmethod
    def build(
        cls,
        step: Step,
        horizon: int,
        *,
        poll: float | None = None,
        deadline: float | None = None,
        patience: float | None = None,
        stale: float | None = None,
        **others: Any,
    ) -> Self:
        """The rules for a model, None standing for what follows from its step.

        Poll: a sixtieth of a step, 0.5 to 30 s. Deadline and patience: one step, when the next frame comes. Stale:
        ``horizon`` steps, because all valid times of a forecast after an older frame have passed.

        Raises:
            UsageError: the model's sequence is not time, or a number is out of range.
        """
        if step.kind == "number":
            raise UsageError("watch", found=f"a model with a step of {step}", allowed="a model of time steps")
        span = float(step.lead(1) / np.timedelta64(1, "s"))
        rules = cls(
            span=span,
            poll=min(max(span / 60, 0.5), LONGEST_POLL) if poll is None else poll,
            deadline=span if deadline is None else deadline,
            patience=span if patience is None else patience,
            stale=span * horizon if stale is None else stale,
            **others,
        )
        rules._check()
        return rules

    def _check(self) -> None:
        lowest = {"poll": 0.0, "deadline": 0.0, "patience": 0.0, "stale": 0.0, "fill": 0, "keep": 0.0}
        for name, low in lowest.items():
            value = getattr(self, name)
            if value is None:
                continue
            if (
                not value >= low
                or (name in ("poll", "keep") and not value > 0)
                or (math.isinf(value) and name == "poll")
            ):
                allowed = "more than 0" if name in ("poll", "keep") else "0 or more"
                raise UsageError(f"--{name}", found=value, allowed=allowed)

    def waiting(self, seconds: float) -> float:
        """How long to wait for late frames of a history, when the last forecast took ``seconds``.

        A quarter of the deadline is kept for making the forecast, more (up to half) where twice its time is more.
        """
        return self.deadline - min(max(self.deadline / 4, 2 * seconds), self.deadline / 2)
