"""Which slices of a cube are samples: windows, their split by time, and crops that favour rain.

A window is made before any value is read and survives JSON. None crosses a gap or the split between training and
validation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import xarray as xr

from cubecast.cube import CHANNEL, iter_blocks, positions, sequence_dim, space_dims, window_starts
from cubecast.errors import InputError, UsageError
from cubecast.progress import Progress, follow
from cubecast.sharing import ALL, Share

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Window:
    """``length`` consecutive frames of a cube, and the part of the field that is taken.

    ``start`` is the index of the first frame in cube number ``cube``. ``y`` and ``x`` are the corner of a square crop
    of side ``crop``; None takes the whole field. A crop that is longer than the grid in one dimension starts at 0
    there and ends with the grid, so that the sample is not square.
    """

    cube: int
    start: int
    length: int
    y: int | None = None
    x: int | None = None
    crop: int | None = None

    def indexers(self, cube: xr.DataArray) -> dict[str, slice]:
        """The slices that cut this window out of its cube: ``cube.isel(window.indexers(cube))``."""
        box = {sequence_dim(cube): slice(self.start, self.start + self.length)}
        space = space_dims(cube)
        if self.crop is None or self.y is None or self.x is None:
            return box
        if len(space) != 2:
            raise UsageError("crop of a point series", found=f"dims {cube.dims}", allowed="two space dims")
        for dim, corner in zip(space, (self.y, self.x), strict=True):
            box[dim] = slice(corner, min(corner + self.crop, cube.sizes[dim]))
        return box

    def to_json(self) -> dict[str, int | None]:
        """As plain JSON values; `from_json` is the inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The window that `to_json` wrote.

        Raises:
            InputError: fields are missing, unknown or not whole numbers.
        """
        optional = {"y", "x", "crop"}
        whole = all(type(v) is int or (v is None and k in optional) for k, v in values.items())
        try:
            if whole:
                return cls(**values)
        except TypeError:
            pass
        raise InputError("a window", found=dict(values), allowed="cube, start, length [, y, x, crop] as whole numbers")


def find_windows(cube: xr.DataArray, *, length: int, stride: int = 1, index: int = 0) -> list[Window]:
    """All windows of ``length`` frames, ``stride`` steps apart, none of which crosses a gap.

    Args:
        cube: only its sequence coordinate is looked at.
        length: frames in a window (history + horizon).
        stride: steps between the starts of neighbouring windows; counted anew after every gap.
        index: number of this cube in the list that windows refer to.

    Raises:
        UsageError: a length or stride below 1.
        InputError: the sequence is irregular.
    """
    _check_positive(length=length, stride=stride)
    return [Window(index, int(s), length) for s in _strided(window_starts(cube, length), stride)]


def split_windows(
    cubes: Sequence[xr.DataArray], *, length: int, validation: float, stride: int = 1
) -> tuple[list[Window], list[Window]]:
    """Windows for training and for validation, split by time in every cube.

    The last ``max(validation * frames, length)`` frames of a cube validate (more when gaps leave no window in them).
    At least ``length`` steps, the embargo, lie between the last training frame and the first validation frame, so
    that no weather is in both. A cube too short for a window on either side trains whole.

    Args:
        cubes: the cubes; `Window.cube` is the place in this list.
        length: frames in a window.
        validation: share of the frames of each cube, between 0 and 1.
        stride: steps between the starts of neighbouring windows.

    Returns:
        Training windows and validation windows; neither is empty.

    Raises:
        UsageError: a share outside (0, 1), or a length or stride below 1.
        InputError: no cube is long enough for a window, or none for a split.
    """
    _check_positive(length=length, stride=stride)
    if not 0 < validation < 1:
        raise UsageError("validation", found=validation, allowed="a share between 0 and 1")
    training: list[Window] = []
    validating: list[Window] = []
    for index, cube in enumerate(cubes):
        starts = window_starts(cube, length)
        held = _split(positions(cube), starts, length=length, validation=validation)
        early, late = (starts, starts[:0]) if held is None else (starts[: held[0]], starts[held[1] :])
        training += [Window(index, int(s), length) for s in _strided(early, stride)]
        validating += [Window(index, int(s), length) for s in _strided(late, stride)]
    if not validating:
        longest = max((len(cube) for cube in cubes), default=0)
        raise InputError(
            "no window to validate on" if training else "no window to train on",
            found=f"at most {longest} frames in a cube",
            allowed=f"training window, embargo and validation window of {length} frames each, without gaps",
            remedy="shorten history or horizon, give longer cubes, or give validation cubes of their own",
        )
    return training, validating


def _split(place: Array, starts: Array, *, length: int, validation: float) -> tuple[int, int] | None:
    """How many window starts train, and which is the first that validates; None when there is no room for both."""
    if not len(starts):
        return None
    frames = len(place)
    first = min(frames - max(int(validation * frames), length), int(starts[-1]))
    trained = int(np.searchsorted(place, place[first] - length, side="left"))  # frames before the embargo
    early = int(np.searchsorted(starts, trained - length, side="right"))
    return (early, int(np.searchsorted(starts, first))) if early > 0 else None


def _strided(starts: Array, stride: int) -> Array:
    """Every ``stride``-th of each run of consecutive starts."""
    if not len(starts):
        return starts
    runs = np.concatenate([[0], np.flatnonzero(np.diff(starts) != 1) + 1])
    run = np.repeat(runs, np.diff(np.append(runs, len(starts))))
    return starts[(np.arange(len(starts)) - run) % stride == 0]


def wet_map(
    cube: xr.DataArray, *, threshold: float, block: int, progress: Progress | None = None, share: Share = ALL
) -> Array:
    """Share of wet pixels in every tile of every frame, read block by block (bounded memory).

    Args:
        cube: one variable, dims (time, y, x).
        threshold: a pixel is wet at or above it (cube units; a millionth less counts, as packed values are rounded).
            Missing pixels are not wet.
        block: side of the square tiles in pixels; tiles at the far edges are smaller.
        progress: shows a bar.
        share: processes that read a part of the cube each, and all get the whole map.

    Returns:
        (time, ceil(ny / block), ceil(nx / block)) float32.

    Raises:
        UsageError: not a single field variable, or a block below 1.
    """
    _check_positive(block=block)
    if CHANNEL in cube.dims or len(space_dims(cube)) != 2:
        raise UsageError(
            "wet map", found=f"dims {cube.dims}", allowed="(time, y, x)", remedy="select one variable of a field"
        )
    frames, ny, nx = cube.shape
    edges_y, edges_x = np.arange(0, ny, block), np.arange(0, nx, block)
    area = np.outer(np.diff(edges_y, append=ny), np.diff(edges_x, append=nx))
    limit = threshold - abs(threshold) * 1e-6
    wet = np.zeros((frames, len(edges_y), len(edges_x)), np.float32)
    for part, values in follow(iter_blocks(cube, share), "finding rain", None, progress):
        rows = np.add.reduceat(values >= limit, edges_y, axis=1, dtype=np.float32)
        wet[part] = np.add.reduceat(rows, edges_x, axis=2) / area
    return share.add(wet)


def draw_crops(
    window: Window,
    wet: Array,
    *,
    count: int,
    grid: tuple[int, int],
    crop: int,
    block: int,
    wet_bias: float,
    rng: np.random.Generator,
) -> list[Window]:
    """``window`` with each of ``count`` random crops, more often where it rains.

    The chance of a corner c is ``(1 - b) / N + b * w(c) / sum(w)``, with b = ``wet_bias``, N the number of corners
    inside the grid, and w(c) the wet share of the crop at c over the window's frames, taken as even within each tile
    of ``wet``. Without any rain all corners are equally likely. Corners may lie anywhere, not only on tile edges.

    Args:
        window: a window of whole fields.
        wet: the cube's `wet_map` for the same ``block``.
        count: how many crops.
        grid: (ny, nx) of the cube.
        crop: side of the crop in pixels; in a dimension that is shorter, the whole of it is taken.
        block: side of the tiles of ``wet`` in pixels.
        wet_bias: 0 (anywhere) to 1 (by rain alone).
        rng: the same state draws the same crops.

    Returns:
        The window with each crop, or unchanged when the crop is not smaller than the field.

    Raises:
        UsageError: a wet map of another grid, a bias outside [0, 1], or a crop or count below 1.
    """
    _check_positive(crop=crop, block=block, count=count)
    tiles = tuple(-(-n // block) for n in grid)
    if wet.shape[1:] != tiles:
        raise UsageError("wet map", found=f"tiles {wet.shape[1:]}", allowed=f"{tiles} for a grid of {grid}")
    if not 0 <= wet_bias <= 1:
        raise UsageError("wet_bias", found=wet_bias, allowed="0 to 1")
    if crop >= max(grid):
        return [window] * count
    corners = np.stack([rng.integers(max(n - crop, 0) + 1, size=count) for n in grid])
    by_rain = np.flatnonzero(rng.random(count) < wet_bias)
    if len(by_rain):
        rain = wet[window.start : window.start + window.length].sum(axis=0)
        if rain.any():
            corners[:, by_rain] = _wet_corners(rain, len(by_rain), grid=grid, crop=crop, block=block, rng=rng)
    return [replace(window, y=y, x=x, crop=crop) for y, x in corners.T.tolist()]


def _wet_corners(
    rain: Array, count: int, *, grid: tuple[int, int], crop: int, block: int, rng: np.random.Generator
) -> Array:
    """Corners (y or x, count) in proportion to the rain in their crops; ``rain`` is even within each tile.

    A pixel is drawn by its rain times the number of crops that hold it, and then one of these crops: this is fair to
    the edges of the grid too. That number is a product over y and x.
    """
    summed = [np.cumsum([0, *_cover(n, crop)]) for n in grid]
    edges = [np.append(np.arange(0, n, block), n) for n in grid]
    per_tile = [np.diff(s[e]) for s, e in zip(summed, edges, strict=True)]
    tiles = np.unravel_index(
        _draw(np.cumsum(rain * np.outer(*per_tile), dtype=np.float64), 0.0, 1.0, count, rng), rain.shape
    )
    corners = []
    for tile, cover, edge, size in zip(tiles, summed, edges, grid, strict=True):
        low, high = (cover[edge[tile + i]] / cover[-1] for i in (0, 1))
        pixel = _draw(cover[1:], low, high, count, rng)
        corners.append(rng.integers(np.maximum(pixel - crop + 1, 0), np.minimum(pixel, max(size - crop, 0)) + 1))
    return np.stack(corners)


def _cover(size: int, crop: int) -> Array:
    """How many crops along one dimension hold each pixel."""
    pixel = np.arange(size)
    return np.minimum(pixel, max(size - crop, 0)) - np.maximum(pixel - crop + 1, 0) + 1


def _draw(cumulative: Array, low: Array | float, high: Array | float, count: int, rng: np.random.Generator) -> Array:
    """Indices with the chances whose running sum is given, from the part of it between two shares."""
    share = low + (high - low) * rng.random(count)
    return np.searchsorted(cumulative, share * cumulative[-1], side="right").clip(max=len(cumulative) - 1)


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise UsageError(name, found=value, allowed="1 or more")
