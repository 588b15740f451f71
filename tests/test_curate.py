"""Data removal against a worked example, and what must hold for any history."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecl import curate

FEW = settings(max_examples=80, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def watch(state: curate.Learning, *epochs: str) -> curate.Learning:
    """Shows every sample once an epoch; "1" is right, "0" wrong, "-" not shown."""
    for epoch in epochs:
        index = np.array([i for i, c in enumerate(epoch) if c != "-"], dtype=np.int64)
        state = curate.observe(state, index, np.array([epoch[i] == "1" for i in index]))
    return state


def test_worked_example():
    """Sample 0 stays right, 1 is forgotten twice, 2 is never right, 3 is forgotten once, 4 is never seen."""
    state = watch(curate.new(5), "110--", "100--", "1101-", "1000-", "1-01-")
    np.testing.assert_array_equal(state.forgets, [0, 2, 0, 1, 0])
    np.testing.assert_array_equal(state.learned, [True, True, False, True, False])
    np.testing.assert_array_equal(state.correct, [True, False, False, True, False])
    for n, kept in [(0, [0, 1, 2, 3, 4]), (1, [1, 2, 3, 4]), (2, [1, 2, 4]), (3, [2, 4])]:
        after = curate.remove(state, n, np.random.default_rng(0))
        np.testing.assert_array_equal(np.flatnonzero(after.kept), kept)
        np.testing.assert_array_equal(after.forgets, 0)
        np.testing.assert_array_equal(after.learned, state.learned)


def test_counting_starts_anew_after_a_removal():
    """Sample 1 was forgotten before the removal, sample 2 after it: then 1 is the easier."""
    state = curate.remove(watch(curate.new(3), "111", "101", "111"), 1, np.random.default_rng(0))
    np.testing.assert_array_equal(state.kept.sum(), 2)
    assert state.kept[1]
    state = curate.Learning(np.ones(3, bool), *state[1:])
    state = watch(state, "110")
    np.testing.assert_array_equal(state.forgets, [0, 0, 1])  # right before the removal and wrong after it is an event


def test_copies_in_a_batch_are_one_look():
    state = curate.observe(curate.new(3), np.array([0, 0, 1, 1, 2]), np.array([True, False, True, True, True]))
    np.testing.assert_array_equal(state.correct, [False, True, True])
    np.testing.assert_array_equal(state.learned, [False, True, True])
    state = curate.observe(state, np.array([1, 1, 1, 2]), np.array([False, True, False, True]))
    np.testing.assert_array_equal(state.forgets, [0, 1, 0])


def test_ties_are_broken_evenly():
    state, dropped = watch(curate.new(10), "1" * 10), np.zeros(10)
    rng = np.random.default_rng(0)
    for _ in range(1000):
        dropped += ~curate.remove(state, 3, rng).kept
    chi2 = ((dropped - 300) ** 2).sum() / (300 * 0.7) * 9 / 10  # 3 of 10 without replacement
    assert chi2 < 27.9  # 9 degrees of freedom, p = 0.001


@FEW
@given(seeds, st.integers(1, 40), st.integers(0, 12), st.lists(st.integers(-1, 45), min_size=1, max_size=4))
def test_any_history(seed, size, batches, removals):
    """Exact counts, the easiest go first, never-learned samples go last, one stays, and no argument changes."""
    rng, state = np.random.default_rng(seed), curate.new(size)
    for n in removals:
        for _ in range(batches):
            index = rng.integers(0, size, 6)
            before = [a.copy() for a in state]
            seen = curate.observe(state, index, rng.random(6) < 0.5)
            assert all(np.array_equal(a, b) for a, b in zip(before, state, strict=True))
            assert not (seen.correct & ~seen.learned).any()
            state = seen
        after = curate.remove(state, n, rng)
        gone = state.kept & ~after.kept
        assert gone.sum() == max(0, min(n, state.kept.sum() - 1))
        assert not (after.kept & ~state.kept).any()
        hardness = np.where(state.learned, state.forgets, 10**9)
        if gone.any():
            assert hardness[gone].max() <= hardness[after.kept].min()
        state = after
    assert state.kept.any()


@FEW
@given(seeds, st.integers(1, 30))
def test_batches_of_distinct_samples_match_one_by_one(seed, size):
    rng = np.random.default_rng(seed)
    whole = single = curate.new(size)
    for _ in range(5):
        index, right = rng.permutation(size), rng.random(size) < 0.5
        whole = curate.observe(whole, index, right)
        for i in range(size):
            single = curate.observe(single, index[i : i + 1], right[i : i + 1])
    assert all(np.array_equal(a, b) for a, b in zip(whole, single, strict=True))


def test_the_same_seed_removes_the_same():
    state = watch(curate.new(20), "1" * 20)
    first, again = (curate.remove(state, 7, np.random.default_rng(3)).kept for _ in range(2))
    np.testing.assert_array_equal(first, again)
