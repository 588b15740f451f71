"""Subsets in few bits."""

from __future__ import annotations

from math import log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecl.update import UpdateError, subsets
from edgecl.update.subsets import Gaps, best, gaps_of


def by_hand(code: Gaps) -> bytes:
    """Bit for bit, as the page says it."""
    unary = "".join("0" * (int(g) >> code.k) + "1" for g in code.gaps)
    planes = ["".join(str(int(g) >> b & 1) for g in code.gaps) for b in range(code.k)]
    parts = [part[i : i + 8] for part in (unary, *planes) for i in range(0, len(part), 8)]
    return bytes(sum(int(bit) << i for i, bit in enumerate(part)) for part in parts)


@given(st.sets(st.integers(0, 3000)), st.integers(0, 500))
def test_there_and_back(members: set[int], more: int) -> None:
    rising, n = np.array(sorted(members), np.int64), max([0, *members]) + 1 + more
    code = gaps_of(rising)
    data = subsets.write(code)
    assert data == by_hand(code)
    assert len(data) == code.size
    np.testing.assert_array_equal(subsets.read("x", memoryview(data), len(rising), code.k, n), rising)


@given(st.lists(st.integers(0, 10**6), max_size=60))
def test_the_best_parameter(gaps: list[int]) -> None:
    costs = [sum(g >> k for g in gaps) + k * len(gaps) for k in range(25)]
    assert best(np.array(gaps, np.int64)) == costs.index(min(costs))


@pytest.mark.parametrize(("density", "n"), [(0.05, 2_000_000), (0.1, 2_000_000), (0.25, 1_000_000), (0.5, 1_000_000)])
def test_near_the_entropy(density: float, n: int) -> None:
    members = np.flatnonzero(np.random.default_rng(0).random(n) < density)
    p = len(members) / n
    bound = -n * (p * log2(p) + (1 - p) * log2(1 - p)) / 8
    assert bound < gaps_of(members).size <= 1.02 * bound


GOOD = gaps_of(np.array([3, 50, 51, 90]))


@pytest.mark.parametrize(
    ("data", "m", "k", "n"),
    [
        (subsets.write(GOOD), 4, GOOD.k, 90),  # a member beyond
        (subsets.write(GOOD), 3, GOOD.k, 100),
        (subsets.write(GOOD), 5, GOOD.k, 100),
        (subsets.write(GOOD), 4, GOOD.k - 1, 100),
        (subsets.write(GOOD), 4, 8, 100),
        (subsets.write(GOOD), 2**62, GOOD.k, 100),
        (subsets.write(GOOD), 4, 2**62, 100),
        (subsets.write(GOOD), 4, GOOD.k, 3),
        (subsets.write(GOOD) + b"\0", 4, GOOD.k, 100),
        (subsets.write(GOOD)[:-1] + bytes([subsets.write(GOOD)[-1] | 128]), 4, GOOD.k, 100),
        (b"", 4, GOOD.k, 100),
        (b"\xff", 0, 0, 100),
        (b"\0", 0, 0, 100),
    ],
)
def test_what_is_no_code(data: bytes, m: int, k: int, n: int) -> None:
    with pytest.raises(UpdateError, match=r"^x: "):
        subsets.read("x", memoryview(data), m, k, n)


@given(st.binary(max_size=40), st.integers(0, 60), st.integers(0, 12), st.integers(0, 300))
def test_any_bytes_are_read_or_refused(data: bytes, m: int, k: int, n: int) -> None:
    try:
        members = subsets.read("x", memoryview(data), m, k, n)
    except UpdateError:
        return
    assert len(members) == m
    assert (np.diff(members, prepend=-1) > 0).all()
    assert not m or members[-1] < n
