"""What became of every forecast that was due: made, skipped or failed, and why."""

from __future__ import annotations

from collections import Counter

MADE, THERE = "made", "there"
SKIPPED, FAILED = "skipped", "failed"


class Ledger:
    """One account for each step of time, from the first that is due to that of the newest frame.

    Steps are numbered (see `cubecast.watch.series`); ``THERE`` (a forecast of an earlier run) is not due. Accounts of
    steps below the window are closed: counted, but not remembered one by one.
    """

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.outcomes: dict[int, tuple[str, str]] = {}
        self.first: int | None = None
        """The first due step that is not closed."""
        self.newest = -1
        self._there: set[int] = set()
        self.closed = 0
        """How many accounts of due steps were closed."""

    def begin(self, first: int, newest: int, there: set[int]) -> None:
        """Accounts from ``first`` to ``newest`` are due, but for those of steps whose forecast is ``there``."""
        self.first, self.newest, self._there = first, max(newest, first - 1), there
        self._enter_there()

    def open(self, newest: int) -> None:
        """Accounts up to ``newest`` are due."""
        self.newest = max(self.newest, newest)
        self._enter_there()

    def is_due(self, step: int) -> bool:
        """Whether a forecast of ``step`` is due and nothing is known of it yet."""
        return self.first is not None and self.first <= step <= self.newest and step not in self.outcomes

    def set(self, step: int, what: str, reason: str = "") -> None:
        """Put ``step`` to an account, in place of what was there."""
        self.unset(step)
        self.outcomes[step] = (what, reason)
        self.counts[what, reason] += 1

    def unset(self, step: int) -> None:
        """``step`` is open again."""
        old = self.outcomes.pop(step, None)
        if old is not None:
            self.counts[old] -= 1

    def was(self, step: int) -> tuple[str, str]:
        """What became of ``step``; two empty words when nothing is known."""
        return self.outcomes.get(step, ("", ""))

    def close(self, below: int) -> int:
        """Close the accounts of all steps below ``below``; those without an outcome are missing frames: how many."""
        missing = 0
        if self.first is not None and below > self.first:
            due = min(below, self.newest + 1) - self.first
            told = [self.outcomes[s] for s in self.outcomes if self.first <= s < below]
            missing = due - len(told)
            self.counts[SKIPPED, "missing"] += missing
            self.closed += due - sum(what == THERE for what, _ in told)
            self.first = min(below, self.newest + 1)
        for step in [s for s in self.outcomes if s < below]:
            del self.outcomes[step]
        return missing

    def restart(self) -> None:
        """Close everything: the steps get new numbers."""
        self.close(self.newest + 1)
        self.outcomes.clear()
        self.first, self.newest = None, -1

    def _enter_there(self) -> None:
        for step in [s for s in self._there if self.first is not None and self.first <= s <= self.newest]:
            self._there.discard(step)
            self.set(step, THERE)

    def total(self, what: str) -> int:
        """How many steps were put to an account, whatever the reason."""
        return sum(n for (kind, _), n in self.counts.items() if kind == what)

    def reasons(self, what: str) -> dict[str, int]:
        """The same by reason."""
        return {reason: n for (kind, reason), n in sorted(self.counts.items()) if kind == what and n}

    def open_steps(self, below: int) -> list[int]:
        """Due steps below ``below`` of which nothing is known yet."""
        first = below if self.first is None else self.first
        return [s for s in range(first, min(below, self.newest + 1)) if s not in self.outcomes]

    @property
    def waiting(self) -> int:
        """How many due steps nothing is known of yet."""
        return len(self.open_steps(self.newest + 1))

    @property
    def due(self) -> int:
        """Forecasts that were to be made: one for each step of time, those of earlier runs left out."""
        if self.first is None:
            return self.closed
        there = sum(what == THERE for s, (what, _) in self.outcomes.items() if s >= self.first)
        return self.closed + self.newest + 1 - self.first - there
