"""Forecasts of grids that memory does not hold: tile by tile, lazily, as the file that they go to takes them."""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed
from dask.utils import parse_bytes
from torch import nn

from cubecast.channels import Array
from cubecast.errors import UsageError
from cubecast.forecast import AT_ONCE, MEMBERS, Run, run_whole
from cubecast.memory import give_back
from cubecast.nn import Lagrangian, count_bytes
from cubecast.nn.box import Box
from cubecast.nn.motion import BAND, finest_level
from cubecast.nn.parts import Parts, near
from cubecast.nn.trajectories import Trajectories
from cubecast.progress import Progress
from cubecast.shapes import Forecast, Noise

MEMORY = "4GB"
"""What a forecast may take; one number for all machines, so that the same forecast is made the same way on each."""
PROGRAM = 500_000_000
"""Bytes that Python, the libraries and a small model take."""
FILES = 200_000_000
"""Bytes that the libraries of files take where a forecast is written as it is made."""
WAYS = 8
"""Bytes a pixel of the motion within several windows, which all tiles follow."""
SLACK = 2.0
"""What convolutions need for themselves, and memory that is free in pieces, as a factor."""
OVERLAP = 16
"""Pixels within which one tile turns into the next."""
SPEED = 5
"""Pixels a step that the air of a tile is expected to come from beyond it; where it comes from further, it is cut."""
SMALLEST = 64
"""Side of the smallest tile."""
_BYTES: weakref.WeakKeyDictionary[nn.Module, dict[Any, int]] = weakref.WeakKeyDictionary()  # looking takes its time
_TURN = threading.Lock()
"""One tile at a time, in whatever thread."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a grid is cut.

    Attributes:
        side: of the tiles, in pixels.
        window: pixels that a network may be run on at once.
        lazy: whether the forecast is left to be computed when it is written.
        halo: see `cubecast.nn.parts.Parts`.
    """

    side: int
    window: int
    lazy: bool
    halo: int | None = None


def parse_memory(memory: int | str | None) -> int:
    """Bytes of a number or of text such as ``2GB``; None: `MEMORY`.

    Raises:
        UsageError: neither.
    """
    try:
        return int(parse_bytes(MEMORY if memory is None else memory))
    except (ValueError, TypeError, AttributeError):
        raise UsageError("memory", found=repr(memory), allowed="bytes, or text such as 2GB or 500MB") from None


def run_within(
    run: Run,
    index: Sequence[int],
    *,
    memory: int | str | None,
    attrs: Mapping[str, Any],
    progress: Progress | None = None,
) -> xr.Dataset:
    """The forecast Dataset after the frames at ``index``, of the whole grid at once where memory suffices, else tiled.

    The tiled forecast is the same but for rounding (`near`). It is lazy (dask) where it does not fit into the memory.

    Args:
        run: what to run.
        index: of the last frame of each history.
        memory: of the whole process: bytes, or text such as ``2GB``; None: `MEMORY`.
        attrs, progress: as in `cubecast.forecast.run_whole`.

    Raises:
        InputError: a history without a single observed value.
        UsageError: less memory than the smallest tile takes.
    """
    tiling = choose_tiling(run, len(index), memory=parse_memory(memory))
    if tiling is None:
        return run_whole(run, index, attrs=attrs, progress=progress)
    return run_tiled(run, index, tiling, attrs=attrs, progress=progress)


def blank(run: Run, references: Array, *, memory: int | str | None, attrs: Mapping[str, Any]) -> xr.Dataset:
    """What `run_within` would return before anything is forecast: missing values, lazy, in chunks of its tiles."""
    tiling = choose_tiling(run, 1, memory=parse_memory(memory))
    shape = (len(references), *run.shape, *run.size)
    chunks = shape if tiling is None else (*shape[:-2], min(tiling.side, shape[-2]), shape[-1])
    values = [da.full(shape, np.float32(np.nan), chunks=chunks) for _ in run.names]
    return run.dress(values, references, attrs)


