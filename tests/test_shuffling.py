"""The order of an epoch: every sample once, mixed about as well as by a full shuffle, and shared fairly among ranks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cubecast.shuffling import RUN_ROWS, mixed_order, rank_share


@given(
    rows=st.lists(st.lists(st.integers(0, 3), max_size=30), max_size=3),
    lanes=st.integers(1, 20),
    seed=st.integers(0, 9),
)
def test_every_sample_is_there_once(rows, lanes, seed) -> None:
    cubes = [np.cumsum(np.array(r, np.int64)) for r in rows]
    order = mixed_order(cubes, lanes=lanes, rng=np.random.default_rng(seed))
    assert sorted(order) == list(range(sum(map(len, cubes))))


def test_neighbours_in_a_batch_are_nearly_as_far_apart_as_in_a_full_shuffle() -> None:
    rows = np.repeat(np.arange(200), 40)
    rng = np.random.default_rng(0)

    def apart(order):
        batches = rows[order][: len(order) // 4 * 4].reshape(-1, 4)
        return np.abs(np.diff(batches, axis=1)).mean()

    full = apart(rng.permutation(len(rows)))
    mixed = np.mean([apart(mixed_order([rows], lanes=8, rng=rng)) for _ in range(5)])
    assert mixed > 0.8 * full
    assert apart(np.arange(len(rows))) < 0.01 * full


def test_few_rows_are_in_use_at_a_time_and_each_is_passed_once() -> None:
    rows = np.repeat(np.arange(400), 30)
    order = mixed_order([rows], lanes=6, rng=np.random.default_rng(0))
    place = rows[order]
    first = np.array([np.flatnonzero(place == r)[0] for r in range(400)])
    last = np.array([np.flatnonzero(place == r)[-1] for r in range(400)])
    at_once = [int(((first <= i) & (last >= i)).sum()) for i in range(0, len(order), 50)]
    assert max(at_once) <= 6
    following = np.diff(first) > 0
    assert following.mean() > 1 - 2 / RUN_ROWS, "runs pass through their rows forwards"


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_have_stretches_of_their_own(ranks) -> None:
    groups = [np.arange(0, 31), np.arange(31, 50)]
    for epoch in range(4):
        shares = [rank_share(groups, rank=r, ranks=ranks, rng=np.random.default_rng(epoch)) for r in range(ranks)]
        every = np.concatenate(shares)
        assert len(np.unique(every)) == len(every) == 31 // ranks * ranks + 19 // ranks * ranks
        assert len({len(s) for s in shares}) == 1
        for share in shares:
            for group in groups:
                own = np.intersect1d(share, group)
                inside = (np.diff(own) > 1).sum() + (own[-1] - own[0] == len(group) - 1)
                assert inside <= 2, "one stretch of the ring"
