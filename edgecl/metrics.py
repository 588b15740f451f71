"""What an accuracy matrix says of a learner: average accuracy, forgetting, backward and forward transfer.

A matrix A has shape [T + 1, G]: row 0 is the untrained network, row i the network after task i; group j is what task j
teaches, j from 1 as in the papers (column j - 1 of the array). Values are shares 0..1, NaN where nothing was evaluated.
Of a stream that still goes on, hand in the rows and columns so far: A[: t + 1, :t].
A joint stream has one task and any number of groups: only its average accuracy is defined, the rest is None (null in JSON).
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Matrix: TypeAlias = npt.NDArray[np.float64]


def average_accuracy(accuracy: npt.ArrayLike) -> float:
    """Mean of the last row over the groups evaluated there (ACC, Lopez-Paz & Ranzato 2017, eq. 2).

    accuracy [T + 1, G]. Raises ValueError for a matrix of another form, or if the last row is all NaN.
    """
    mean = _mean(_matrix(accuracy)[-1])
    if mean is None:
        raise ValueError("the last row of the accuracy matrix has no evaluated group")
    return mean


def forgetting(accuracy: npt.ArrayLike) -> float | None:
    """How far the groups before the last have fallen from their best: mean over j < T of max(A[1..T-1, j]) - A[T, j].

    Chaudhry et al. 2018 (Riemannian Walk); the untrained row takes no part. Negative where the last task helped.
    accuracy [T + 1, G]. None for one task. Raises ValueError for a matrix of another form.
    """
    a = _matrix(accuracy)
    old = len(a) - 2  # groups taught before the last task
    if old == 0:
        return None
    best = np.fmax.reduce(a[1:-1, :old], axis=0)  # fmax: a NaN loses against any number
    return _mean(best - a[-1, :old])


def bwt(accuracy: npt.ArrayLike) -> float | None:
    """Backward transfer: mean over groups j before the last of A[T, j] - A[j, j], the latter just after its own task.

    Lopez-Paz & Ranzato 2017 (GEM), eq. 3. accuracy [T + 1, G]. None for one task. Raises ValueError as the others do.
    """
    a = _matrix(accuracy)
    old = len(a) - 2
    return _mean(a[-1, :old] - np.diagonal(a[1:])[:old]) if old else None


def fwt(accuracy: npt.ArrayLike) -> float | None:
    """Forward transfer: mean over groups j from the second of A[j - 1, j] - A[0, j], just before its task and untrained.

    Lopez-Paz & Ranzato 2017 (GEM), eq. 4. accuracy [T + 1, G]. None for one task. Raises ValueError as the others do.
    """
    a = _matrix(accuracy)
    tasks = len(a) - 1
    return _mean(np.diagonal(a)[1:tasks] - a[0, 1:tasks]) if tasks > 1 else None


def summary(class_il: npt.ArrayLike, task_il: npt.ArrayLike) -> dict[str, float | None]:
    """All metrics of both settings by name; None where one is not defined.

    class_il, task_il [T + 1, G]. Class-IL has no forward transfer: its predictions are restricted to classes seen so far,
    so that a group not yet taught scores 0 by definition, whatever the network knows.
    """
    values: dict[str, float | None] = {}
    for setting, accuracy in (("class_il", class_il), ("task_il", task_il)):
        values[f"{setting}_accuracy"] = average_accuracy(accuracy)
        values[f"{setting}_forgetting"] = forgetting(accuracy)
        values[f"{setting}_bwt"] = bwt(accuracy)
    return values | {"task_il_fwt": fwt(task_il)}


def from_counts(correct: npt.ArrayLike, total: npt.ArrayLike) -> Matrix:
    """Shares [T + 1, G] from right answers [T + 1, G] and samples [G] or [T + 1, G]; NaN where there was no sample.

    Raises ValueError if a count is negative or more are right than there are.
    """
    right = np.asarray(correct, np.float64)
    samples = np.broadcast_to(np.asarray(total, np.float64), right.shape)
    if not ((right >= 0) & (right <= samples)).all():
        raise ValueError("right answers must be between 0 and the number of samples")
    shares: Matrix = np.full(right.shape, np.nan)
    np.divide(right, samples, out=shares, where=samples > 0)
    return shares


def _matrix(accuracy: npt.ArrayLike) -> Matrix:
    a = np.asarray(accuracy, np.float64)
    if a.ndim != 2 or len(a) < 2 or a.shape[1] < 1:
        raise ValueError(f"an accuracy matrix is [tasks + 1, groups], got {list(a.shape)}")
    if len(a) - 1 > a.shape[1]:
        raise ValueError(f"{len(a) - 1} tasks but {a.shape[1]} groups: a task teaches one group")
    if not (np.isnan(a) | ((a >= 0) & (a <= 1))).all():
        raise ValueError("accuracies are shares from 0 to 1")
    return a


def _mean(values: Matrix) -> float | None:
    """Over what is not NaN."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None