def choose_tiling(run: Run, count: int, *, memory: int) -> Tiling | None:
    """The tiles that ``count`` forecasts need, as few as memory allows; None: none.

    Raises:
        UsageError: less memory than the smallest tile takes, or a network that cannot be run on parts of a grid.
    """
    if len(run.size) != 2:
        return None
    ny, nx = run.size
    field = 4 * len(run.names) * math.prod(run.shape)
    result = field * ny * nx * count
    if ny * nx <= (4 * SMALLEST) ** 2 and 4 * result <= memory:  # too small to be worth a look
        return None
    pixel = _bytes_a_pixel(run)
    if PROGRAM + pixel * ny * nx + result <= memory:
        return None
    parts = Parts(run.network, (ny, nx), history=run.history, horizon=run.horizon)
    halo = near(parts.halo)
    lazy, motion = 3 * result > memory, _bytes_for_motion(run)
    ways = WAYS * ny * nx if motion else 0

    def window(side: int) -> int:
        around = side + OVERLAP + 2 * halo + 2 * parts.multiple + SPEED * (run.history + run.horizon)
        around = around * 17 // 16  # see Box.rounded
        return min(ny, around) * min(nx, around)

    def need(side: int) -> float:
        bands = 2 * field * min(ny, side + OVERLAP) * nx  # one is forecast, one is written
        return PROGRAM + max(motion, pixel * window(side) + bands + ways) + (FILES if lazy else result)

    side, number = 16 * math.ceil(max(ny, nx) / 16), 1
    while need(side) > memory and side > SMALLEST:
        number += 1
        side = max(SMALLEST, 16 * math.ceil(max(ny, nx) / number / 16))
    if need(side) > memory:
        raise UsageError(
            "memory",
            found=f"{memory / 1e9:.3g} GB",
            allowed=f"{math.ceil(need(side) / 1e7) / 100:.4g} GB or more for this model on a grid of {ny} x {nx}",
        )
    return Tiling(side, window(side), lazy, halo)


def run_tiled(
    run: Run, index: Sequence[int], tiling: Tiling, *, attrs: Mapping[str, Any], progress: Progress | None = None
) -> xr.Dataset:
    """The forecast Dataset after the frames at ``index``, tile by tile; see `run_within`."""
    tiles = _Tiles(run, tiling, len(index), progress)
    values = da.stack([tiles.lazy(last) for last in index])
    forecast = run.dress([values[:, c] for c in range(len(run.names))], run.references(index), attrs)
    return forecast if tiling.lazy else forecast.compute()


