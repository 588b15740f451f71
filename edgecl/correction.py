"""F3: at a task's end the logits of its new classes are shifted against the old ones', by one number in the classifier's bias.

Old and new classes were trained at other times and on other shares of the data, so that their logits do not compare. As in the
bias correction of BiC (Wu et al. 2019, section 3.3) one number takes that out, fitted with the network fixed; here without its
scale, and without samples held back: old classes show what the replay memory holds of them, new ones the task's own samples.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgecl import schedule
from edgecl.evaluate import logits_of
from edgecl.schedule import TESTED, Epoch
from edgecl.state import Setup, State
from edgecl.types import F32, I64, U8, Bools, Pixels

_HALVINGS = 50
LARGEST = 20.0
"""No shift is larger: odds of 5e8 to 1."""

F64 = npt.NDArray[np.float64]


def shift(logits: F32, y: I64, new: Bools, old: Bools) -> float:
    """What to add to the logits [N, K] of the classes `new` [K], so that the mean cross entropy of samples of class y [N] among
    the classes `new` and `old` is least, where all classes that have samples count the same.

    There the share of probability that goes to new classes is the share of them among those with samples: it rises with the
    shift, so halving finds it. 0 where there are no samples of one side.
    """
    weight = _equal_classes(y)
    wanted = float(weight[new[y]].sum())
    if not len(y) or not 0 < wanted < 1:
        return 0.0
    odds = _log_sum(logits[:, new]) - _log_sum(logits[:, old])
    low, high = -LARGEST, LARGEST
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        given = float((weight * np.exp(-np.logaddexp(0, -(odds + middle)))).sum())
        low, high = (middle, high) if given < wanted else (low, middle)
    return (low + high) / 2


def _equal_classes(y: I64) -> F64:
    """Weights [N] of sum 1 that give each class the same."""
    _, inverse, counts = np.unique(y, return_inverse=True, return_counts=True)
    weights: F64 = 1 / (len(counts) * counts[inverse])
    return weights


def _log_sum(logits: F32) -> F64:
    found: F64 = np.logaddexp.reduce(logits.astype(np.float64), axis=1)
    return found


def apply(setup: Setup, state: State, epoch: Epoch) -> float:
    """At a task's end: fits the shift of its new classes, adds it to their bias and returns it.

    Logits that the memory has stored stay as they were said. Nothing is done where all classes, or none, are new.
    """
    old = setup.seen_mask(epoch.task - 1) > 0
    new = (setup.task_mask(epoch.task) > 0) & ~old
    memory, own = state.memory, setup.stream.tasks[epoch.task].train
    assert memory is not None
    of_old, of_new = np.flatnonzero(old[memory.y[: memory.size]]), np.flatnonzero(new[own.y])
    if not len(of_old) or not len(of_new):
        return 0.0
    half = schedule.fitted(setup.config) // 2
    slots, rows = _spread(of_old, half), _spread(of_new, half)
    logits = np.concatenate([_logits(setup, state, memory.x, slots), _logits(setup, state, own.x, rows)])
    state.ledger.add_forward(len(logits), state.live_weights(setup))
    found = shift(logits, np.concatenate([memory.y[slots], own.y[rows]]), new, old)
    _add(setup, state, new, found)
    return found


def _spread(found: I64, n: int) -> I64:
    """`n` of them, evenly, with repeats where there are fewer: what is counted then hangs on no value."""
    return found[np.arange(n) * len(found) // n]


def _logits(setup: Setup, state: State, x: U8 | Pixels, at: I64) -> F32:
    """Of rows of x, a few at a time."""
    parts = [at[i : i + TESTED] for i in range(0, len(at), TESTED)]
    return np.concatenate([logits_of(state.engine, x[part], setup.stream.preprocess) for part in parts])


def _add(setup: Setup, state: State, classes: Bools, amount: float) -> None:
    held, name = state.engine.held(), setup.plan.net.bias
    assert name is not None  # a plan refuses to correct a net without
    bias = np.array(held[name], np.float32)
    bias[classes] += np.float32(amount)
    state.engine.load({**held, name: bias})
