"""F2: which samples of a task are still worth training on: dynamic data removal (DDR; SparCL, §3.2).

A sample is easy if it was learned and is not forgotten again. A *forgetting event* is a sample that was right when it was
last seen and is wrong now (Toneva et al. 2019). Pure: state in, a new state out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edgecl.types import I64, Bools


class Learning(NamedTuple):
    """What is known of a task's N samples, by their position 0..N-1 in the task."""

    kept: Bools  # [N] still trained on
    correct: Bools  # [N] right when it was last seen; False before
    learned: Bools  # [N] was ever right
    forgets: I64  # [N] forgetting events since the last removal


def new(n: int) -> Learning:
    """The state of a task of n samples, none of them seen."""
    return Learning(np.ones(n, np.bool_), np.zeros(n, np.bool_), np.zeros(n, np.bool_), np.zeros(n, np.int64))


def observe(state: Learning, index: I64, correct: Bools) -> Learning:
    """Notes how one batch was predicted: `index` [B] positions, `correct` [B] whether each was right.

    A batch is one look with one network. A position that appears in it more than once counts once, and as right only if all
    its copies were: two crops of one image that disagree are not forgetting.
    """
    now = state.correct.copy()
    now[index] = True
    now[index[~correct]] = False
    # a position outside the batch has now == correct, so nothing happens to it
    return Learning(state.kept, now, state.learned | now, state.forgets + (state.correct & ~now))


def remove(state: Learning, n: int, rng: np.random.Generator) -> Learning:
    """Drops the n easiest kept samples and sets `forgets` to 0.

    Easiest means the fewest forgetting events since the last removal; samples never right (or never seen) are the hardest,
    whatever their count. Ties are broken at random. At least one sample stays. `correct` and `learned` go on.
    """
    index = rng.permutation(np.flatnonzero(state.kept))
    hardness = np.where(state.learned, state.forgets, np.iinfo(np.int64).max)[index]
    n = max(0, min(n, len(index) - 1))
    kept = state.kept.copy()
    kept[index[np.argsort(hardness, kind="stable")[:n]]] = False  # stable after the shuffle: ties stay random
    return state._replace(kept=kept, forgets=np.zeros_like(state.forgets))
