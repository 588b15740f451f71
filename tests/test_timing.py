"""Prices are found again from steps that were made with them; work is counted as the ledger counts it; plans keep their time."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_plan import CIFAR, DIGITS, configured

from edgecl import plan, timing
from edgecl.forecast import shares
from edgecl.layout import live_weights, masked_layers, updated_weights
from edgecl.plan import HEADROOM, Device, Plan, make_plan
from edgecl.profiles import load_profile, seconds
from edgecl.timing import WORK, Clock, Counter, as_plain, fit, from_plain, held_out, profile_clock, run_seconds
from edgecl.types import BudgetError

PRICES = {
    "dense": 5e-12,
    "sparse": 6e-12,
    "updates": 3e-12,
    "gathered": 6e-12,
    "traffic": 5e-10,
    "halves": 4e-10,
    "weights": 5e-9,
    "ranked": 8e-9,
    "calls": 5e-5,
}
CLOCK = Clock(tuple(PRICES.get(k, 1e-4) for k in WORK), 16, 1e-8, 1e-9, None, "made up", True, 0.04)
HERE = Device(CLOCK, 16, 50_000_000, 60_000_000)


def planned(budget: str, dataset: str = "digits", pinned: tuple[str, ...] = (), **values) -> Plan:
    config = configured(budget, dataset, engine__name="native", **values)
    return make_plan(config, CIFAR if dataset == "cifar10" else DIGITS, pinned, HERE)


# ---- the clock ----


def test_prices_are_found_again_and_predict() -> None:
    rng = np.random.default_rng(0)
    work = [rng.uniform(0, 1, (4, len(WORK))) * 10.0 ** np.arange(len(WORK)) for _ in range(30)]
    prices = np.array([2, 0, 3, 1, 0.5, 0.4, 0.1, 0.25, 0.2, 0.3]) / 10.0 ** np.arange(len(WORK))
    took = [float((w @ prices).sum()) for w in work]
    assert fit(work, took) == pytest.approx(prices.tolist(), rel=0.02, abs=1e-9)
    assert max(map(abs, held_out(work, took))) < 0.01


def test_prices_are_never_negative() -> None:
    rng = np.random.default_rng(1)
    work = [rng.uniform(0, 1, (2, len(WORK))) for _ in range(12)]
    took = [1 + float(w[:, 0].sum()) - 0.4 * float(w[:, 1].sum()) for w in work]
    assert min(fit(work, took)) >= 0


@pytest.mark.parametrize("method", ["sgd", "er", "derpp"])
@pytest.mark.parametrize("sparsity", [0.0, 0.8])
def test_the_work_of_a_plain_step_is_the_ledgers(method: str, sparsity: float) -> None:
    config = configured(method=method, mask__sparsity=sparsity, dgm__share=0.5, engine__name="native", train__batch=16)
    made = plan.frozen(config, DIGITS)
    counter, layers = Counter(config, made.net, lanes=1), masked_layers(made.net, config)
    live, updated = live_weights(counter.costs, layers, False), updated_weights(counter.costs, layers, False, 0.5)
    found = counter.step(live, updated, gather=False)
    meter = plan.simulate(config, made.net, DIGITS).costs
    from edgecl.forecast import Meter, method_of

    wanted = Meter(config, meter, layers, method_of(config)).step(live, updated, gather=False)[0].sum(axis=0)
    assert found[:-1, :4].sum(axis=1).tolist() == wanted.tolist()


def test_an_engine_that_skips_nothing_is_timed_dense() -> None:
    config = configured(mask__sparsity=0.9, tdm__enabled=False)
    net = plan.build(config, DIGITS)
    torch, dense = (run_seconds(c, net, DIGITS, CLOCK).sum() for c in (config, config.set("mask.sparsity", 0.0)))
    assert torch == pytest.approx(dense)
    assert run_seconds(config.set("engine.name", "native"), net, DIGITS, CLOCK).sum() < dense


def test_a_clock_is_kept_as_plain_values() -> None:
    assert from_plain(as_plain(CLOCK)) == CLOCK
    with pytest.raises(KeyError):
        from_plain({k: v for k, v in as_plain(CLOCK).items() if k != "upkeep"})


def test_a_profile_predicts_no_less_than_its_dense_training() -> None:
    profile = load_profile("rpi")
    made = plan.frozen(configured("", "cifar10"), CIFAR, Device(profile_clock(profile)))
    assert seconds(profile, made.ledger.executed) < made.seconds < 1.5 * seconds(profile, made.ledger.executed)
    assert profile_clock(load_profile("host")) is None


# ---- plans ----


def test_every_limit_holds_by_prediction() -> None:
    made = planned("5x,20min,150MB,20kJ", "cifar10", train__epochs=2)
    assert made.ratio >= 5
    assert HEADROOM * made.seconds <= 1200
    assert made.bytes <= 150e6
    assert HEADROOM * made.joules <= 20_000
    assert made.shares().keys() == {"compute", "clock", "time", "memory", "energy"}
    assert made.clock_limit == min(1200, 20_000 / made.power.value)


def test_what_fits_anyway_stays_dense_and_whole() -> None:
    made = planned("1000h,100GB")
    assert (made.config.mask.sparsity, made.config.ddr.share, made.config.net.width) == (0, 0, 0)


def test_memory_narrows_and_leaves_the_rest_whole() -> None:
    made = planned("200MB,100h", "cifar10")
    assert made.config.net.width > 0
    assert (made.config.ddr.share, made.config.dgm.share, made.config.mask.sparsity) == (0, 1, 0)


def rank_or_none(budget: str, dataset: str) -> tuple[float, ...]:
    """The planner's order: a wider net first, then more epochs, then fewer masks; () where nothing fits, below all else."""
    try:
        made = planned(budget, dataset)
    except BudgetError:
        return ()
    full = plan.full_width(made.config.net.name)
    return (made.config.net.width or full, made.config.train.epochs, -made.config.mask.sparsity)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.3, 400), min_size=2, max_size=5, unique=True))
