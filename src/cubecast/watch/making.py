"""One forecast of a watch: made, said what it was made from, written, pointed to, drawn."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from cubecast.errors import one_line
from cubecast.memory import give_back
from cubecast.nowcaster import Nowcaster
from cubecast.watch.outbox import MARK, Outbox
from cubecast.watch.rules import Rules
from cubecast.watch.series import Series, seconds_of, shown
from cubecast.write import read_forecast, write_forecast

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Made:
    """The last forecast that was made."""

    reference: np.datetime64
    path: Path
    at: float
    seconds: float
    age: float
    met: bool
    filled: tuple[np.datetime64, ...]


class Maker:
    """Makes forecasts one at a time and remembers the last."""

    def __init__(
        self, model: Nowcaster, outbox: Outbox, rules: Rules, clock: Callable[[], float], options: dict[str, Any]
    ) -> None:
        self.model, self.outbox, self.rules, self.clock, self.options = model, outbox, rules, clock, options
        self.last: Made | None = None
        self.met = self.missed = 0
        self.problems: list[str] = []
        """Maps and links that could not be made since the last time that somebody took these lines."""
        self._latest: np.datetime64 | None = None

    @property
    def seconds(self) -> float:
        """How long the last forecast took, from history to file."""
        return self.last.seconds if self.last else 0.0

    def make(self, series: Series, number: int, missing: Sequence[int]) -> Path:
        """Forecast after step ``number`` of a series and write it.

        Raises:
            CubecastError: what `Nowcaster.predict` and `write_forecast` raise.
        """
        begin, frame = time.perf_counter(), series.frames[number]
        age = self.clock() - seconds_of(frame.time)
        cube = series.history(number, self.model.config.task.history)
        forecast = self.model.predict(cube, at=[frame.time], **self.options)
        filled = tuple(series.time(n) for n in missing)
        forecast = forecast.assign_attrs(self._attrs(frame.time, age, filled))
        path = self.outbox.forecast_path(frame.time)
        write_forecast(forecast, path)
        done = self.clock()
        met = bool(done <= frame.arrival + self.rules.deadline)
        self.met, self.missed = self.met + met, self.missed + (not met)
        self.last = Made(frame.time, path, done, time.perf_counter() - begin, age, met, filled)
        logger.info("%s in %.1f s, deadline %s", path, self.last.seconds, "met" if met else "missed")
        is_latest = self._latest is None or bool(frame.time >= self._latest)
        self._latest = frame.time if is_latest else self._latest
        if is_latest:
            self._try("latest", lambda: self.outbox.point(path))
        if self.rules.maps:
            whole = read_forecast(path) if forecast.chunks else forecast  # what is lazy would be forecast once more
            self._try("maps", lambda: self._draw(whole, frame.time, is_latest))
        return path

    def catch_up(self, there: Sequence[np.datetime64]) -> None:
        """What an earlier run may have left undone for its newest forecast: the link to it and its maps."""
        if not there:
            return
        newest, path = there[-1], self.outbox.forecast_path(there[-1])
        self._latest = newest
        self._try("latest", lambda: self.outbox.point(path))
        if self.rules.maps and not self.outbox.maps_path(newest).is_dir():
            self._try("maps", lambda: self._draw(read_forecast(path), newest, True))

    def _draw(self, forecast: xr.Dataset, reference: np.datetime64, is_latest: bool) -> None:
        from cubecast.maps import draw_maps

        with self.outbox.maps(reference) as folder:
            draw_maps(forecast, folder)
        _give_back()
        if is_latest:
            self.outbox.point(self.outbox.maps_path(reference))

    def _try(self, what: str, work: Callable[[], None]) -> None:
        """The forecast is there: nothing that comes after it may stop the watch."""
        try:
            work()
        except Exception as error:
            line = one_line(error)
            self.problems.append(f"{what}: {line}")
            logger.warning("%s could not be made: %s", what, line)

    def _attrs(self, reference: np.datetime64, age: float, filled: Sequence[np.datetime64]) -> dict[str, Any]:
        """What the file says of its making; CF leaves these names to us (``date_created`` and ``creator`` are ACDD)."""
        made = datetime.fromtimestamp(self.clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        comment = f"The newest frame, of {shown(reference)}, was {age:.0f} s old when this forecast was made."
        if filled:
            times = ", ".join(shown(t) for t in filled)
            comment += f" No frame had come for {times}: interpolated linearly in time between the frames around."
        return {
            "creator": MARK,
            "date_created": made,
            "newest_frame_time": shown(reference),
            "newest_frame_age_seconds": float(round(age, 3)),
            "filled_frames": " ".join(shown(t) for t in filled) or "none",
            "filled_frames_count": len(filled),
            "comment": comment,
        }


def _give_back() -> None:
    """Give the memory of drawing back: figures are cycles, which Python keeps for long, and the C library after it."""
    gc.collect()
    give_back()
