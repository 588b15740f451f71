"""The schedule: epochs of a task by hand, and what holds for any of them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecl import schedule
from edgecl.config import Config, resolve
from edgecl.schedule import Epoch

MANY = settings(max_examples=200, deadline=None)


def configured(dataset: str = "cifar10", **values: Any) -> Config:
    """Keys with two underscores for the dot."""
    config = resolve(dataset, [{"mask": {"sparsity": 0.9}, "ddr": {"share": 0.3}, "dgm": {"share": 0.8}}])
    for key, value in values.items():
        config = config.set(key.replace("__", "."), value)
    return config


def done(epochs: list[Epoch], what: str) -> list[int]:
    """After which epochs, counted from 1, `what` happens."""
    return [e.epoch + 1 for e in epochs if getattr(e, what)]


# ---- by hand ----


def test_a_task_of_split_cifar_10() -> None:
    epochs = schedule.epochs(configured(), [10_000])
    assert [e.epoch for e in epochs] == list(range(50))
    assert done(epochs, "swap") == [5, 10, 15, 20, 25, 30, 35, 40]
    assert done(epochs, "settle") == [45]
    assert done(epochs, "expanded") == list(range(1, 46))
    assert done(epochs, "last") == [50]
    assert {e.epoch + 1: e.drop for e in epochs if e.drop} == {5: 750, 10: 750, 15: 750, 20: 750}
    samples = [10_000] * 5 + [9_250] * 5 + [8_500] * 5 + [7_750] * 5 + [7_000] * 30
    assert [e.samples for e in epochs] == samples
    assert sum(samples) == 0.775 * 50 * 10_000  # SparCL's share of the samples' epochs
    assert [e.steps for e in epochs[::5]] == [312, 289, 265, 242, 218, 218, 218, 218, 218, 218]


def test_every_task_has_its_own() -> None:
    both, first, second = (schedule.epochs(configured(), s) for s in ([400, 900], [400], [900]))
    assert [(e.samples, e.drop) for e in both] == [(e.samples, e.drop) for e in first + second]
    assert [e.task for e in both] == [0] * 50 + [1] * 50


@pytest.mark.parametrize(
    ("epochs", "swaps", "settles", "drops"),
    [(1, [], [1], {}), (2, [1], [2], {1: 28}), (3, [1, 2], [3], {1: 28}), (5, [1, 2, 3], [4], {1: 14, 2: 14})],
)
def test_short_runs(epochs: int, swaps: list[int], settles: list[int], drops: dict[int, int]) -> None:
    rows = schedule.epochs(configured(train__epochs=epochs), [96])  # 96 · 0.3 = 28.8: 7, 14, 21 and 28 in all
    assert done(rows, "swap") == swaps
    assert done(rows, "settle") == settles
    assert {e.epoch + 1: e.drop for e in rows if e.drop} == drops


def test_a_task_smaller_than_a_batch_makes_one_step() -> None:
    rows = schedule.epochs(configured(train__epochs=4), [20])
    # 20 · 0.3 = 6: 1, 3, 4 and 6 in all, after 0.4, 0.8, 1.2 and 1.6 epochs
    assert [(e.samples, e.steps) for e in rows] == [(20, 1), (16, 1), (14, 1), (14, 1)]


def test_a_task_of_one_sample() -> None:
    rows = schedule.epochs(configured(ddr__share=0.99, ddr__times=1), [1])
    assert {(e.samples, e.steps, e.drop) for e in rows} == {(1, 1, 0)}


def test_an_incomplete_batch_waits() -> None:
    assert [schedule.steps(n, 32) for n in (1, 31, 32, 33, 63, 64)] == [1, 1, 1, 1, 1, 2]


@pytest.mark.parametrize("off", [{"tdm__enabled": False}, {"mask__sparsity": 0.0}])
def test_masks_rest_where_they_are_off(off: dict[str, Any]) -> None:
    rows = schedule.epochs(configured(**off), [10_000])
    assert not any(e.expanded or e.swap or e.settle or e.scores for e in rows)
    assert sum(e.drop for e in rows) == 3000


def test_scores_come_from_an_epochs_last_steps() -> None:
    config = configured(dgm__share=1.0, tdm__steps=10)
    rows = schedule.epochs(config, [10_000])
    assert [i for i in range(312) if schedule.gathers(config, rows[4], i)] == list(range(302, 312))
    assert not any(schedule.gathers(config, rows[3], i) for i in range(312))


def test_gradient_masks_are_chosen_every_30_steps() -> None:
    config = configured()
    assert [i for i in range(100) if schedule.refreshes(config, i)] == [0, 30, 60, 90]
    assert not any(schedule.refreshes(configured(dgm__share=1.0), i) for i in range(100))
    assert not any(schedule.refreshes(configured(mask__sparsity=0.0), i) for i in range(100))


def test_rates() -> None:
    rows = schedule.epochs(configured(ddr__share=0.0), [320])
    assert {schedule.rate(configured(), e, i) for e in rows for i in range(10)} == {0.03}
    cosine = configured(train__schedule="cosine", train__rate=0.2)
    assert schedule.rate(cosine, rows[0], 0) == 0.2
    assert schedule.rate(cosine, rows[25], 0) == pytest.approx(0.1)
    assert schedule.rate(cosine, rows[24], 5) == pytest.approx(0.1 * (1 + 0.5 * 2 * 0.0314107591), abs=1e-6)  # cos(0.49 π)
    rates = [schedule.rate(cosine, e, i) for e in rows for i in range(10)]
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 1e-4


# ---- for any configuration ----

shares = st.floats(0, 1)
configs = st.builds(
    configured,
    train__epochs=st.integers(1, 60),
    train__batch=st.integers(1, 64),
    mask__sparsity=st.sampled_from([0.0, 0.5]),
    tdm__enabled=st.booleans(),
    tdm__every=st.floats(0.0001, 1),
    tdm__settle=shares,
    tdm__steps=st.integers(1, 40),
    ddr__share=st.floats(0, 0.99),
    ddr__times=st.integers(1, 30),
    ddr__until=shares,
    dgm__share=st.sampled_from([0.5, 1.0]),
    dgm__every=st.integers(1, 40),
)
tasks = st.lists(st.integers(1, 500), min_size=1, max_size=3)


@MANY
@given(configs, tasks)
def test_samples(config: Config, sizes: list[int]) -> None:
    rows = schedule.epochs(config, sizes)
    assert len(rows) == config.train.epochs * len(sizes)
    for task, size in enumerate(sizes):
        mine = [e for e in rows if e.task == task]
        assert [e.epoch for e in mine] == list(range(config.train.epochs))
        assert mine[0].samples == size
        assert all(b.samples == a.samples - a.drop >= 1 for a, b in pairwise(mine))
        assert all(e.steps == max(1, e.samples // config.train.batch) for e in mine)
        assert sum(e.drop for e in mine) <= size * config.ddr.share
        assert not mine[-1].drop  # nobody would see it
        assert [e.last for e in mine] == [False] * (len(mine) - 1) + [True]


@MANY
@given(configs, tasks)
def test_masks(config: Config, sizes: list[int]) -> None:
    dynamic = config.tdm.enabled and config.mask.sparsity > 0
    for task in range(len(sizes)):
        mine = [e for e in schedule.epochs(config, sizes) if e.task == task]
        settles = [e.epoch for e in mine if e.settle]
        assert len(settles) == dynamic
        for e in mine:
            assert e.expanded == (dynamic and e.epoch <= settles[0])
            assert not e.swap or e.epoch < settles[0]
            assert e.scores == (e.swap or e.settle)


@MANY
@given(configs, tasks)
def test_counts_of_steps_that_gather(config: Config, sizes: list[int]) -> None:
    for e in schedule.epochs(config, sizes):
        assert schedule.gathering_steps(config, e) == sum(schedule.gathers(config, e, i) for i in range(e.steps))
        assert schedule.refreshing_steps(config, e.steps) == sum(schedule.refreshes(config, i) for i in range(e.steps))
