"""Masks by vote: the number stays, the majority decides, size decides among equals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecl.merge.vote import vote

B = np.array([[1, 1, 0, 0]], bool)


def elected(
    *live: list[int], voices: list[float] | None = None, values: list[float] | None = None, base: float = 1.0
) -> list[int]:
    masks = [np.array([m], bool) for m in live]
    heard = np.array(voices or [1.0] * len(masks))
    made = vote(B, masks, heard, base, np.array([values or [0.0] * 4]), "weight")
    return [int(u) for u in made[0]]


def test_a_majority_moves_a_unit() -> None:
    assert elected([1, 0, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0]) == [1, 1, 0, 0]  # two against one and the base: the first
    assert elected([1, 0, 1, 0], [1, 0, 1, 0], [1, 0, 0, 1]) == [1, 0, 1, 0]


def test_the_base_is_a_voter() -> None:
    assert elected([1, 0, 1, 0], base=3.0) == [1, 1, 0, 0]
    assert elected([1, 0, 1, 0], values=[0, 0.1, 0.9, 0], base=0.5) == [1, 0, 1, 0]


def test_votes_are_weighted() -> None:
    assert elected([1, 0, 0, 1], [1, 1, 0, 0], [1, 1, 0, 0], voices=[9.0, 1, 1]) == [1, 0, 0, 1]


def test_of_equal_votes_the_larger_weights_win() -> None:
    assert elected([1, 0, 1, 0], [1, 0, 0, 1], values=[1, 0.3, 0.2, 0.9], base=0.5) == [1, 0, 0, 1]


def test_size_is_worth_less_than_a_vote() -> None:
    assert elected([0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0], values=[9, 0, 0, 0], base=1.0) == [0, 1, 1, 0]


@given(st.integers(0, 2**32), st.integers(1, 6))
def test_as_many_live_as_before(seed: int, devices: int) -> None:
    rng = np.random.default_rng(seed)
    base = rng.random((6, 5)) < 0.4
    live = [rng.random((6, 5)) < 0.5 for _ in range(devices)]
    made = vote(base, live, rng.uniform(0, 9, devices), 1.0, rng.standard_normal((6, 5, 3, 3)), "kernel")
    assert made.sum() == base.sum()


@pytest.mark.parametrize("voices", [[0.0], [5.0]])
def test_what_nobody_changed_stays(voices: list[float]) -> None:
    assert elected([1, 1, 0, 0], voices=voices) == [1, 1, 0, 0]
