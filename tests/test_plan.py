"""Plans hold their budget, are as dense as it allows, keep what is pinned, and name the nearest that is possible."""

from __future__ import annotations

import re
import time
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecl import plan, recipe
from edgecl.config import Config, get, leaves, resolve
from edgecl.forecast import Workload, simulate
from edgecl.plan import OPEN, WIDTHS, Device, Plan, make_plan
from edgecl.types import BudgetError

CIFAR = Workload((3, 32, 32), 10, (10_000,) * 5)
DIGITS = Workload((1, 8, 8), 10, (289, 289, 291, 289, 284))


def configured(budget: str = "", dataset: str = "digits", **values: Any) -> Config:
    """Keys with two underscores for the dot."""
    config = resolve(dataset, [{"budget": budget}])
    for key, value in values.items():
        config = config.set(key.replace("__", "."), value)
    return config


def refused(config: Config, work: Workload = DIGITS, pinned: tuple[str, ...] = ()) -> str:
    with pytest.raises(BudgetError) as error:
        make_plan(config, work, pinned)
    return str(error.value)


def holds(made: Plan, work: Workload, factor: str) -> None:
    """Within the budget, and no ten-thousandth denser within it."""
    dense = simulate(plan.baseline(made.config), plan.build(plan.baseline(made.config), work), work).executed
    assert made.dense.executed == dense
    assert made.ledger.executed * Fraction(factor) <= dense
    assert made.ledger.executed <= made.limit


def denser(made: Plan, work: Workload) -> Plan:
    config = made.config.set("mask.sparsity", round(made.config.mask.sparsity * 10_000 - 1) / 10_000)
    return plan.frozen(config, work)


# ---- budgets ----


def test_no_budget_changes_nothing() -> None:
    config = configured(mask__sparsity=0.5)
    made = make_plan(config, DIGITS)
    assert (made.config, made.limit) == (config, None)
    assert make_plan(configured(), DIGITS).ratio == 1


# ---- what is chosen ----


def test_the_main_job_on_digits() -> None:
    made = make_plan(configured("23x"), DIGITS)
    holds(made, DIGITS, "23")
    assert 23 <= made.ratio < 23.2
    assert (made.config.ddr.share, made.config.dgm.share) == (plan.DDR_SHARE, plan.DGM_SHARE)
    assert denser(made, DIGITS).ledger.executed > made.limit


def test_resnet18_at_23x_is_planned_at_once() -> None:
    config = configured("23x", "cifar10")
    make_plan(config, DIGITS)  # what is loaded at first use
    began = time.perf_counter()
    made = make_plan(config, CIFAR)
    assert time.perf_counter() - began < 2
    holds(made, CIFAR, "23")
    assert denser(made, CIFAR).ledger.executed > made.limit


def test_the_widest_net_that_fits_is_taken() -> None:
    for budget in ("2x", "8x", "40x"):
        made = make_plan(configured(budget), DIGITS)
        widths = [max(4, round(32 * w)) for w in WIDTHS]
        wider = widths[: widths.index(made.config.net.width)]
        for width in wider:
            sparsest = made.config.set("net.width", width).set("mask.sparsity", plan.MOST_SPARSE)
            assert plan.frozen(sparsest, DIGITS).ledger.executed > made.limit


def test_what_is_within_the_budget_anyway_stays_unmasked() -> None:
    assert make_plan(configured("1x"), DIGITS).config.mask.sparsity == 0
    tiny = configured("1x", net__name="mlp", train__batch=1, train__epochs=1)  # masks would cost more here than they save
    assert make_plan(tiny, DIGITS).config.mask.sparsity == 0


def test_joint_is_planned_as_it_runs() -> None:
    made = make_plan(configured("5x", method="joint"), DIGITS)
    holds(made, DIGITS, "5")
    assert made.config.method["name"] == "joint"


def test_a_frozen_plan_is_the_plan() -> None:
    made = make_plan(configured("23x"), DIGITS)
    again = plan.frozen(made.config, DIGITS)
    assert (again.config, again.net, again.limit) == (made.config, made.net, made.limit)
    assert (again.ledger.state(), again.dense.state()) == (made.ledger.state(), made.dense.state())


def test_the_baseline_is_dense_and_otherwise_the_same() -> None:
    config = configured("23x", mask__sparsity=0.5, train__batch=8, method="er").set("method.class_mask", "seen")
    base = plan.baseline(config)
    changed = {
        k for k in ("data", "net", "method", "train", "memory", "mask", "tdm", "ddr", "dgm") if get(base, k) != get(config, k)
    }
    assert changed == {"mask"}
    assert (base.net.width, base.mask.sparsity, base.ddr.share, base.dgm.share, base.budget) == (0, 0, 0, 1, "")


def test_long_runs_count_more_flops_than_a_float_holds() -> None:
    work = Workload((3, 32, 32), 10, (10_000_019,) * 7)
    config = configured("7x", "cifar10", train__epochs=101)
    made = make_plan(config, work)
    assert made.dense.executed > 2**60
    assert made.limit == made.dense.executed // 7


# ---- what is pinned ----


@pytest.mark.parametrize(
    ("key", "value"), [("net.width", 12), ("mask.sparsity", 0.8), ("ddr.share", 0.0), ("dgm.share", 1.0), ("ddr.share", 0.5)]
)
def test_pinned_keys_stay(key: str, value: float) -> None:
    made = make_plan(configured("9x").set(key, value), DIGITS, {key, "budget"})
    holds(made, DIGITS, "9")
    assert get(made.config, key) == value
    if key != "mask.sparsity":
        assert made.config.mask.sparsity == 0 or denser(made, DIGITS).ledger.executed > made.limit


