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

from cubecast.errors import InputError, OutputError
from cubecast.nowcaster import Nowcaster
from cubecast.watch.folder import Folder
from cubecast.watch.intake import Intake
from cubecast.watch.ledger import FAILED
from cubecast.watch.making import Maker
from cubecast.watch.outbox import Outbox
from cubecast.watch.planner import Planner
from cubecast.watch.rules import Rules
from cubecast.watch.series import seconds_of
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
        options: further arguments of `Nowcaster.predict`: horizon, static, precision, members, seed, memory.

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
        self.planner = Planner(self.intake, self.maker, rules, clock=clock, note=self._note)
        self.report = Report(rules, clock())

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
                state = "stopped" if self.planner.stopping else "ended"
            except KeyboardInterrupt:
                state = "stopped"
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)
                self._say(state)
        return self.planner.ledger.total(FAILED)

    def start(self) -> None:
        """Find what earlier runs made, remove what they left behind, and finish what they had begun.

        Raises:
            OutputError: the output folder cannot be written.
        """
        for name in self.outbox.clean():
            logger.info("removed %s, which a killed writer had left", name)
        self.planner.there = self.outbox.times()
        self.outbox.write_status(self._status("starting"))
        self.maker.catch_up(self.planner.there)
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
            if self.planner.stopping:
                break
            for frame in self.intake.read(name, now):
                made += self.planner.place(frame)
            if self.intake.has_rival:
                made += self.planner.take_over()
        made += self.planner.decide(final=self.once)
        if self.once and self.intake.newest is not None and not self.planner.stopping:
            self.planner.close(self.intake.newest)
        if made:
            self._retire()
        self._say("watching")
        return made

    def _cycles(self) -> Iterator[Path]:
        """All forecasts, one cycle after the other; two looks tell which files are at rest."""
        looks = 0
        while not self.planner.stopping:
            yield from self.cycle()
            looks += 1
            if self.once and looks > 1:
                return
            end = time.monotonic() + self.rules.poll
            while not self.planner.stopping and (left := end - time.monotonic()) > 0:
                time.sleep(min(left, _SLICE))

    def _since(self, now: float) -> np.datetime64 | None:
        """Frames before this time can be of no use: neither for a forecast that is due nor for its history."""
        window = self.intake.window * self.rules.span
        limits = [now - self.rules.stale - window] if self.rules.stale < now else []
        if self.planner.there:
            limits.append(seconds_of(self.planner.there[-1]) - window - self.intake.history * self.rules.span)
        return np.datetime64(int(max(limits)), "s").astype("datetime64[ns]") if limits else None

    def _note(self, what: str, line: str) -> None:
        logger.warning("%s: %s", what, line)
        self.report.note(self.clock(), what, line)

    def _retire(self) -> None:
        if self.rules.keep is not None:
            before = np.datetime64(int(max(0.0, self.clock() - self.rules.keep * _DAY) * 1e9), "ns")
            for name in self.outbox.retire(before):
                logger.info("removed %s, older than %g days", name, self.rules.keep)

    def _status(self, state: str) -> dict[str, Any]:
        now = self.clock()
        self.report.collect(now, self.intake, self.maker)
        return self.report.values(state, now, self.planner.ledger, self.intake, self.maker)

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
        if self.planner.stopping:
            raise KeyboardInterrupt
        self.planner.stopping = True