def test_more_time_never_gives_a_narrower_or_a_sparser_net(times: list[float]) -> None:
    found = [rank_or_none(f"{t:.3f}s", "digits") for t in sorted(times)]
    assert found == sorted(found)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(60, 700), min_size=2, max_size=4, unique=True))
def test_more_memory_never_gives_a_narrower_net(sizes: list[int]) -> None:
    found = [rank_or_none(f"{size}MB", "cifar10") for size in sorted(sizes)]
    assert found == sorted(found)


def test_the_nearest_of_each_kind_can_be_met() -> None:
    config = configured("3x,1s,20MB", "cifar10", engine__name="native")
    with pytest.raises(BudgetError) as error:
        make_plan(config, CIFAR, (), HERE)
    nearest = re.search(r"the nearest possible is (\S+)", str(error.value))[1]
    assert len(nearest.split(",")) == 3
    again = make_plan(config.set("budget", nearest), CIFAR, (), HERE)
    assert again.holds


def test_pinned_epochs_stay() -> None:
    with pytest.raises(BudgetError, match=r"with train\.epochs pinned"):
        planned("0.5s", pinned=("train.epochs",))


def test_what_can_not_be_predicted_is_said() -> None:
    for budget, why in (("1s", "how long training takes on host is not known"), ("5J", "the energy"), ("1GB", "engine native")):
        with pytest.raises(BudgetError, match=why):
            make_plan(configured(budget), DIGITS)


def test_another_devices_clock_does_not_stop_this_machine() -> None:
    made = make_plan(configured("100h", device="rpi"), DIGITS, (), replace(HERE, clock=profile_clock(load_profile("rpi"))))
    assert made.clock_limit is None
    assert made.power.value == load_profile("rpi").power_load_w.value


def test_a_meters_watts_come_first() -> None:
    made = make_plan(configured("1000h"), DIGITS, (), replace(HERE, clock=replace(CLOCK, watts=7.5)))
    assert made.power.value == 7.5
    assert "measured" in made.power.source
    assert made.joules == pytest.approx(7.5 * made.spent)


def test_shares_grow_to_one() -> None:
    config = configured("", mask__sparsity=0.8, ddr__share=0.3, dgm__share=0.8)
    found = shares(config, plan.build(config, DIGITS), DIGITS.sizes)
    assert found == sorted(found)
    assert math.isclose(found[-1], 1)
    assert timing.WORK[0] == "dense"


def test_a_limit_of_time_is_of_tests_and_snapshots_too() -> None:
    work = replace(DIGITS, tests=(70,) * 5)
    config = configured("", engine__name="native")
    bare, tested = (plan.frozen(config, w, HERE) for w in (DIGITS, work))
    assert tested.seconds == bare.seconds
    assert tested.aside_seconds > bare.aside_seconds > 0  # snapshots alone
    assert tested.spent == tested.seconds + tested.aside_seconds
    between = HEADROOM * (tested.seconds + tested.spent) / 2
    assert plan.frozen(config.set("budget", f"{between:.6f}s"), work, HERE).exceeds == {"time"}
    assert plan.frozen(config.set("budget", f"{1.001 * HEADROOM * tested.spent:.6f}s"), work, HERE).holds


def test_snapshots_within_tasks_take_a_share_at_most_where_time_is_limited() -> None:
    slow = replace(HERE, clock=replace(CLOCK, snapshot=1e-3))
    free, limited = (plan.frozen(configured(b, engine__name="native"), DIGITS, slow) for b in ("", "1000h"))
    each = 1e-3 * timing.snapshot_bytes(free.config, free.net)
    assert free.aside_seconds == pytest.approx(100 * each)  # 20 epochs in each of five tasks
    assert limited.aside_seconds == pytest.approx(5 * each + timing.SAVING * limited.seconds)
