"""Accuracy with and without being told the task, by hand; and the rows of the matrix that the loop makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import array_api_compat.numpy as xp
import numpy as np
import pytest
from run_cases import finished

from edgecl import evaluate, session
from edgecl.evaluate import Accuracy
from edgecl.types import Preprocess, Samples, Stream


class Oracle:
    """Says of the sample with pixel i what row i of a table says."""

    xp = xp

    def __init__(self, table: list[list[float]]) -> None:
        self.table, self.batches = np.array(table, np.float32), []

    def asarray(self, a: Any) -> Any:
        return np.asarray(a)

    numpy = asarray

    def predict(self, x: Any) -> Any:
        self.batches.append(len(x))
        return self.table[np.rint(x[:, 0, 0, 0] * 255).astype(int)]


def samples(pixels: list[int], y: list[int]) -> Samples:
    x = np.array(pixels, np.uint8).reshape(-1, 1, 1, 1)
    return Samples(x, np.array(y), np.array(pixels, np.int64))


def stream(*tests: Samples) -> Stream:
    groups = tuple((2 * i, 2 * i + 1) for i in range(len(tests)))
    return Stream("s", tuple("abcdef")[: 2 * len(tests)], groups, (), tests, Preprocess((0.0,), (1.0,)))


# Rows: what each of five samples looks like; columns: classes 0 to 3.
TABLE = [[9, 1, 0, 0], [1, 9, 0, 0], [5, 1, 9, 0], [1, 5, 0, 9], [5, 1, 2, 9]]
BY_HAND = stream(samples([0, 1, 2, 4], [0, 1, 0, 1]), samples([2, 3], [2, 3]))


@pytest.mark.parametrize(
    ("group", "seen", "expected"),
    [
        (0, 1, Accuracy(0.75, 0.75)),  # among classes 0 and 1: 0, 1, 0, 0 against 0, 1, 0, 1
        (0, 2, Accuracy(0.5, 0.75)),  # among all four: 0, 1, 2, 3; told the task as before
        (1, 2, Accuracy(1.0, 1.0)),
        (1, 1, Accuracy(0.0, 1.0)),  # not yet learned: no such class can be said, but the task can be told
        (0, 0, Accuracy(0.0, 0.75)),
    ],
)
def test_by_hand(group: int, seen: int, expected: Accuracy) -> None:
    assert evaluate.evaluate(Oracle(TABLE), BY_HAND, group, seen) == expected


def test_classes_need_not_come_in_order() -> None:
    mixed = Stream("s", tuple("abcd"), ((3, 1), (2, 0)), (), BY_HAND.tests, BY_HAND.preprocess)
    swapped = Stream(
        "s", tuple("abcd"), ((3, 1), (2, 0)), (), (samples([3, 1], [3, 1]), samples([2, 0], [2, 0])), mixed.preprocess
    )
    assert evaluate.evaluate(Oracle(TABLE), swapped, 0, 1) == Accuracy(1.0, 1.0)
    assert evaluate.evaluate(Oracle(TABLE), swapped, 1, 2) == Accuracy(1.0, 1.0)


def test_all_samples_in_batches() -> None:
    n = 2 * evaluate.TESTED + 3
    oracle, many = Oracle(TABLE), samples([i % 5 for i in range(n)], [0] * n)
    logits = evaluate.predict(oracle, stream(many), many)
    assert oracle.batches == [evaluate.TESTED, evaluate.TESTED, 3]
    assert (logits == oracle.table[np.arange(n) % 5]).all()


# ---- the loop's rows ----


def test_class_incremental_rows(tmp_path: Path) -> None:
    """All groups before the first task; then those learned, and the next one for forward transfer."""
    setup, state = finished(tmp_path / "run", "data={classes_per_task: 3, samples_per_class: 12}", "method=er", "train.epochs=8")
    assert [len(g) for g in setup.stream.groups] == [3, 3, 3, 1]
    told = [[a is not None for a in row["task_il"]] for row in state.accuracy]
    assert told == [[True] * 4, [True, True, False, False], [True, True, True, False], [True] * 4, [True] * 4]
    assert state.accuracy[0]["class_il"] == [0.0] * 4
    assert [row["class_il"][i + 1] for i, row in enumerate(state.accuracy[1:4])] == [0.0, 0.0, 0.0]
    assert [row["task_il"][3] for row in state.accuracy if row["task_il"][3] is not None] == [1.0] * 3  # a group of one class
    assert state.accuracy[1]["class_il"][0] == state.accuracy[1]["task_il"][0] > 0.5  # the only classes seen


def test_joint_learns_all_groups_at_once(tmp_path: Path) -> None:
    setup, state = finished(tmp_path / "run", "method=joint")
    assert (len(setup.stream.tasks), len(setup.stream.groups), len(state.accuracy)) == (1, 2, 2)
    assert all(a is not None for row in state.accuracy for a in row["class_il"])
    shown = session.result(setup, state)
    assert shown["class_il_accuracy"] == pytest.approx(np.mean(state.accuracy[1]["class_il"]))
    assert shown["class_il_forgetting"] is shown["task_il_fwt"] is None


def test_what_a_result_makes_of_the_rows(tmp_path: Path) -> None:
    setup, state = finished(tmp_path / "run", "method=sgd")
    (_, b0), (a1, b1), (a2, b2) = (row["task_il"] for row in state.accuracy)
    shown = session.result(setup, state)
    assert shown["task_il_accuracy"] == pytest.approx((a2 + b2) / 2)
    assert shown["task_il_forgetting"] == pytest.approx(a1 - a2)
    assert shown["task_il_bwt"] == pytest.approx(a2 - a1)
    assert shown["task_il_fwt"] == pytest.approx(b1 - b0)
