"""From files in a folder to frames that are held: what is opened, what is refused and why, what replaces what."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

import numpy as np
import xarray as xr

from cubecast.cube import sequence_dim
from cubecast.errors import one_line
from cubecast.nowcaster import Nowcaster
from cubecast.watch.folder import Folder
from cubecast.watch.rules import Rules
from cubecast.watch.series import Frame, Refusal, Series, load_frame, open_frames, seconds_of, shown

logger = logging.getLogger(__name__)


class Intake:
    """Reads files that are at rest and places their frames in a series.

    Args:
        folder: where the files come.
        model: what they must fit.
        rules: the rules of the watch.
        variable: as in `cubecast.open_cube`.
        once: whether there will be no second try.
    """

    def __init__(
        self, folder: Folder, model: Nowcaster, rules: Rules, *, variable: str | Sequence[str] | None, once: bool
    ) -> None:
        self.folder, self.model, self.rules, self.variable, self.once = folder, model, rules, variable, once
        self.history = model.config.task.history
        self.window = 2 * self.history + rules.fill
        """How many steps are held, so that frames that come late find the history before them."""
        self.series: Series | None = None
        self._rival: Series | None = None
        self.opened = 0
        self.taken = 0
        self.refused: Counter[str] = Counter()
        self.notes: list[str] = []
        """What was refused since the last time that somebody took these lines."""

    @property
    def newest(self) -> int | None:
        """The step of the newest frame."""
        return max(self.series.frames) if self.series and self.series.frames else None

    def wanted(self, names: list[str], since: np.datetime64 | None) -> list[str]:
        """Those of ``names`` that may hold frames from ``since`` on; the others are not opened.

        Names are tried from the last one back: names in the order of time are what this relies on. When as many
        files in a row as a history has frames are too old, so are all before them.
        """
        if len(names) <= self.window or since is None:
            return names
        kept: list[str] = []
        old: list[str] = []
        for name in reversed(names):
            if self._is_before(name, since):
                old.append(name)
                if len(old) >= self.history:
                    break
            else:
                kept += [*reversed(old), name]
                old = []
        for name in set(names) - set(kept):
            self.folder.done(name)
        return sorted(kept)

    def read(self, name: str, now: float) -> list[Frame]:
        """The frames of a file that are to be placed, oldest first; none when it is refused or to be tried again."""
        seen = self.folder.seen[name]
        self.opened += 1
        frames: list[Frame] = []
        try:
            cube = open_frames(self.folder.path / name, self.model, self.variable, read=self.window)
            misfit = self._misfit(cube)
            series = self.series if self.series is not None and misfit is None else Series(cube, self.model.step)
            frames = self._load(cube, name, now, series)
            if misfit is not None:
                self._remember(cube, frames)
                raise misfit
            if self.series is None and frames:
                self.series = series
        except Refusal as refusal:
            self._refuse(refusal.word, name, str(refusal))
            frames = []
        except Exception as error:  # libraries raise nearly anything for a file that is cut off
            line = one_line(error)
            if now - seen.changed < self.rules.patience and not self.once:
                logger.info("%s is tried again: %s", name, line)
                return []
            self._refuse("unreadable", name, line)
            frames = []
        self.folder.done(name)
        return frames

    def place(self, frame: Frame, *, is_settled: bool) -> int | None:
        """Hold a frame; its step, or None when another frame of that time, or a newer window, stands against it.

        Args:
            frame: of this series.
            is_settled: whether a forecast after its time was made before.
        """
        assert self.series is not None
        number, newest = self.series.number(frame.time), self.newest
        held = self.series.frames.get(number)
        if held is not None and held.name == frame.name and np.array_equal(held.values, frame.values, equal_nan=True):
            return None  # a file that grows: its first frames are known
        if newest is not None and number <= newest - self.window:
            self._refuse("late", frame.name, f"{shown(frame.time)} is {newest - number} steps behind the newest frame")
            return None
        if held is not None:
            self._refuse("duplicate", frame.name, _said(frame, held, is_settled))
            if is_settled or frame.mtime < held.mtime:
                return None
        self.series.frames[number] = frame
        self.taken += held is None
        return number

    @property
    def has_rival(self) -> bool:
        """Whether as many frames of another series as a history has came in a row."""
        return self._rival is not None and len(self._rival.frames) >= self.history

    def take_over(self) -> Series:
        """Go on with the series of those frames."""
        assert self._rival is not None
        self.series, self._rival = self._rival, None
        return self.series

    def _misfit(self, cube: xr.DataArray) -> Refusal | None:
        """Why a cube is not of the series."""
        try:
            if self.series is not None:
                self.series.check(cube)
        except Refusal as refusal:
            return refusal
        self._rival = None
        return None

    def _load(self, cube: xr.DataArray, name: str, now: float, series: Series) -> list[Frame]:
        """The last frames of a cube, as many as are held at most, without those that are refused."""
        seen, frames = self.folder.seen[name], []
        for index in range(max(0, len(cube) - self.window), len(cube)):
            try:
                frame = load_frame(cube, index, name=name, mtime=seen.mtime, arrival=seen.changed)
                self._check_future(frame, now)
                series.number(frame.time)
                frames.append(frame)
            except Refusal as refusal:
                self._refuse(refusal.word, name, str(refusal))
        return frames

    def _remember(self, cube: xr.DataArray, frames: Sequence[Frame]) -> None:
        """Hold the frames of another grid: they may be the series of tomorrow."""
        if self._rival is None or not _agrees(self._rival, cube):
            self._rival = Series(cube, self.model.step)
        for frame in frames:
            self._rival.frames[self._rival.number(frame.time)] = frame
        self._rival.drop(max(self._rival.frames, default=0) - self.window + 1)

    def _check_future(self, frame: Frame, now: float) -> None:
        ahead = seconds_of(frame.time) - now
        if ahead > self.rules.span:
            raise Refusal("future", f"{frame.name}: {shown(frame.time)} is {ahead:.0f} s ahead of the clock")

    def _is_before(self, name: str, since: np.datetime64) -> bool:
        """Whether all frames of a file are older; a file that cannot be read is looked at in its turn."""
        self.opened += 1
        try:
            cube = open_frames(self.folder.path / name, self.model, self.variable, read=0)
            return bool(cube[sequence_dim(cube)].values[-1] < since)
        except Exception:
            return False

    def _refuse(self, word: str, name: str, line: str) -> None:
        self.refused[word] += 1
        self.notes.append(f"{name}: {word}: {line}")
        logger.warning("%s is not taken (%s): %s", name, word, line)


def _agrees(series: Series, cube: xr.DataArray) -> bool:
    try:
        series.check(cube)
    except Refusal:
        return False
    return True


def _said(frame: Frame, held: Frame, is_settled: bool) -> str:
    if is_settled:
        return f"a forecast after {shown(frame.time)} was made with {held.name}"
    older = f"{frame.name} is older" if frame.mtime < held.mtime else f"{held.name} is replaced"
    return f"{shown(frame.time)} is in {held.name} too; {older}"
