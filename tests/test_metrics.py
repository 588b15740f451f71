"""Metrics against matrices worked by hand, and what must hold for any matrix."""

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgecl.metrics import average_accuracy, bwt, forgetting, from_counts, fwt, summary

Matrix = npt.NDArray[np.float64]
NAN = float("nan")

# Three tasks. Row 0 is untrained; the first group peaks after task 2, not just after its own.
THREE = [
    [0.5, 0.4, 0.6],
    [0.8, 0.5, 0.6],
    [0.9, 0.7, 0.8],
    [0.6, 0.5, 1.0],
]


@st.composite
def matrices(draw: st.DrawFn, least: int = 2) -> Matrix:
    tasks = draw(st.integers(least, 6))
    return draw(arrays(np.float64, (tasks + 1, tasks), elements=st.floats(0, 1)))


def test_worked_by_hand() -> None:
    assert average_accuracy(THREE) == pytest.approx((0.6 + 0.5 + 1.0) / 3)
    assert forgetting(THREE) == pytest.approx(((0.9 - 0.6) + (0.7 - 0.5)) / 2)
    assert bwt(THREE) == pytest.approx(((0.6 - 0.8) + (0.5 - 0.7)) / 2)
    assert fwt(THREE) == pytest.approx(((0.5 - 0.4) + (0.8 - 0.6)) / 2)


def test_the_untrained_row_is_no_peak_to_fall_from() -> None:
    a = [[1.0, 1.0], [0.5, 0.0], [0.5, 0.5]]
    assert forgetting(a) == 0


def test_two_tasks_forgetting_is_minus_backward_transfer() -> None:
    a = [[0.0, 0.0], [0.9, 0.0], [0.4, 0.8]]
    assert forgetting(a) == pytest.approx(0.5)
    assert bwt(a) == pytest.approx(-0.5)


@pytest.mark.parametrize("groups", [1, 5])
def test_one_task_has_an_accuracy_only(groups: int) -> None:
    a = np.full((2, groups), 0.7)
    assert average_accuracy(a) == pytest.approx(0.7)
    assert (forgetting(a), bwt(a), fwt(a)) == (None, None, None)
    assert '"class_il_forgetting": null' in json.dumps(summary(a, a))


def test_a_stream_that_goes_on() -> None:
    """The last group is not taught yet: with its column cut off, it takes no part."""
    a = np.array(THREE)[:3, :2]
    assert average_accuracy(a) == pytest.approx(0.8)
    assert forgetting(a) == pytest.approx(0.8 - 0.9)
    assert fwt(a) == pytest.approx(0.1)


def test_nan_takes_no_part() -> None:
    a = np.array(THREE)
    a[2, 0] = NAN  # the peak of group 0 was not seen
    assert forgetting(a) == pytest.approx(((0.8 - 0.6) + (0.7 - 0.5)) / 2)
    a[3, 1] = NAN
    assert average_accuracy(a) == pytest.approx(0.8)
    assert forgetting(a) == pytest.approx(0.2)
    assert bwt(a) == pytest.approx(-0.2)


def test_nothing_evaluated() -> None:
    a = np.full((3, 2), NAN)
    assert (forgetting(a), bwt(a), fwt(a)) == (None, None, None)
    with pytest.raises(ValueError, match="no evaluated group"):
        average_accuracy(a)


def test_only_the_last_row_was_evaluated() -> None:
    a = np.full((4, 3), NAN)
    a[-1] = 0.5
    assert average_accuracy(a) == 0.5
    assert (forgetting(a), bwt(a), fwt(a)) == (None, None, None)


def test_summary_has_forward_transfer_for_task_il_only() -> None:
    class_il = [[0.0, 0.0], [0.9, 0.0], [0.5, 0.7]]
    task_il = [[0.5, 0.5], [0.9, 0.6], [0.8, 0.9]]
    values = summary(class_il, task_il)
    assert values == pytest.approx(
        {
            "class_il_accuracy": 0.6,
            "class_il_forgetting": 0.4,
            "class_il_bwt": -0.4,
            "task_il_accuracy": 0.85,
            "task_il_forgetting": 0.1,
            "task_il_bwt": -0.1,
            "task_il_fwt": 0.1,
        }
    )
    assert json.loads(json.dumps(values)) == values


@given(matrices())
def test_perfect_memory_forgets_nothing(a: Matrix) -> None:
    """Every group keeps, from its own task on, the accuracy that it had then, and knew less before."""
    for j in range(a.shape[1]):
        a[j + 1 :, j] = a[j + 1, j]
        a[: j + 1, j] = np.minimum(a[: j + 1, j], a[j + 1, j])
    assert forgetting(a) == 0
    assert bwt(a) == 0


@given(matrices())
def test_bounds(a: Matrix) -> None:
    assert 0 <= average_accuracy(a) <= 1
    for metric in (forgetting, bwt, fwt):
        value = metric(a)
        assert value is not None
        assert -1 <= value <= 1


@given(matrices())
def test_forgetting_is_at_least_the_backward_loss(a: Matrix) -> None:
    """The peak is no lower than the accuracy just after the task."""
    lost, moved = forgetting(a), bwt(a)
    assert lost is not None
    assert moved is not None
    assert lost >= -moved - 1e-12


@given(matrices(), st.integers(0, 5))
def test_the_untrained_row_moves_forward_transfer_only(a: Matrix, column: int) -> None:
    b = a.copy()
    b[0, column % a.shape[1]] = 0.25
    assert (average_accuracy(a), forgetting(a), bwt(a)) == (average_accuracy(b), forgetting(b), bwt(b))


@given(matrices())
def test_the_matrix_is_left_alone(a: Matrix) -> None:
    before = a.copy()
    summary(a, a)
    np.testing.assert_array_equal(a, before)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([0.5, 0.5], r"\[tasks \+ 1, groups\], got \[2\]"),
        ([[0.5, 0.5]], "got"),
        (np.zeros((2, 0)), "got"),
        (np.zeros((4, 2)), "3 tasks but 2 groups"),
        ([[0.0], [70.0]], "shares from 0 to 1"),
        ([[0.0], [-0.1]], "shares from 0 to 1"),
        ([[0.0], [np.inf]], "shares from 0 to 1"),
    ],
)
@pytest.mark.parametrize("metric", [average_accuracy, forgetting, bwt, fwt])
def test_a_matrix_of_another_form(metric: Any, matrix: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metric(matrix)


def test_from_counts() -> None:
    shares = from_counts([[0, 5], [8, 0]], [10, 5])
    np.testing.assert_array_equal(shares, [[0.0, 1.0], [0.8, 0.0]])
    shares = from_counts([[0, 5], [8, 0]], [[10, 5], [10, 0]])
    np.testing.assert_array_equal(shares, [[0.0, 1.0], [0.8, NAN]])
    for wrong in ([[11, 0]], [[-1, 0]]):
        with pytest.raises(ValueError, match="between 0 and"):
            from_counts(wrong, [10, 5])
