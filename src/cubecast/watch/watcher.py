"""The watch itself: look, take, decide, forecast, say so; again and again until somebody stops it."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from cubecast.errors import CubecastError, InputError, OutputError
from cubecast.nowcaster import Nowcaster
from cubecast.watch.folder import Folder
from cubecast.watch.intake import Intake
from cubecast.watch.ledger import FAILED, MADE, SKIPPED, THERE, Ledger
from cubecast.watch.making import Maker, seconds_of
from cubecast.watch.outbox import Outbox
from cubecast.watch.rules import Rules
from cubecast.watch.series import Frame, Refusal, shown
from cubecast.watch.status import Report

logger = logging.getLogger(__name__)
_SLICE = 0.2
"""Seconds: a pause is slept in slices, so that a signal is answered soon."""
_DAY = 86400.0


class Watcher:
    """Forecasts after each new frame in a folder. `run` does it until a signal; `cycle` is one look.

    Args:
        folder: where the frames come, one or some a file.
        model: a fitted model.
        outbox: where the forecasts go.
        rules: see `Rules`.
        pattern: names of the files, as in a shell.
        variable: as in `cubecast.open_cube`.
        once: nothing is waited for: what is missing or cannot be read now is filled or skipped.
        clock: seconds since 1970, UTC; what all times of the rules are counted by.
        options: further arguments of `Nowcaster.predict`: horizon, static, precision.

    Raises:
        InputError: the folder is not there.
    """

    def __init__(
        self,
        folder: Path,
        model: Nowcaster,
        outbox: Outbox,
        rules: Rules,
        *,
        pattern: str = "*",
        variable: str | Sequence[str] | None = None,
        once: bool = False,
        clock: Callable[[], float] = time.time,
        **options: Any,
    ) -> None:
        if not folder.is_dir():
            raise InputError(f"cannot watch {folder}", found="no such folder", allowed="a folder that frames come to")
        self.outbox, self.rules, self.once, self.clock = outbox, rules, once, clock
        self.intake = Intake(Folder(folder, pattern), model, rules, variable=variable, once=once)
        self.maker = Maker(model, outbox, rules, clock, options)
        self.ledger = Ledger()
        self.report = Report(rules, clock())
        self.stopping = False
        self._there = outbox.times()
        self._given_up: set[int] = set()
        """Missing steps that were waited for long enough: no later forecast waits for them again."""

    def run(self, made: Callable[[Path], None] = lambda path: None) -> int:
        """Watch until SIGTERM or SIGINT (a second one abandons the forecast in hand), or with ``once`` to the end.

        Args:
            made: called with the path of each new forecast.

        Returns:
            How many forecasts that were due failed.

        Raises:
            OutputError: another watcher writes to the folder, or the status cannot be written at the start.
        """
        with self.outbox.held():
            before, state = self._listen(), "failed"
            try:
                self.start()
                for path in self._cycles():
                    made(path)
                state = "stopped" if self.stopping else "ended"
            except KeyboardInterrupt:
                state = "stopped"
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)
                self._say(state)
        return self.ledger.total(FAILED)

    def start(self) -> None:
        """Find what earlier runs made, remove what they left behind, and finish what they had begun.

        Raises:
            OutputError: the output folder cannot be written.
        """
        for name in self.outbox.clean():
            logger.info("removed %s, which a killed writer had left", name)
        self._there = self.outbox.times()
        self.outbox.write_status(self._status("starting"))
        self.maker.catch_up(self._there)
        self._retire()

    def cycle(self) -> list[Path]:
        """Look once: take the files that are at rest, make the forecasts that are due, write the status.

        Returns:
            The forecasts that were made.
        """
        now, made, names = self.clock(), [], []
        self.report.cycles += 1
        try:
            names = self.intake.folder.look(now)
            self.report.problem = None
        except InputError as error:  # a network drive that will be back
            self.report.problem = str(error)
        for name in self.intake.wanted(names, self._since(now)):
            if self.stopping:
                break
            for frame in self.intake.read(name, now):
                made += self._place(frame)
            if self.intake.has_rival:
                made += self._take_over()
        made += self._decide(final=self.once)
        if self.once and self.intake.newest is not None and not self.stopping:
            self._close(self.intake.newest)
        if made:
            self._retire()
        self._say("watching")
        return made

    def _cycles(self) -> Iterator[Path]:
        """All forecasts, one cycle after the other; two looks tell which files are at rest."""
        looks = 0
        while not self.stopping:
            yield from self.cycle()
            looks += 1
            if self.once and looks > 1:
                return
            end = time.monotonic() + self.rules.poll
            while not self.stopping and (left := end - time.monotonic()) > 0:
                time.sleep(min(left, _SLICE))

    def _since(self, now: float) -> np.datetime64 | None:
        """Frames before this time can be of no use: neither for a forecast that is due nor for its history."""
        window = self.intake.window * self.rules.span
        limits = [now - self.rules.stale - window] if self.rules.stale < now else []
        if self._there:
            limits.append(seconds_of(self._there[-1]) - window - self.intake.history * self.rules.span)
        return np.datetime64(int(max(limits)), "s").astype("datetime64[ns]") if limits else None

    def _place(self, frame: Frame) -> list[Path]:
        """Hold a frame; forecasts that drop out of the window because of it are decided first."""
        intake, series = self.intake, self.intake.series
        assert series is not None
        number, newest = series.number(frame.time), intake.newest
        made: list[Path] = []
        if newest is None:
            self._begin(number, number)
        elif number > newest:
            low = number - intake.window + 1
            made = self._decide(final=True, below=low)
            self.ledger.open(number)
            self._close(low)
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
        for moment in self._there[-2 * self.intake.window :]:
            try:
                there.add(series.number(moment))
            except Refusal:  # of another series, in the same folder
                continue
        first = max([first, *(n - self.intake.history + 1 for n in [max(there, default=None)] if n is not None)])
        self.ledger.begin(first, newest, there)

    def _take_over(self) -> list[Path]:
        """Frames of another grid have come in a row: end the accounts of this one and go on with that."""
        old, newest = self.intake.series, self.intake.newest
        assert old is not None
        made = self._decide(final=True)
        self.ledger.restart()
        self._given_up.clear()
        series = self.intake.take_over()
        later = [n for n in series.frames if newest is None or series.time(n) > old.time(newest)]
        last = max(series.frames)
        self._begin(min(later, default=last + 1), last)
        line = f"{len(series.frames)} frames in a row agree on another grid or phase, which is that of the watch now"
        self._note("takeover", line)
        return made

    def _decide(self, *, final: bool, below: int | None = None) -> list[Path]:
        """Make, skip or leave for later each forecast that is due (of steps below ``below``)."""
        series = self.intake.series
        made = []
        for number in sorted(series.frames) if series else []:
            if self.stopping or (below is not None and number >= below):
                break
            if self.ledger.is_due(number) and (path := self._decide_one(number, final)) is not None:
                made.append(path)
        return made

    def _decide_one(self, number: int, final: bool) -> Path | None:
        series, now = self.intake.series, self.clock()
        assert series is not None
        frame = series.frames[number]
        age = now - seconds_of(frame.time)
        if age > self.rules.stale:
            return self._end(number, SKIPPED, "stale", f"its newest frame is {age:.0f} s old")
        missing = series.missing(number, self.intake.history)
        waited = now >= frame.arrival + self.rules.waiting(self.maker.seconds)
        if missing and not (final or waited or self._given_up.issuperset(missing)):
            return None
        self._given_up.update(missing)
        for step in missing:
            if self.ledger.is_due(step):
                self._end(step, SKIPPED, "missing", "no frame of that time came")
        if not series.can_fill(missing, self.rules.fill):
            times = ", ".join(shown(series.time(n)) for n in missing)
            return self._end(number, SKIPPED, "history", f"{len(missing)} frames of its history are missing: {times}")
        return self._make(number, missing, final or now >= frame.arrival + self.rules.deadline)

    def _make(self, number: int, missing: Sequence[int], final: bool) -> Path | None:
        series = self.intake.series
        assert series is not None
        try:
            path = self.maker.make(series, number, missing)
        except OutputError as error:  # a full disk may have room again in a minute
            if final:
                return self._end(number, FAILED, "output", str(error))
            self._note("waiting", str(error))
            return None
        except CubecastError as error:
            return self._end(number, FAILED, "forecast", str(error))
        except Exception as error:
            logger.debug("a forecast failed", exc_info=True)
            return self._end(number, FAILED, "internal", f"{type(error).__name__}: {error}")
        self.ledger.set(number, MADE)
        return path

    def _end(self, number: int, what: str, reason: str, line: str) -> None:
        """Account for a forecast that is not made."""
        series = self.intake.series
        assert series is not None
        self.ledger.set(number, what, reason)
        self._note(what, f"{shown(series.time(number))}: {reason}: {line}")

    def _close(self, below: int) -> None:
        missing = self.ledger.close(below)
        self._given_up = {n for n in self._given_up if n >= below}
        if missing:
            assert self.intake.series is not None
            line = f"{missing} frames before {shown(self.intake.series.time(below))} did not come"
            self._note(SKIPPED, f"missing: {line}")

    def _note(self, what: str, line: str) -> None:
        logger.warning("%s: %s", what, line)
        self.report.note(self.clock(), what, line)

    def _retire(self) -> None:
        if self.rules.keep is not None:
            before = np.datetime64(int((self.clock() - self.rules.keep * _DAY) * 1e9), "ns")
            for name in self.outbox.retire(before):
                logger.info("removed %s, older than %g days", name, self.rules.keep)

    def _status(self, state: str) -> dict[str, Any]:
        now = self.clock()
        self.report.collect(now, self.intake, self.maker)
        return self.report.values(state, now, self.ledger, self.intake, self.maker)

    def _say(self, state: str) -> None:
        """Write the status; a full disk is no reason to stop watching."""
        try:
            self.outbox.write_status(self._status(state))
        except OutputError as error:
            logger.warning("%s", error)

    def _listen(self) -> dict[int, Any]:
        """Stop at SIGTERM and SIGINT; the handlers that were there before."""
        if threading.current_thread() is not threading.main_thread():
            return {}
        return {n: signal.signal(n, self._stop) for n in (signal.SIGTERM, signal.SIGINT)}

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.stopping:
            raise KeyboardInterrupt
        self.stopping = True
