"""A frozen prefix in the loop: what it costs, when it begins, which masks move, and that a run goes on as it was."""

from __future__ import annotations

import json
import math
import signal
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from run_cases import SPARCL, begun, finished, planned, ticks
from test_forecast import DRAW, K, N, counted, part
from test_ledger import CONV, HEAD, NET, STEM, total
from test_ledger import configured as by_hand
from test_plan import CIFAR, DIGITS, configured
from test_resume import FULL, end, start
from test_timing import CLOCK

from edgecl import config as configs
from edgecl import plan, schedule
from edgecl.cli.plantext import chain
from edgecl.cost import dense, layer_costs
from edgecl.engines import make_engine
from edgecl.footprint import run_bytes
from edgecl.forecast import meter_of, method_of
from edgecl.layout import frozen_nodes
from edgecl.nets import build_net, prefix
from edgecl.nets.init import initial
from edgecl.timing import Counter, run_seconds
from edgecl.types import Batch, ConfigError

UNTIL = "freeze={until: relu2, after: 1}"
THREE = (*SPARCL, UNTIL, "data={classes_per_task: 4, samples_per_class: 20}")
FROZEN = ("conv1", "conv2")


# ---- which nodes ----


def test_a_prefix_is_a_node_or_a_group_with_all_that_it_reads() -> None:
    net = build_net("resnet18", (3, 32, 32), 10, 8)
    until = {u: prefix(net, u, "k") for u in ("", "conv1", "relu", "layer2", "layer3.0", "layer4")}
    assert until[""] == frozenset()
    assert until["conv1"] == {"conv1"}
    assert until["relu"] == {"conv1", "bn1", "relu"}
    assert {n.split(".")[0] for n in until["layer2"]} == {"conv1", "bn1", "relu", "layer1", "layer2"}
    assert until["layer3.0"] - until["layer2"] == {n.name for n in net.nodes if n.name == "layer3.0" or "layer3.0." in n.name}
    assert until["layer4"] == {n.name for n in net.nodes} - {"classifier"}  # the pool has no weights: it comes along


@pytest.mark.parametrize(
    ("until", "why"),
    [
        ("layer22", "freeze.until: net resnet18 has no node or layer 'layer22'; did you mean 'layer2'?"),
        ("layer3.0.con2", "freeze.until: net resnet18 has no node or layer 'layer3.0.con2'; did you mean 'layer3.0.conv2'?"),
        (
            "classifier",
            "freeze.until: 'classifier': the frozen prefix holds the classifier (classifier), so that nothing would learn",
        ),
    ],
)
def test_a_wrong_prefix_is_refused_before_anything_runs(until: str, why: str) -> None:
    with pytest.raises(ConfigError) as error:
        plan.make_plan(configured("", "cifar10", freeze__until=until), CIFAR)
    assert str(error.value) == why


# ---- when ----


@pytest.mark.parametrize(("after", "frozen"), [(0, [1, 1, 1]), (1, [0, 1, 1]), (2, [0, 0, 1]), (5, [0, 0, 0])])
def test_it_begins_after_so_many_tasks(after: int, frozen: list[int]) -> None:
    config = configured(train__epochs=2).set("freeze.until", "relu2").set("freeze.after", after)
    assert [e.frozen for e in schedule.epochs(config, (20, 20, 20))] == [bool(f) for f in frozen for _ in range(2)]
    assert not any(e.frozen for e in schedule.epochs(config.set("freeze.until", ""), (20, 20, 20)))


# ---- what it costs ----


def test_frozen_costs_by_hand() -> None:
    """Two tasks of 3 steps, 4 epochs each, 2 samples a step and no replay; the stem and its norm are frozen in the second."""
    steps = 4 * 3
    run = total(by_hand(method="sgd", freeze__until="relu"), 6, 6)
    assert run["forward"] == 2 * steps * 2 * (STEM + CONV + HEAD)
    assert run["weight_gradient"] == steps * 2 * (STEM + CONV + HEAD) + steps * 2 * (CONV + HEAD)
    assert run["input_gradient"] == steps * 2 * (CONV + HEAD) + steps * 2 * HEAD  # the first live layer has none
    whole = total(by_hand(method="sgd"), 6)["paper"]
    assert run["paper"] == whole + steps * 2 * ((STEM + CONV + HEAD) + CONV + HEAD + HEAD)


def test_frozen_replay_costs_by_hand_in_the_papers_convention() -> None:
    """DER++: forward for the current sample and both draws; backward as above."""
    run, steps = total(by_hand(freeze__until="relu", freeze__after=0), 6), 4 * 3
    assert run["paper"] == steps * 2 * (3 * (STEM + CONV + HEAD) + CONV + 2 * HEAD)
    assert (run["replay_weight_gradient"], run["replay_input_gradient"]) == (steps * 4 * (CONV + HEAD), steps * 4 * HEAD)


