"""A budget of compute holds on the clock too where the clock is known, for FLOPs alone elsewhere, and says which it is."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_plan import CIFAR, DIGITS, configured, factors, holds, pins, values, works
from test_timing import CLOCK

from edgecl import plan
from edgecl.cli.plantext import on_the_clock
from edgecl.config import Config, get
from edgecl.forecast import Workload
from edgecl.outlook import surely, wanted
from edgecl.plan import Device, Plan, make_plan
from edgecl.profiles import load_profile
from edgecl.timing import WORK, Clock, profile_clock, run_seconds
from edgecl.types import BudgetError


def clock(**prices: float) -> Clock:
    return replace(CLOCK, prices=tuple(prices.get(k, 0.0) for k in WORK))


COSTLY = clock(dense=1e-11, sparse=2e-11, updates=2e-11)
"""Masked FLOPs take twice as long as dense ones."""
STEPS = clock(step=1.0)
"""A machine on which nothing but the number of steps counts: removed samples save time, and nothing else does."""


def planned(budget: str, known: Clock | None = COSTLY, **keys: Any) -> Plan:
    return make_plan(configured(budget, "cifar10", **{"engine__name": "native", **keys}), CIFAR, (), Device(known))


def seconds(made: Plan, known: Clock) -> tuple[float, float]:
    """(the baseline's, the plan's), each predicted anew."""
    base = plan.baseline(made.config)
    dense = run_seconds(base, plan.build(base, made.work), made.work, known).sum()
    return float(dense), float(run_seconds(made.config, made.net, made.work, known).sum())


def said(made: Plan) -> str:
    ((_, text),) = on_the_clock(made)
    return text


def test_both_hold_where_the_clock_is_known() -> None:
    made, by_flops = planned("23x"), planned("23x", None)
    dense, own = seconds(made, COSTLY)
    assert made.clocked
    assert own * wanted(23) <= dense  # with a margin
    assert dense < 1.01 * own * wanted(23)
    assert made.clock_ratio == pytest.approx(dense / own)
    holds(made, CIFAR, "23")
    assert made.ledger.executed < by_flops.ledger.executed  # masks pay less on this clock than FLOPs say
    assert "23x holds for FLOPs and time" in said(made)


def test_the_margin_grows_with_the_ratio_and_leaves_the_dense_net_alone() -> None:
    assert wanted(1) == 1
    assert wanted(23) == pytest.approx(24.76)
    assert all(surely(wanted(f)) == pytest.approx(f) for f in (1, 1.5, 23, 400))
    assert planned("1x", COSTLY, clock="always").config.mask.sparsity == 0


def test_it_is_as_wide_and_as_dense_as_both_allow() -> None:
    made = planned("23x")
    denser = made.config.set("mask.sparsity", round(made.config.mask.sparsity - 1e-4, 4))
    assert "clock" in plan.frozen(denser, CIFAR, Device(COSTLY)).exceeds
    for width in (w for w in (round(64 * x) for x in plan.WIDTHS) if w > made.config.net.width):
        sparsest = made.config.set("net.width", width).set("mask.sparsity", plan.MOST_SPARSE)
        assert plan.frozen(sparsest, CIFAR, Device(COSTLY)).exceeds & {"clock", "compute"}


@pytest.mark.parametrize(
    ("keys", "known", "why"),
    [
        ({"clock": "never"}, COSTLY, "clock is never"),
        ({}, None, "edgecl measure calibrate, with these options, times this machine"),
        ({"engine__name": "torch"}, COSTLY, "engine torch spares no time by masks"),
        ({"device": "rpi"}, profile_clock(load_profile("rpi")), "the kernels were not timed on rpi"),
        ({}, STEPS, "no width and sparsity that the planner tries is so much faster too"),
    ],
)
def test_elsewhere_flops_alone_are_held_and_the_screen_says_why(keys: dict[str, Any], known: Clock | None, why: str) -> None:
    made, by_flops = planned("23x", known, **keys), planned("23x", None)
    assert not made.clocked
    assert "clock" not in made.shares()
    assert made.ledger.executed == by_flops.ledger.executed
    assert f"23x holds for FLOPs only: {why}" in said(made)


def test_always_refuses_what_it_can_not_hold_and_names_the_nearest() -> None:
    with pytest.raises(BudgetError, match=r"how long training takes on host is not known; see edgecl measure calibrate"):
        planned("23x", None, clock="always")
    with pytest.raises(BudgetError, match=r"the nearest possible is (\d+(\.\d)?)x") as error:
        planned("23x", STEPS, clock="always")
    nearest = re.search(r"is (\S+x)", str(error.value))[1]
    made = planned(nearest, STEPS, clock="always")
    assert made.clocked
    assert made.clock_ratio >= wanted(Fraction(nearest[:-1]))


def test_always_holds_by_a_profiles_prediction_too() -> None:
    made = planned("4x", profile_clock(load_profile("rpi")), clock="always", device="rpi")
    assert made.clocked
    assert made.clock_ratio >= 4


def test_a_recorded_prediction_of_the_baseline_is_taken_up_again() -> None:
    made = planned("23x")
    again = plan.frozen(made.config, CIFAR, Device(dense_seconds=made.dense_seconds))
    assert again.dense_seconds == made.dense_seconds
    assert again.seconds is None
    assert again.clock_ratio is None


def test_half_precision_has_a_price_of_its_own() -> None:
    config = configured("", "cifar10", engine__name="native", net__width=20)
    stored = {
        s: plan.frozen(config.set("engine.storage", s), CIFAR, Device(clock(traffic=2.0, halves=1.0))) for s in ("fp32", "fp16")
    }
    assert stored["fp32"].seconds == pytest.approx(2 * stored["fp16"].seconds)


def made_or_why(config: Config, work: Workload, pinned: dict[str, Any], known: Clock) -> Plan | str:
    try:
        return make_plan(config, work, pinned.keys(), Device(known))
    except BudgetError as e:
        return str(e)


prices = st.fixed_dictionaries({k: st.floats(0, 1) for k in WORK}).filter(lambda d: d["dense"] > 0.01 and d["sparse"] > 0.01)


@settings(max_examples=40, deadline=None)
@given(values, pins, works, factors, prices)
def test_for_any_machine_a_plan_holds_both_or_is_the_one_by_flops(
    chosen: dict[str, Any], pinned: dict[str, Any], work: Workload, factor: str, price: dict[str, float]
) -> None:
    known = clock(**{k: v * 10.0 ** -(11 if i < 4 else 9) for i, (k, v) in enumerate(price.items())})
    config = configured(f"{factor}x", **chosen, engine__name="native")
    for key, value in pinned.items():
        config = config.set(key, value)
    made, by_flops = (made_or_why(c, work, pinned, known) for c in (config, config.set("clock", "never")))
    if isinstance(made, str):
        assert made == by_flops
        return
    holds(made, work, factor)
    assert all(get(made.config, key) == value for key, value in pinned.items())
    if made.clocked:
        dense, own = seconds(made, known)
        assert dense >= wanted(float(factor)) * own * (1 - 1e-9)
    else:
        assert isinstance(by_flops, Plan)
        assert made.config == by_flops.config.set("clock", "auto")


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(1.5, 60), min_size=2, max_size=4, unique=True))
def test_a_larger_ratio_never_gives_more_time(found: list[float]) -> None:
    took = []
    for factor in sorted(found):
        made = make_plan(configured(f"{factor:.2f}x", engine__name="native"), DIGITS, (), Device(COSTLY))
        took += [made.seconds] if made.clocked else []
    assert took == sorted(took, reverse=True)
