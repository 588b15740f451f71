"""The shift of a task's new classes: its value by hand, where it goes, what it costs, and who can't have it."""

from __future__ import annotations

from dataclasses import replace
from math import log
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_cases import SPARCL, begun, configured, events, finished, planned, to_end

from edgecl import correction, schedule
from edgecl.forecast import meter_of
from edgecl.ledger import KINDS
from edgecl.nets import Net, build_net
from edgecl.nets.nodes import Flatten, Linear
from edgecl.types import BudgetError, ConfigError

ON = "train.bias_correction=true"
OLD, NEW = np.array([1, 1, 0, 0], bool), np.array([0, 0, 1, 0], bool)  # of four classes, the last still to come


def logits(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


def test_by_hand() -> None:
    """Three samples of which the net says the same: a third of the probability should be the new class's, not a half."""
    said = logits(*[[0, 0, log(2), 99]] * 3)
    assert correction.shift(said, np.array([0, 1, 2]), NEW, OLD) == pytest.approx(-log(2), abs=1e-6)
    wanted = logits(*[[0, 0, 0, -99]] * 3)
    assert correction.shift(wanted, np.array([0, 1, 2]), NEW, OLD) == pytest.approx(0, abs=1e-6)


def cross_entropy(said: np.ndarray, y: np.ndarray) -> float:
    """Mean over the classes that have samples, of those among the first three."""
    z = said[:, :3].astype(np.float64)
    nll = np.log(np.exp(z).sum(1)) - z[np.arange(len(y)), y]
    return float(np.mean([nll[y == k].mean() for k in np.unique(y)]))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_it_makes_cross_entropy_least_and_no_class_counts_more(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = np.r_[0, 2, rng.integers(0, 3, 40)]
    said = (rng.normal(size=(len(y), 4)) * 2 + 1.5 * (np.arange(4) == y[:, None])).astype(np.float32)
    best = correction.shift(said, y, NEW, OLD)
    around = [cross_entropy(said + np.float32(best + d) * NEW, y) for d in (-0.01, 0, 0.01)]
    assert around[1] <= min(around)
    more = np.r_[np.arange(len(y)), np.repeat(np.flatnonzero(y == 2), 5)]
    assert correction.shift(said[more], y[more], NEW, OLD) == pytest.approx(best, abs=1e-6)


def test_one_side_alone_is_not_shifted_and_no_shift_is_endless() -> None:
    said = logits([5, 0, -5, 0], [0, 5, 5, 0])
    assert correction.shift(said, np.array([0, 1]), NEW, OLD) == 0
    assert correction.shift(said, np.array([2, 2]), NEW, OLD) == 0
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        far = correction.shift(logits([1e4, 0, -1e4, 0], [1e4, 0, -1e4, 0]), np.array([0, 2]), NEW, OLD)
    assert far == pytest.approx(correction.LARGEST)


@pytest.mark.parametrize("engine", ["native", "numpy", "torch"])
def test_the_new_classes_bias_takes_it_and_nothing_else_changes(tmp_path: Path, engine: str) -> None:
    sets = (*SPARCL, f"engine.name={engine}")
    without, with_it = (finished(tmp_path / name, *sets, *more)[1] for name, more in (("off", ()), ("on", (ON,))))
    (said,) = events(tmp_path / "on", "correction")  # before the second task all classes were new
    assert said["task"] == 1
    assert said["shift"] != 0
    a, b = without.engine.arrays(), with_it.engine.arrays()
    moved = b.pop("classifier.bias") - a.pop("classifier.bias")
    np.testing.assert_allclose(moved, np.float32(said["shift"]) * np.repeat([0, 1], 5), atol=1e-6)
    for name in a:
        np.testing.assert_array_equal(b[name], a[name], err_msg=name)
    assert without.rng.bit_generator.state == with_it.rng.bit_generator.state
    assert not events(tmp_path / "off", "correction")
    assert events(tmp_path / "on", "task")[2]["class_il"] != events(tmp_path / "off", "task")[2]["class_il"]


def test_the_plan_counts_what_it_reads() -> None:
    """As many of new classes as of old ones, forward, once: in both counts."""
    (off, _), (on, _) = planned("data.classes_per_task=2"), planned("data.classes_per_task=2", ON)
    forward = sum(2 * c.weights * c.positions for c in on.ledger.costs)
    more = (on.ledger.table - off.ledger.table).sum(1)
    assert dict(zip(KINDS, more.tolist(), strict=True)) == dict.fromkeys(KINDS, 0) | {"replay_forward": 4 * 60 * forward}
    assert on.ledger.paper - off.ledger.paper == 4 * 60 * forward
    assert [schedule.fitted(configured(f"memory.capacity={n}")) for n in (30, 512, 5000)] == [60, 1024, 1024]


def test_which_epochs_it_follows() -> None:
    ends = [e.corrects for e in schedule.epochs(configured(ON), (100, 100, 100))]
    assert ends == [False] * 4 + [False, False, False, True] * 2
    lesson = configured(ON).set("data.name", schedule.LESSON)
    assert [e.corrects for e in schedule.epochs(lesson, (100,))] == [False, False, False, True]


def test_a_compute_budget_that_it_does_not_fit_in_stops_before(tmp_path: Path) -> None:
    setup, state = begun(tmp_path / "run", ON)
    limit = setup.plan.ledger.executed - 1
    held = replace(setup, plan=replace(setup.plan, limit=limit))
    with pytest.raises(BudgetError, match="used up"):
        to_end(held, state)
    assert state.ledger.executed <= limit


def test_who_can_not_have_it() -> None:
    with pytest.raises(ConfigError, match=r"train\.bias_correction: method sgd replays nothing"):
        planned("method=sgd", ON)
    nodes = (Flatten("flat", ("x",)), Linear("f", ("flat",), 8), Linear("out", ("f",), 10, bias=False))
    bare = Net("bare", (1, 8, 8), 10, nodes, "out", "f")
    assert (bare.bias, build_net("mlp", (1, 8, 8), 10).bias) == (None, "classifier.bias")
    with pytest.raises(ConfigError, match=r"train\.bias_correction: the logits of net bare have no bias"):
        meter_of(configured(ON), bare)
