"""What a budget turns on beside masks, and that the baseline stays the method as it was named."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from run_cases import begun, to_end
from run_cases import configured as small
from test_plan import CIFAR, configured

from edgecl import plan, recipe, session
from edgecl.config import Config, get, leaves, merge
from edgecl.measure import key as calibration
from edgecl.plan import make_plan

RECORDS = Path(__file__).parent.parent / "bench/records"
WON = {"method.draws": 1, "memory.batch": 16, "train.momentum": 0.9, "train.rate": 0.003, "train.average": 0.1}
"""Of c10-w64-onedraw16-momentum-average-e16, the best of the records at a 23rd."""


def changed(config: Config, pinned: Collection[str] = ()) -> dict[str, object]:
    made = recipe.apply(config, pinned)
    return {k: v for k, v in leaves(made.to_dict()) if get(config, k) != v}


def test_cifar_at_23x_takes_the_recipe_that_won() -> None:
    made = make_plan(configured("23x", "cifar10"), CIFAR)
    assert {k: get(made.config, k) for k in WON} == WON
    assert made.net == plan.build(configured(dataset="cifar10"), CIFAR)  # full width
    assert 0.9 < made.config.mask.sparsity < 0.905


def test_the_baseline_is_der_as_published() -> None:
    made, two = make_plan(configured("23x", "cifar10"), CIFAR), plan.frozen(configured(dataset="cifar10"), CIFAR)
    base = plan.baseline(made.config)
    assert made.dense.state() == two.ledger.state()
    assert (*recipe.replay(base), base.memory.dense_draws, base.memory.dense_batch) == (2, 32, 0, 0)
    kept = ("train.momentum", "train.rate", "train.average")
    assert [get(base, k) for k in kept] == [WON[k] for k in kept]


@pytest.mark.parametrize("budget", ["10x", "10min", "5Wh"])
def test_limits_of_work_turn_it_on(budget: str) -> None:
    assert "method.draws" in changed(configured(budget, "cifar10"))


def test_no_budget_and_one_of_memory_alone_leave_it_off() -> None:
    for made in (make_plan(configured(b, "cifar10"), CIFAR) for b in ("", "1x")):
        assert recipe.replay(made.config) == (2, 32)
        assert made.config.train.momentum == 0
    assert all(recipe.replay(c) == (2, 32) for c in plan._candidates(configured("300MB", "cifar10"), ()))


@pytest.mark.parametrize("pin", sorted(WON))
def test_what_is_pinned_stays_and_so_does_what_goes_with_it(pin: str) -> None:
    stays = {"train.momentum", "train.rate"} if pin in ("train.momentum", "train.rate") else {pin}
    assert changed(configured("23x", "cifar10"), {pin}).keys() & WON.keys() == WON.keys() - stays


def test_what_somebody_set_before_is_not_changed_again() -> None:
    once = recipe.apply(configured("23x", "cifar10"))
    assert recipe.apply(once) == once
    own = once.set("memory.batch", 12).set("train.momentum", 0.5).set("train.average", 0.3)
    assert recipe.apply(own) == own


def test_a_falling_rate_needs_no_smoothing() -> None:
    """On digits momentum cost 1.7 points there (docs/adr/0011)."""
    falling = configured("23x", "cifar10", train__schedule="cosine")
    assert changed(falling).keys() == {"method.draws", "memory.batch", "memory.dense_draws", "memory.dense_batch"}


@pytest.mark.parametrize("method", ["er", "er_ace", "sgd", "joint"])
def test_other_methods_train_as_named(method: str) -> None:
    assert changed(configured("23x", "cifar10", method=method)) == {}


def test_a_batch_of_one_is_not_halved() -> None:
    assert recipe.replay(recipe.apply(configured("23x", train__batch=1))) == (1, 1)


def test_a_pinned_draw_is_the_baselines_too() -> None:
    pinned = make_plan(configured("9x", "cifar10", method__draws=1), CIFAR, {"method.draws"})
    assert recipe.replay(plan.baseline(pinned.config)) == (1, 32)


def test_another_method_laid_over_a_resolved_configuration_has_its_own_baseline() -> None:
    er = recipe.apply(configured("23x", "cifar10")).set("method", "er")
    assert plan.baseline(er).method["name"] == "er"


def test_the_calibration_is_that_of_the_method_as_named() -> None:
    stream, config = session.read_stream(small()), small("engine.name=numpy")
    assert calibration(recipe.apply(config), stream) == calibration(config, stream)


def test_a_resumed_run_knows_its_baseline(tmp_path: Path) -> None:
    run = tmp_path / "run"
    setup, state = begun(run, "budget=6x")
    planned = setup.plan.dense.executed
    assert recipe.replay(setup.config) == (1, 8)
    state.metrics.close()
    setup, state = session.resume(run)
    assert setup.plan.dense.executed == planned
    to_end(setup, state)
    session.result(setup, state)
    assert json.loads((run / "ledger.json").read_text())["dense_executed"] == planned


RECORDED = sorted(RECORDS.glob("c10-derpp-23x-*/config.yaml"))


def test_configurations_from_before_are_among_them() -> None:
    draws = [yaml.safe_load(p.read_text())["config"]["memory"].get("dense_draws") for p in RECORDED]
    assert draws.count(None) >= 4
    assert 2 in draws


@pytest.mark.parametrize("path", RECORDED, ids=lambda p: p.parent.name)
def test_a_recorded_configuration_has_the_plan_that_it_had(path: Path) -> None:
    recorded = yaml.safe_load(path.read_text())
    config, before = merge(Config(), recorded["config"]), recorded["plan"]
    work = replace(CIFAR, sizes=(2 * (config.data.samples_per_class or 5_000),) * 5)
    made = plan.frozen(config, work)
    assert (made.ledger.executed, made.dense.executed) == (before["executed"], before["dense_executed"])