def test_a_pinned_key_that_forbids_the_budget_is_named() -> None:
    said = refused(configured("90x", net__width=32, ddr__share=0.0), pinned=("ddr.share", "net.width", "train.epochs"))
    assert re.fullmatch(r"budget 90x: the nearest possible is \d+(\.\d)?x with ddr\.share, net\.width pinned", said)


def test_no_budget_at_all_can_be_met() -> None:
    said = refused(configured("2x", net__width=64, mask__sparsity=0.0), pinned=("net.width", "mask.sparsity"))
    assert re.fullmatch(
        r"budget 2x: none can be met, the least cost is \d\.\d\d times the dense baseline's with mask.sparsity, net.width pinned",
        said,
    )


# ---- for any configuration ----

works = st.builds(
    Workload,
    st.tuples(st.integers(1, 3), st.integers(6, 10), st.integers(6, 10)),
    st.integers(2, 10),
    st.lists(st.integers(1, 120), min_size=1, max_size=3).map(tuple),
)
values = st.fixed_dictionaries(
    {
        "net__name": st.sampled_from(["small_cnn", "mlp"]),
        "method": st.sampled_from(["sgd", "joint", "er", "derpp", "er_ace"]),
        "train__epochs": st.integers(1, 12),
        "train__batch": st.integers(1, 32),
        "memory__batch": st.integers(0, 20),
        "mask__unit": st.sampled_from(["auto", "weight", "kernel", "block4x4", "channel"]),
        "mask__start": st.sampled_from(["uniform", "erk"]),
        "tdm__enabled": st.booleans(),
        "tdm__expand": st.floats(0, 0.1),
        "tdm__steps": st.integers(1, 12),
        "tdm__grow": st.sampled_from(["random", "gradient"]),
        "dgm__every": st.integers(1, 40),
    }
)
pins = st.fixed_dictionaries(
    {},
    optional={
        "net.width": st.integers(4, 40),
        "mask.sparsity": st.floats(0, 0.99),
        "ddr.share": st.floats(0, 0.9),
        "dgm.share": st.floats(0.1, 1),
    },
)
factors = st.one_of(st.floats(1, 40), st.floats(40, 400)).map(lambda f: f"{f:.1f}")


@settings(max_examples=80, deadline=None)
@given(values, pins, works, factors)
def test_any_plan_holds_or_the_nearest_does(chosen: dict[str, Any], pinned: dict[str, Any], work: Workload, factor: str) -> None:
    config = configured(f"{factor}x", **chosen)
    for key, value in pinned.items():
        config = config.set(key, value)
    try:
        made = make_plan(config, work, pinned.keys())
    except BudgetError as e:
        nearest_is_tight(config, work, pinned, str(e), factor)
        return
    holds(made, work, factor)
    assert all(get(made.config, key) == value for key, value in pinned.items())
    left = {"data", "method", "train", "memory", "tdm", "seed", "budget"}
    changed = {k for k, v in leaves(config.to_dict()) if k.split(".")[0] in left and get(made.config, k) != v}
    assert changed <= set(recipe.KEYS if config.method["name"] == "derpp" else ())
    if "mask.sparsity" not in pinned and made.config.mask.sparsity:
        assert denser(made, work).ledger.executed > made.limit


def nearest_is_tight(config: Config, work: Workload, pinned: dict[str, Any], said: str, factor: str) -> None:
    assert all(key in said for key in pinned if key in OPEN)
    if "none can be met" in said:
        with pytest.raises(BudgetError, match="none can be met"):
            make_plan(config.set("budget", "1x"), work, pinned.keys())
        return
    nearest = re.search(r"the nearest possible is (\S+)x", said)[1]
    assert Fraction(nearest) < Fraction(factor)
    holds(make_plan(config.set("budget", f"{nearest}x"), work, pinned.keys()), work, nearest)
    beyond = Fraction(nearest) + Fraction(1, 10)
    with pytest.raises(BudgetError, match=f"the nearest possible is {re.escape(nearest)}x"):
        make_plan(config.set("budget", f"{float(beyond):.1f}x"), work, pinned.keys())


# ---- how activations are stored ----


def planned_in(megabytes: int, pinned: tuple[str, ...] = ("net.width",), **values: Any) -> Plan:
    """ResNet-18 of width 20 on CIFAR-10, in a process of 40 MB."""
    config = configured(f"{megabytes}MB", "cifar10", net__width=20, engine__name="native", **values)
    work = Workload((3, 32, 32), 10, (500,) * 5)
    return make_plan(config, work, pinned, Device(lanes=16, resident=40_000_000, before=40_000_000))


def test_half_precision_is_stored_only_where_full_does_not_fit() -> None:
    full, half = planned_in(400), planned_in(400, engine__storage="fp16")
    assert (full.config.engine.storage, half.config.engine.storage) == ("fp32", "fp16")
    assert full.parts is not None
    assert half.parts is not None
    assert 0.5 < half.parts["activations"] / full.parts["activations"] < 0.56  # gradients of it stay floats
    assert full.bytes is not None
    assert half.bytes is not None
    between = (full.bytes + half.bytes) // 2_000_000
    assert planned_in(between).config.engine.storage == "fp16"
    assert planned_in(-(-full.bytes // 1_000_000)).config.engine.storage == "fp32"


def test_pinned_storage_stays() -> None:
    with pytest.raises(BudgetError, match=r"nearest possible is \d+(\.\d+)?MB with engine\.storage, net\.width pinned"):
        planned_in(70, ("net.width", "engine.storage"))
