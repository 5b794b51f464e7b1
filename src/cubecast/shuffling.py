"""The order of the samples of an epoch: mixed well, and near each other in time for the reader.

A full shuffle would read each chunk anew for every sample in it. Here the rows of the cubes (a row: the frames of some
whole chunks) are cut into runs of neighbouring rows; the runs, in random order, are dealt to lanes; a lane passes
through its rows one after the other, with the samples of each row shuffled; and the lanes are interleaved at random.
So a batch holds samples from as many places of the archive as there are lanes, and every row is read once a run.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.int64]

RUN_ROWS = 24
"""Most rows in a run: its first rows are read twice, for the windows of the run before reach into them."""


def mixed_order(rows: Sequence[Array], *, lanes: int, rng: np.random.Generator) -> Array:
    """A random order of samples 0 .. n - 1.

    Args:
        rows: for each cube, the row of each of its samples, not falling; samples of a cube follow those of the one
            before.
        lanes: rows that are mixed at a time.
        rng: the same state gives the same order.
    """
    firsts = np.cumsum([0, *(len(cube) for cube in rows)])
    found = [_units(cube) for cube in rows]
    units = [u + first for own, first in zip(found, firsts, strict=False) for u in own]
    ends = np.cumsum([0, *(len(own) for own in found)])
    size = int(np.clip(-(-len(units) // max(1, lanes)), 1, RUN_ROWS))
    runs = [r for first, end in itertools.pairwise(ends) for r in _runs(int(first), int(end), size, rng)]
    dealt: list[list[Array]] = [[] for _ in range(lanes)]
    total = np.zeros(lanes, np.int64)
    for run in rng.permutation(len(runs)):
        lane = int(total.argmin())
        for unit in range(*runs[run]):
            dealt[lane].append(rng.permutation(units[unit]))
            total[lane] += len(units[unit])
    order = np.empty(int(total.sum()), np.int64)
    turn = rng.permutation(np.repeat(np.arange(lanes, dtype=np.int16), total))
    for lane, samples in enumerate(dealt):
        if samples:
            order[turn == lane] = np.concatenate(samples)
    return order


def rank_share(groups: Sequence[Array], *, rank: int, ranks: int, rng: np.random.Generator | None) -> Array:
    """The part of some windows that one of ``ranks`` processes trains or validates on, sorted.

    Of each group every rank has one stretch. In training a group is taken as a ring with a random start, all ranks have
    the same number, and the fewer than ``ranks`` windows that are left over rest for this epoch.

    Args:
        groups: windows whose samples have one shape; their samples fill batches of their own.
        rng: draws the starts, alike on all ranks; None: validation, no window rests.
    """
    chosen = []
    for group in groups:
        if rng is None or ranks == 1:
            chosen.append(np.array_split(group, ranks)[rank])
            continue
        first = int(rng.integers(len(group)))
        size = len(group) // ranks
        chosen.append(group[(first + rank * size + np.arange(size)) % len(group)])
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)


def _units(rows: Array) -> list[Array]:
    """The samples of each row."""
    if not len(rows):
        return []
    return np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows)) + 1)


def _runs(first: int, end: int, size: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """``first .. end`` cut into runs of ``size``; the first cut is at random."""
    cuts = range(first + int(rng.integers(size)) + 1, end, size)
    edges = [first, *cuts, end]
    return [(a, b) for a, b in itertools.pairwise(edges) if b > a]
