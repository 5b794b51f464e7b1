"""The frames that are held: a few steps of one grid, what is missing among them, and the history of a forecast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from cubecast.cube import channel_units, cube_step, sequence_dim, with_frames
from cubecast.errors import InputError
from cubecast.forecast import check_step
from cubecast.nowcaster import Nowcaster
from cubecast.sources import open_cube
from cubecast.sources.blocks import read_frame
from cubecast.sources.joining import same_grid
from cubecast.sources.probe import SHARED
from cubecast.steps import Step

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame in memory, the file that it came from, and when that was there as a whole."""

    time: np.datetime64
    values: Array
    """([channel,] y, x)"""
    name: str
    mtime: int
    arrival: float


class Refusal(Exception):
    """A frame is not taken: a word to count it by, and a line that says why."""

    def __init__(self, word: str, line: str) -> None:
        super().__init__(line)
        self.word = word


def open_frames(path: Any, model: Nowcaster, variable: Any, *, read: int) -> xr.DataArray:
    """The lazy cube of one file, of the variables, units and step of ``model``; its last ``read`` frames are probed.

    Raises:
        InputError: it cannot be read, for example because it is still being copied.
        Refusal: it was read and does not fit.
    """
    SHARED.check(path, variable=variable, frames=read)
    cube = open_cube(path, variable=variable)
    try:
        model.check(cube)
    except InputError as error:
        raise Refusal("units", str(error)) from None
    try:
        if len(cube) > 1:
            check_step(cube, cube_step(cube), model.step)
    except InputError as error:
        raise Refusal("step", str(error)) from None
    return cube


def load_frame(cube: xr.DataArray, index: int, *, name: str, mtime: int, arrival: float) -> Frame:
    """One frame of a cube with its values.

    Raises:
        InputError: the values cannot be read.
        Refusal: not one of them was observed.
    """
    time, values = cube[sequence_dim(cube)].values[index], read_frame(cube, index)
    if not np.isfinite(values).any():
        raise Refusal("empty", f"{name}: no observed value at {shown(time)}")
    return Frame(time, np.array(values, dtype=np.result_type(values, np.float32)), name, mtime, arrival)


class Series:
    """Frames on one grid and one regular step, each under its number of steps from the first frame that came.

    Args:
        like: a cube of the first frame: its grid, names, units and time are those of the series.
        step: the step of the model.
    """

    def __init__(self, like: xr.DataArray, step: Step) -> None:
        dim = sequence_dim(like)
        self.origin = like[dim].values[0]
        self.like, self.step = like.isel({dim: slice(0, 0)}).load(), step
        self.frames: dict[int, Frame] = {}

    def number(self, time: np.datetime64) -> int:
        """Which step ``time`` is.

        Raises:
            Refusal: it lies between two steps.
        """
        try:
            return int(self.step.offsets(np.asarray([time]), self.origin)[0])
        except InputError as error:
            raise Refusal("step", str(error)) from None

    def check(self, cube: xr.DataArray) -> None:
        """Refuse a cube on another grid, or between the steps of this series.

        Raises:
            Refusal: what is different.
        """
        if not same_grid(self.like, cube) or channel_units(self.like).keys() != channel_units(cube).keys():
            found, held = ({str(k): v for k, v in c.sizes.items() if k != c.dims[0]} for c in (cube, self.like))
            raise Refusal("grid", f"found {found}, allowed: the grid and variables of the frames before ({held})")
        self.number(cube[sequence_dim(cube)].values[-1])

    def time(self, number: int) -> np.datetime64:
        """The time of a step: of its frame where there is one."""
        frame = self.frames.get(number)
        return self.step.add(np.array([self.origin]), number)[0] if frame is None else frame.time

    def missing(self, last: int, count: int) -> list[int]:
        """The steps without a frame among the ``count`` up to ``last``."""
        return [n for n in range(last + 1 - count, last + 1) if n not in self.frames]

    def can_fill(self, missing: list[int], most: int) -> bool:
        """Whether at most ``most`` are missing, each between two frames with no more than ``most`` missing between."""
        if len(missing) > most:
            return False
        around = [self._around(n) for n in missing]
        return all(pair is not None and pair[1] - pair[0] - 1 <= most for pair in around)

    def history(self, last: int, count: int) -> xr.DataArray:
        """The cube of the ``count`` steps up to ``last``; a missing one is interpolated linearly in time.

        Between frames a and b, n of m steps after a: ``a + (b - a) n / m``, pixel by pixel; missing where one of the
        two is. Its ``encoding['source']`` names the files.
        """
        numbers = range(last + 1 - count, last + 1)
        values = np.stack([self._values(n) for n in numbers])
        cube = with_frames(self.like, [self.time(n) for n in numbers], values)
        cube.encoding["source"] = ", ".join(self.frames[n].name for n in numbers if n in self.frames)
        return cube

    def drop(self, below: int) -> None:
        """Forget the frames of all steps below ``below``."""
        for number in [n for n in self.frames if n < below]:
            del self.frames[number]

    def _around(self, number: int) -> tuple[int, int] | None:
        before, after = [n for n in self.frames if n < number], [n for n in self.frames if n > number]
        return (max(before), min(after)) if before and after else None

    def _values(self, number: int) -> Array:
        if number in self.frames:
            return self.frames[number].values
        around = self._around(number)
        assert around is not None, "can_fill was not asked"
        before, after = (self.frames[n].values for n in around)
        return before + (after - before) * np.float32((number - around[0]) / (around[1] - around[0]))


def shown(time: np.datetime64) -> str:
    """A time for people and programs: ISO 8601, UTC."""
    return f"{time.astype('datetime64[s]')}Z"


def seconds_of(moment: np.datetime64) -> float:
    """Seconds since 1970 of a time."""
    return float(moment.astype("datetime64[ns]").astype(np.int64)) / 1e9
