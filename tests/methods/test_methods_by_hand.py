"""Numbers worked out on paper: two samples, three classes, of which the third is still to come."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import numpy as np
import pytest
from method_cases import loss

from edgecl.engines.base import Output
from edgecl.methods import make_method
from edgecl.types import Batch, Part

THIRD = log(3)  # a logit that makes odds of 3 to 1
K = 3


def part(y: Sequence[int], logits: Sequence[Sequence[float]] = ((0, 0, 0), (0, 0, 0)), weight: Sequence[float] = (1, 1)) -> Part:
    n = len(y)
    stored = np.array(logits, np.float64)[:n]
    return Part(
        np.zeros((n, 1, 1, 1), np.uint8), np.zeros((n, 3), np.int64), np.array(y), np.array(weight[:n], np.float64), stored
    )


def say(*rows: Sequence[float]) -> Output:
    return Output(np.array(rows, np.float64), np.zeros((len(rows), 1)))


def batch(*parts: Part, task: Sequence[float] = (1, 1, 0)) -> Batch:
    return Batch(parts, np.array(task, np.float64), np.array([1.0, 1, 0]), np.array(0.1))


def test_derpp() -> None:
    """Buzzega et al. 2020, eq. 6, with the mean over samples and classes that its authors' code takes for ‖·‖²."""
    method = make_method("derpp", {"alpha": 0.5, "beta": 0.25, "class_mask": "seen"})
    outputs = [
        say((0, THIRD, 9), (0, THIRD, -9)),  # p = 1/4, 3/4 of the classes seen
        say((1, 2, 3), (0, 0, 0)),
        say((THIRD, 0, 4), (THIRD, 0, 4)),  # p = 3/4, 1/4
    ]
    result = loss(method, outputs, batch(part([0, 1]), part([0, 0], [(0, 0, 1), (3, 0, 0)]), part([0, 1])))
    current = (log(4) + log(4 / 3)) / 2
    stored = 0.5 * ((1 + 4 + 4) / 3 + 9 / 3) / 2
    labels = 0.25 * (log(4 / 3) + log(4)) / 2
    assert result.value == pytest.approx(current + stored + labels, rel=1e-12)
    a, b, c = result.d_logits
    np.testing.assert_allclose(a, np.array([[-3 / 4, 3 / 4, 0], [1 / 4, -1 / 4, 0]]) / 2, atol=1e-12)
    np.testing.assert_allclose(b, 0.5 / 2 * 2 / 3 * np.array([[1, 2, 2], [-3, 0, 0]]), atol=1e-12)
    np.testing.assert_allclose(c, 0.25 / 2 * np.array([[-1 / 4, 1 / 4, 0], [3 / 4, -3 / 4, 0]]), atol=1e-12)


def test_derpp_with_one_draw_has_both_losses_on_it() -> None:
    two, one = (make_method("derpp", {"alpha": 0.5, "beta": 0.25, "draws": n}) for n in (2, 1))
    replayed = part([0, 1], [(0, 0, 1), (3, 0, 0)], weight=(1, 0.5))
    outputs = [say((0, THIRD, 9), (0, THIRD, -9)), say((1, 2, 3), (0, 1, 0))]
    apart = loss(two, [*outputs, outputs[1]], batch(part([0, 1]), replayed, replayed))
    joined = loss(one, outputs, batch(part([0, 1]), replayed))
    assert joined.value == pytest.approx(apart.value, rel=1e-12)
    np.testing.assert_allclose(joined.d_logits[1], apart.d_logits[1] + apart.d_logits[2], atol=1e-12)
    assert [p.parts for p in one.passes()] == [(0,), (1,)]


def test_er_takes_the_mean_over_current_and_replayed_samples() -> None:
    method = make_method("er", {"class_mask": "task"})
    outputs = [say((7, THIRD, 0), (7, 0, 0)), say((0, THIRD, 5), (0, 0, 0))]
    full = batch(part([1, 1]), part([0, 1]), task=(0, 1, 0))
    result = loss(method, outputs, full)  # the task's one class is certain; replay chooses among the two seen
    assert result.value == pytest.approx((0 + 0 + log(4) + log(2)) / 4, rel=1e-12)
    np.testing.assert_allclose(result.d_logits[1], np.array([[-3 / 4, 3 / 4, 0], [1 / 2, -1 / 2, 0]]) / 4, atol=1e-12)
    first = full._replace(parts=(full.parts[0], part([0, 1], weight=(1, 0))))
    assert loss(method, outputs, first).value == pytest.approx(log(4) / 3, rel=1e-12)


def test_er_ace() -> None:
    """Caccia et al. 2022, eq. 3: the current batch holds classes 1 and 2 only, so class 0 takes no part; replay sees 0 and 1."""
    outputs = [say((50, 0, THIRD), (-50, 0, THIRD)), say((0, THIRD, 60), (0, THIRD, 60))]
    result = loss(make_method("er_ace", {}), outputs, batch(part([1, 2]), part([1, 0])))
    assert result.value == pytest.approx((log(4) + log(4 / 3)) / 2 + (log(4 / 3) + log(4)) / 2, rel=1e-12)
    np.testing.assert_allclose(result.d_logits[0], np.array([[0, -3 / 4, 3 / 4], [0, 1 / 4, -1 / 4]]) / 2, atol=1e-12)
    np.testing.assert_allclose(result.d_logits[1], np.array([[1 / 4, -1 / 4, 0], [-3 / 4, 3 / 4, 0]]) / 2, atol=1e-12)


def test_er_ace_with_one_class_in_the_batch_learns_nothing_from_it() -> None:
    result = loss(
        make_method("er_ace", {}), [say((1, 2, 3), (3, 2, 1)), say((0, 0, 0), (0, 0, 0))], batch(part([1, 1]), part([0, 1]))
    )
    assert not result.d_logits[0].any()
    assert result.value == pytest.approx(log(2), rel=1e-12)


@pytest.mark.parametrize("name", ["sgd", "joint"])
def test_bounds_are_plain_cross_entropy(name: str) -> None:
    outputs = [say((THIRD, 0, 0), (0, 0, THIRD))]
    result = loss(make_method(name, {}), outputs, batch(part([0, 1])))
    assert result.value == pytest.approx((log(5 / 3) + log(5)) / 2, rel=1e-12)
    np.testing.assert_allclose(result.d_logits[0], np.array([[-2 / 5, 1 / 5, 1 / 5], [1 / 5, -4 / 5, 3 / 5]]) / 2, atol=1e-12)
    task = loss(make_method(name, {"class_mask": "task"}), outputs, batch(part([0, 1])))
    assert task.value == pytest.approx((log(4 / 3) + log(2)) / 2, rel=1e-12)