def test_frozen_masked_layers_gather_and_keep_nothing() -> None:
    """Masks of the only masked layer rest: no upkeep, no scores, and it does not expand."""
    config = by_hand(mask__sparsity=0.5, mask__unit="kernel", dgm__share=0.5, tdm__expand=0.25, method="sgd")
    run = total(config.set("freeze.until", "conv").set("freeze.after", 0), 6)
    assert (run["upkeep"], run["scoring"]) == (0, 0)
    assert run["forward"] == 4 * 3 * 2 * (STEM + CONV // 2 + HEAD)
    assert (run["weight_gradient"], run["input_gradient"]) == (4 * 3 * 2 * HEAD, 0)


@pytest.mark.parametrize(("how", "score", "until"), [*product(("concat", "separate"), (False, True), ("conv1", "relu2", "pool"))])
def test_the_meter_agrees_with_torch(how: str, score: bool, until: str) -> None:
    values = {"train": {"batch": N}, "memory": {"batch": DRAW}, "mask": {"sparsity": 0.5}, "freeze": {"until": until}}
    config = configs.resolve("", [{"method": {"name": "derpp", "forward": how}, **values}])
    net, method, rng = build_net("small_cnn", (1, 8, 8), K, 8), method_of(config), np.random.default_rng(0)
    engine, meter = make_engine("torch", net), meter_of(config, net)
    engine.load({**engine.arrays(), **initial(net, rng)})
    engine.set_frozen(frozen_nodes(net, config))
    everything = dense(meter.costs)
    batch = Batch((part(rng, N), *(part(rng, DRAW) for _ in range(method.draws))), *np.ones((2, K), np.float32), np.float32(0.1))
    assert counted(engine, method, batch, score) == meter.step(everything, everything, gather=score, frozen=True)[0].sum()


EXACT = {
    "dense": (UNTIL,),
    "masked": THREE,
    "from the start": (*THREE, "freeze.after=0"),
    "after two": (*THREE, "freeze.after=2"),
    "all but the classifier": (*THREE, "freeze.until=pool"),
    "all masked layers": (*THREE, "freeze.until=conv4", "mask.unit=weight"),
    "grown by gradient": (*THREE, "tdm.grow=gradient"),
    "joined passes": (*THREE, "method.forward=concat"),
    "er": (*THREE, "method=er"),
    "joint is one task": (*THREE, "method=joint"),
    "native": (*THREE, "engine.name=native"),
    "numpy": (*THREE, "engine.name=numpy", "train.epochs=2"),
    "a budget": (UNTIL, "budget=9x", "net.width=0"),
}


@pytest.mark.parametrize("sets", EXACT.values(), ids=EXACT.keys())
def test_executed_is_what_was_forecast(tmp_path: Path, sets: tuple[str, ...]) -> None:
    setup, state = finished(tmp_path / "run", *sets)
    assert (state.ledger.table == setup.plan.ledger.table).all()
    assert (state.ledger.executed, state.ledger.paper) == (setup.plan.ledger.executed, setup.plan.ledger.paper)


def test_the_baseline_is_not_frozen_and_the_chain_says_what_freezing_gives() -> None:
    made = plan.make_plan(configured("", "cifar10", freeze__until="layer2"), CIFAR)
    assert plan.baseline(made.config).freeze.until == ""
    factors = chain(made, CIFAR)
    assert math.prod(factors.values()) == pytest.approx(made.ratio)
    assert {k for k, v in factors.items() if v != 1} == {"frozen prefix"}
    assert 1.35 < factors["frozen prefix"] < 1.45  # in 4 of 5 tasks half of the FLOPs are forward only


def test_a_pinned_prefix_leaves_the_planner_more_weights() -> None:
    frozen, usual = (plan.make_plan(configured("9x", freeze__until=u), DIGITS, {"freeze.until"}) for u in ("relu2", ""))
    assert frozen.config.freeze.until == "relu2"
    assert frozen.ratio >= 9
    order = [(p.config.net.width, -p.config.mask.sparsity) for p in (frozen, usual)]
    assert order[0] > order[1]


# ---- time and memory ----


@pytest.mark.parametrize("engine", ["native", "torch"])
@pytest.mark.parametrize("sparsity", [0.0, 0.8])
def test_the_work_of_a_frozen_step_is_the_ledgers(engine: str, sparsity: float) -> None:
    config = configured(mask__sparsity=sparsity, dgm__share=0.5, engine__name=engine, train__batch=16, freeze__until="relu2")
    config = config.set("tdm.enabled", False)
    net = plan.build(config, DIGITS)
    counter, meter = Counter(config, net, lanes=1), meter_of(config, net)
    (epoch,) = {e for e in schedule.epochs(config, (50, 50)) if e.task == 1 and e.last}
    live, updated = meter.weights(epoch) if engine == "native" else (dense(meter.costs),) * 2
    wanted = meter.step(live, updated, gather=False, frozen=True)[0].sum(axis=0)
    found = counter.step(live, updated, gather=False, frozen=True)
    assert found[:-1, :4].sum(axis=1).tolist() == wanted.tolist()
    assert found.sum() < counter.step(live, updated, gather=False).sum()


@pytest.mark.parametrize("engine", ["native", "torch", "numpy"])
def test_a_time_budget_gains(engine: str) -> None:
    config = configured("", "cifar10", engine__name=engine)
    net = plan.build(config, CIFAR)
    seconds = [run_seconds(config.set("freeze.until", u), net, CIFAR, CLOCK).sum() for u in ("", "layer1", "layer3")]
    assert seconds[0] > seconds[1] > seconds[2]


def test_memory_gains_only_if_no_task_needs_it_all() -> None:
    config = configured("", "cifar10", freeze__until="layer2", engine__name="native")
    net = plan.build(config, CIFAR)
    usual, later, soon = (
        run_bytes(c, net, 16)["activations"] for c in (config.set("freeze.until", ""), config, config.set("freeze.after", 0))
    )
    assert usual == later
    assert soon < usual / 2


# ---- a run ----


@pytest.mark.parametrize("engine", ["native", "torch", "numpy"])
def test_a_frozen_run_keeps_its_prefix(tmp_path: Path, engine: str) -> None:
    """Weights, statistics and masks of the first task's end are there at the end; all else has moved."""
    setup, state = begun(tmp_path / "run", *THREE, "tdm.swap=0.2", "train={epochs: 3, momentum: 0.9}", f"engine.name={engine}")
    nodes, kept, live = frozen_nodes(setup.plan.net, setup.config), {}, {}
    for _ in ticks(setup, state):
        if setup.epochs[state.at].frozen and not kept:  # one step into the second task
            kept, live = state.engine.arrays(), {k: v.copy() for k, v in state.live.items()}
    last = state.engine.arrays()
    held = {k for k in kept if k.removeprefix("momentum.").rpartition(".")[0] in nodes}
    assert [k for k in kept if k in held and kept[k].tobytes() != last[k].tobytes()] == []
    assert [k for k in kept if k not in held and np.array_equal(kept[k], last[k])] == []
    assert {k for k in live if np.array_equal(live[k], state.live[k])} == set(FROZEN) & set(live)
    assert live.keys() - set(FROZEN)


def test_a_frozen_task_does_not_begin_with_other_masks(tmp_path: Path) -> None:
    setup, state = begun(tmp_path / "run", *THREE, "train.epochs=3")
    for _ in ticks(setup, state):
        epoch = setup.epochs[state.at]
        for name, layer in setup.layers.items():
            expanded = epoch.expanded and not (epoch.frozen and name in FROZEN)
            assert int(state.live[name].sum()) == layer.target(expanded)


@pytest.mark.parametrize("engine", ["native", "torch"])
@pytest.mark.parametrize("step", [13, 16, 21])  # the first task has 12 steps
def test_a_killed_frozen_run_ends_as_one_that_never_was(tmp_path: Path, engine: str, step: int) -> None:
    sets = (*FULL, UNTIL, f"engine.name={engine}")
    child = start(tmp_path / "killed", sets, ("step", step))
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert end(tmp_path / "killed", sets) == end(tmp_path / "whole", sets)


def test_what_is_frozen_is_in_the_plan_and_in_the_snapshot(tmp_path: Path) -> None:
    setup, state = finished(tmp_path / "run", *THREE)
    text = (tmp_path / "run" / "snapshots" / f"{state.snapshots:03d}" / "state.json").read_text()
    assert json.loads(text)["state"]["config"]["freeze"] == {"until": "relu2", "after": 1}
    assert planned(*THREE)[0].ledger.executed == setup.plan.ledger.executed


def test_layers_behind_a_prefix_by_hand() -> None:
    costs = {c.name: (c.input_gradient, c.frozen, c.spared) for c in layer_costs(NET, prefix(NET, "relu", "k"))}
    assert costs == {"stem": (False, True, True), "conv": (False, False, True), "classifier": (True, False, False)}