@final
class _Tiles:
    """Tiles of forecasts, in rows from one side of the grid to the other: bands.

    Neighbours overlap, and their weights there, sin^2 and cos^2, add up to 1. What a band has of the next one's rows is
    handed on to it, so that each tile is forecast once.
    """

    def __init__(self, run: Run, tiling: Tiling, count: int, progress: Progress | None) -> None:
        self.run, self.tiling = run, tiling
        ny, nx = run.size
        self.parts = Parts(
            run.network,
            (ny, nx),
            history=run.history,
            horizon=run.horizon,
            halo=tiling.halo,
            steady=run.members is None,
        )
        self.rows, self.columns = _spans(ny, tiling.side), _spans(nx, tiling.side)
        total = count * len(self.rows) * len(self.columns)
        self._done: Iterator[Any] = iter(() if progress is None else progress(range(total), "forecasting tiles", total))

    def lazy(self, last: int) -> da.Array:
        """The forecast after one reference ([output, member,] horizon, y, x)."""
        paths, below, bands = delayed(self.follow, pure=False)(last), None, []
        for rows in self.rows:
            band, below = delayed(self.band, pure=False, nout=2)(last, rows, paths, below)
            bands.append(self._leads(band, rows))
        return da.concatenate(bands, axis=-2)

    def _leads(self, band: Any, rows: slice) -> da.Array:
        """A band lead by lead: a writer makes copies of what it writes."""
        shape = (len(self.run.names), *self.run.shape[:-1], 1, rows.stop - rows.start, self.run.size[1])
        leads = [delayed(_lead, pure=False)(band, n) for n in range(self.run.horizon)]
        return da.concatenate([da.from_delayed(one, shape, np.float32) for one in leads], axis=-3)

    def follow(self, last: int) -> Trajectories | None:
        """The way of the air of a history, which is seen to have observed values."""
        seen = False

        def frames() -> Iterator[Any]:
            nonlocal seen
            for number in range(last + 1 - self.run.history, last + 1):
                values, observed = self.run.read_frame(number)
                seen = seen or bool(observed.any())
                yield values, observed

        with _TURN:
            paths = self.parts.follow(frames())
            if paths is None:
                any(seen for _ in frames())  # as far as the first frame that has something
            self.run.check_observed(last, seen)
            return paths

    def band(
        self, last: int, rows: slice, paths: Trajectories | None, above: Array | None
    ) -> tuple[Array, Array | None]:
        """One row of tiles, and what it knows of the next one's first rows."""
        ny, nx = self.run.size
        end = min(rows.stop + OVERLAP, ny)
        out = np.zeros((len(self.run.names), *self.run.shape, end - rows.start, nx), np.float32)
        with _TURN:
            for columns in self.columns:
                part = Box(rows.start, end, columns.start, min(columns.stop + OVERLAP, nx))
                out[..., part.slices[1]] += self._part(last, part, paths) * _weights(columns, part.x1)
                next(self._done, None)
        out *= _weights(rows, end)[:, None]
        if above is not None:
            out[..., : above.shape[-2], :] += above
        size = rows.stop - rows.start
        return out[..., :size, :], out[..., size:, :].copy() if end > rows.stop else None

    def _part(self, last: int, part: Box, paths: Trajectories | None) -> Array:
        """The forecast of a part of the grid; in two halves where its air comes from too far away."""
        windows = self.parts.windows(part, paths)
        if windows.read.area > self.tiling.window and max(part.shape) > SMALLEST:
            one, other = part.halves()
            axis = -2 if one.x1 == part.x1 else -1
            return np.concatenate([self._part(last, one, paths), self._part(last, other, paths)], axis=axis)
        give_back()
        frames, seen = self.run.crop(*windows.read.slices).read(last)

        def forecast(noise: Noise | None) -> Forecast:
            return self.parts.forecast(frames, windows, paths, noise)

        like = frames[:1, :1, :1, :1, :1].expand(-1, -1, -1, *windows.here.shape)
        outputs = self.run.ask(forecast, like, last, corner=(windows.here.y0, windows.here.x0))
        out = np.empty((len(self.run.names), *self.run.shape, *part.shape), np.float32)
        self.run.crop(*part.slices).fill(list(out), outputs, seen[:, *part.inside(windows.read)], last)
        self.parts.forget()  # or what is free around it stays with this process, in pieces
        return out


def _lead(band: Array, number: int) -> Array:
    return band[..., number : number + 1, :, :]


def _spans(size: int, side: int) -> list[slice]:
    return [slice(n, min(n + side, size)) for n in range(0, size, side)]


def _weights(tile: slice, end: int) -> Array:
    """The weight of a tile along one axis, from its start to ``end`` beyond it."""
    rise = np.sin(np.pi / 2 * (np.arange(OVERLAP, dtype=np.float32) + 0.5) / OVERLAP) ** 2
    weights = np.ones(end - tile.start, np.float32)
    if tile.start:
        weights[:OVERLAP] = rise[: len(weights)]
    weights[tile.stop - tile.start :] = 1 - rise[: end - tile.stop]
    return weights


def _bytes_a_pixel(run: Run) -> float:
    """What a forecast takes for each pixel that it is made of."""
    side, how = 2 * SMALLEST, {"members": min(AT_ONCE, run.members or MEMBERS), "renewing": run.members is not None}
    shape = (1, run.history, run.channels.count_in, side, side)
    known, key = _BYTES.setdefault(run.network, {}), (shape, run.horizon, *how.values())
    if key not in known:
        known[key] = count_bytes(run.network, shape, run.horizon, **how)
    return SLACK * known[key] / side**2


def _bytes_for_motion(run: Run) -> float:
    """What the motion takes: frames at the levels that it is solved on, pairs of them, and one frame that is read."""
    if not isinstance(run.network, Lagrangian):
        return 0
    (ny, nx), frames = run.size, run.history * len(run.names)
    share = 4.0 ** -finest_level(run.network.window, run.size)
    return ny * nx * (frames * (4 + 1) * share * 4 / 3 + 32) + 80 * min(BAND, frames * ny * nx * share)
