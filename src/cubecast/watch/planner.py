"""Which forecast is due, and what becomes of it: made, waited with, skipped or failed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cubecast.errors import CubecastError, OutputError
from cubecast.watch.intake import Intake
from cubecast.watch.ledger import FAILED, MADE, SKIPPED, THERE, Ledger
from cubecast.watch.making import Maker
from cubecast.watch.rules import Rules
from cubecast.watch.series import Frame, Refusal, seconds_of, shown

logger = logging.getLogger(__name__)


class Planner:
    """Places frames, keeps the accounts, and decides.

    Args:
        intake: the frames.
        maker: makes the forecasts.
        rules: the rules of the watch.
        clock: seconds since 1970, UTC.
        note: told what was not made, and why: a word and a line.
    """

    def __init__(
        self,
        intake: Intake,
        maker: Maker,
        rules: Rules,
        *,
        clock: Callable[[], float],
        note: Callable[[str, str], None],
    ) -> None:
        self.intake, self.maker, self.rules, self.clock, self.note = intake, maker, rules, clock, note
        self.ledger = Ledger()
        self.there: list[np.datetime64] = []
        """Reference times of the forecasts that earlier runs made."""
        self.stopping = False
        self._given_up: set[int] = set()
        """Missing steps that were waited for long enough: no later forecast waits for them again."""

    def place(self, frame: Frame) -> list[Path]:
        """Hold a frame; forecasts whose history drops out of the window because of it are decided first."""
        intake, series = self.intake, self.intake.series
        assert series is not None
        number, newest = series.number(frame.time), intake.newest
        made: list[Path] = []
        if newest is None:
            self._begin(number, number)
        elif number > newest:
            low = number - intake.window + 1
            made = self.decide(final=True, below=low + intake.history + self.rules.fill)
            self.ledger.open(number)
            self.close(low)
            series.drop(low)
        settled = self.ledger.was(number)[0] in (MADE, THERE)
        if intake.place(frame, is_settled=settled) is not None and not settled:
            self._given_up.discard(number)
            self.ledger.unset(number)  # it was given up, and came after all
        return made

    def _begin(self, first: int, newest: int) -> None:
        """Open the accounts: from ``first`` on, but no more than a history before the newest forecast that is there."""
        series, there = self.intake.series, set()
        assert series is not None
        for moment in self.there[-2 * self.intake.window :]:
            try:
                there.add(series.number(moment))
            except Refusal:  # of another series, in the same folder
                continue
        first = max([first, *(n - self.intake.history + 1 for n in [max(there, default=None)] if n is not None)])
        self.ledger.begin(first, newest, there)

    def take_over(self) -> list[Path]:
        """Frames of another grid have come in a row: end the accounts of this one and go on with that."""
        old, newest = self.intake.series, self.intake.newest
        assert old is not None
        made = self.decide(final=True)
        self.ledger.restart()
        self._given_up.clear()
        series = self.intake.take_over()
        later = [n for n in series.frames if newest is None or series.time(n) > old.time(newest)]
        last = max(series.frames)
        self._begin(min(later, default=last + 1), last)
        line = f"{len(series.frames)} frames in a row agree on another grid or phase, which is that of the watch now"
        self.note("takeover", line)
        return made

    def decide(self, *, final: bool, below: int | None = None) -> list[Path]:
        """Make, skip or leave for later each forecast that is due (of steps below ``below``)."""
        series = self.intake.series
        made = []
        for number in sorted(series.frames) if series else []:
            if self.stopping or (below is not None and number >= below):
                break
            if self.ledger.is_due(number):
                made += self._decide_one(number, final)
        return made

    def _decide_one(self, number: int, final: bool) -> list[Path]:
        series, now = self.intake.series, self.clock()
        assert series is not None
        frame = series.frames[number]
        age = now - seconds_of(frame.time)
        if age > self.rules.stale:
            self._give_up(number)
            return self._end(number, SKIPPED, "stale", f"its newest frame is {age:.0f} s old")
        missing = series.missing(number, self.intake.history)
        waited = now >= frame.arrival + self.rules.waiting(self.maker.seconds)
        if missing and not (final or waited or self._given_up.issuperset(missing)):
            return []
        self._given_up.update(missing)
        self._give_up(number)
        if not series.can_fill(missing, self.rules.fill):
            times = ", ".join(shown(series.time(n)) for n in missing)
            return self._end(number, SKIPPED, "history", f"{len(missing)} frames of its history are missing: {times}")
        return self._make(number, missing, final or now >= frame.arrival + self.rules.deadline)

    def _give_up(self, below: int) -> None:
        """No frame of a step below ``below`` is expected any more; one that comes is taken all the same."""
        series = self.intake.series
        assert series is not None
        for step in [n for n in self.ledger.open_steps(below) if n not in series.frames]:
            self._end(step, SKIPPED, "missing", "no frame of that time came")

    def _make(self, number: int, missing: Sequence[int], final: bool) -> list[Path]:
        series = self.intake.series
        assert series is not None
        try:
            path = self.maker.make(series, number, missing)
        except OutputError as error:  # a full disk may have room again in a minute
            if final:
                return self._end(number, FAILED, "output", str(error))
            self.note("waiting", str(error))
            return []
        except CubecastError as error:
            return self._end(number, FAILED, "forecast", str(error))
        except Exception as error:
            logger.debug("a forecast failed", exc_info=True)
            return self._end(number, FAILED, "internal", f"{type(error).__name__}: {error}")
        self.ledger.set(number, MADE)
        return [path]

    def _end(self, number: int, what: str, reason: str, line: str) -> list[Path]:
        """Account for a forecast that is not made: no path."""
        series = self.intake.series
        assert series is not None
        self.ledger.set(number, what, reason)
        self.note(what, f"{shown(series.time(number))}: {reason}: {line}")
        return []

    def close(self, below: int) -> None:
        """End the accounts of all steps below ``below``; a step without a frame until now is missing."""
        missing = self.ledger.close(below)
        self._given_up = {n for n in self._given_up if n >= below}
        if missing:
            assert self.intake.series is not None
            line = f"{missing} frames before {shown(self.intake.series.time(below))} did not come"
            self.note(SKIPPED, f"missing: {line}")
