"""A frozen prefix: its arrays keep their bits, it runs as in a prediction, and what is live learns as the formulas say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import reference_net
from engine_cases import (
    JOINED,
    NETS,
    PASSES,
    SEPARATE,
    TINY,
    branched,
    data,
    error,
    gated,
    gradients,
    half_live,
    on_engines,
    on_nets,
    run,
    start,
)
from training import batches, direct, learner, same, stepper, sums

from edgecl.engines import Engine, numpy_ops
from edgecl.engines.native_bytes import pass_bytes
from edgecl.engines.numpy_windows import from_columns
from edgecl.kernels import Kind
from edgecl.nets import Net, build_net, prefix
from edgecl.types import ConfigError

Setting = tuple[str, Mapping[str, Any]]
SMALL = build_net("small_cnn", (3, 8, 8), 5, 4)
RESNET = build_net("resnet18", (3, 8, 8), 5, 4)
on_kinds = pytest.mark.parametrize("unit", ["", "kernel", "weight", "block4x4"])
UNTIL = [(net, n.name) for net in (branched(), gated()) for n in net.nodes if n.name != "logits"]
on_prefixes = pytest.mark.parametrize(("net", "until"), UNTIL, ids=[f"{net.name}-{until}" for net, until in UNTIL])


def middle(net: Net) -> frozenset[str]:
    """Half of the layers, and all that they read."""
    layers = list(net.layers())
    return prefix(net, layers[(len(layers) - 1) // 2], "test")


def frozen_arrays(arrays: Mapping[str, np.ndarray], frozen: frozenset[str]) -> dict[str, np.ndarray]:
    return {k: v for k, v in arrays.items() if k.removeprefix("momentum.").rpartition(".")[0] in frozen}


def train(engine: Engine, steps: int = 3, score: bool = False, seed: int = 4) -> None:
    for batch in batches(engine.net, steps, seed):
        direct(engine, batch, score)


# ---- what stays ----


@on_engines
@on_nets
def test_frozen_arrays_keep_their_bits_and_all_others_move(engine: Setting, net: Net) -> None:
    """Weights, momentum and running statistics, through weight decay, by steps that score too."""
    made, frozen = learner(engine, net), middle(net)
    train(made, 1)  # so that momentum is not 0
    made.set_frozen(frozen)
    before = made.arrays()
    train(made, 2)
    train(made, 1, score=True)
    after = made.arrays()
    held = frozen_arrays(before, frozen)
    assert len(held) > 1
    assert same(held, frozen_arrays(after, frozen))
    head = {k for k in net.weights() if k.startswith("head.")}  # which no loss reads
    assert [k for k in net.weights() if k not in held and k not in head and np.array_equal(before[k], after[k])] == []


@on_engines
@on_kinds
def test_frozen_masked_layers_keep_their_bits(engine: Setting, unit: str) -> None:
    """Also under new gradient masks, and new weight masks of what is live."""
    made, frozen = learner(engine, SMALL, unit), prefix(SMALL, "relu2", "test")
    train(made, 1)
    made.set_frozen(frozen)
    before = made.arrays()
    live = half_live(SMALL, unit, seed=21) if unit else {}
    live |= {k: v for k, v in (half_live(SMALL, unit) if unit else {}).items() if k in frozen}
    made.set_masks(live, dict.fromkeys(live, unit))
    made.set_gradient_masks({k: made.asarray(v) for k, v in live.items()})
    train(made)
    assert same(frozen_arrays(before, frozen), frozen_arrays(made.arrays(), frozen))


@on_engines
def test_scores_of_frozen_layers_stay_0_and_those_of_others_are_the_reference_s(engine: Setting) -> None:
    made, frozen = learner(engine, SMALL, "kernel"), prefix(SMALL, "relu2", "test")
    exact = learner(("torch", {"device": "cpu", "together": False}), SMALL, "kernel")
    for one in (made, exact):
        one.set_frozen(frozen)
        train(one, 2, score=True)
    found, wanted, live = sums(made), sums(exact), half_live(SMALL, "kernel")
    assert {k.split(".")[1] for k, v in found.items() if v.any()} == {"conv3", "conv4"}
    for name, g in wanted.items():
        mask = live[name.split(".")[1]][..., None, None]  # dead weights are scored where the engine says so
        assert error(found[name] * mask, g * mask, floor=0.1) < 1e-4


# ---- what is computed ----


def compare(engine: Setting, net: Net, frozen: frozenset[str], how: str, most: float) -> None:
    x, d = data(net)
    made = start(engine, net, momentum=0.5)
    made.set_frozen(frozen)
    exact = reference_net.Result(net, made.arrays(), x, PASSES[how], frozen)
    assert max(error(a, b) for a, b in zip(run(made, x, PASSES[how]), exact.outputs(), strict=True)) < 2e-5
    after = made.arrays()
    assert all(error(after[k], v, floor=0.1) < 2e-5 for k, v in exact.buffers().items())
    found, wanted = gradients(made, d), exact.gradients(d)
    for name, g in wanted.items():
        expected = 0 * g if name.rpartition(".")[0] in frozen else g
        assert error(found[name], expected, floor=0.1) < most, name


@on_engines
@on_prefixes
def test_every_prefix_against_float64(engine: Setting, net: Net, until: str) -> None:
    """Outputs, statistics and gradients, wherever the net is cut: at a branch, within a gate, between layer and batch norm."""
    compare(engine, net, prefix(net, until, "test"), "separate", 5e-5)


@on_engines
@pytest.mark.parametrize("how", PASSES)
@pytest.mark.parametrize("until", ["conv1", "layer1", "layer2.0.bn1", "layer3.0", "pool"])
def test_resnet_prefixes_against_float64(engine: Setting, how: str, until: str) -> None:
    compare(engine, RESNET, prefix(RESNET, until, "test"), how, 1e-3)


@on_engines
def test_a_frozen_prefix_runs_as_in_a_prediction(engine: Setting) -> None:
    """All that has statistics is frozen: training says what predict says."""
    made = start(engine, SMALL)
    made.set_frozen(prefix(SMALL, "relu4", "test"))
    x, _ = data(SMALL)
    for a, logits in zip(x, run(made, x, SEPARATE)[::2], strict=True):
        assert error(logits, made.numpy(made.predict(made.asarray(a)))) < 1e-5


@on_engines
@on_kinds
def test_live_layers_follow_torch(engine: Setting, unit: str) -> None:
    """Some steps with momentum, decay and gradient masks: no further away than without a frozen prefix."""
    results = []
    for setting in (engine, ("torch", {"device": "cpu", "together": False})):
        made = learner(setting, SMALL, unit)
        made.set_frozen(prefix(SMALL, "relu2", "test"))
        train(made, 4)
        results.append(made.arrays())
    assert max(error(results[0][k], v, floor=0.1) for k, v in results[1].items()) < 1e-4


def test_the_first_live_layer_has_no_input_gradient_in_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(numpy_ops, "from_columns", lambda node, *rest: calls.append(node.name) or from_columns(node, *rest))
    for until in ("", "relu3"):
        made = start(("numpy", {}), SMALL)
        made.set_frozen(prefix(SMALL, until, "test"))
        x, d = data(SMALL, (4,))
        run(made, x, SEPARATE[:1])
        made.backward(d)
    assert calls == ["conv4", "conv3", "conv2"]  # of the net that learns whole; of the frozen one conv4 reads what is frozen


def test_native_plans_leave_out_what_is_frozen() -> None:
    """No operation of the way back names a frozen layer, and the first live one has its weight gradient only."""
    made: Any = start(("native", {"threads": 1}), SMALL)
    made.set_frozen(prefix(SMALL, "relu3", "test"))
    x, _ = data(SMALL, (4,))
    run(made, x, SEPARATE[:1])
    (plan,) = made._plans.values()
    layers = [Kind(op.kind) for op in plan.backward if op.layer]
    assert layers == [Kind.BIAS_GRAD, Kind.CONV1_BOTH, Kind.CONV3 + 2]
    assert [Kind(op.kind) for op in plan.forward].count(Kind.NORM_EVAL) == 3
    assert len(made._turn) == 0


# ---- when it changes ----


@on_engines
def test_thawed_it_learns_again_as_one_that_was_never_frozen(engine: Setting) -> None:
    made, other = learner(engine, SMALL, "kernel"), learner(engine, SMALL, "kernel")
    made.set_frozen(prefix(SMALL, "relu2", "test"))
    train(made)
    other.load(made.arrays())
    made.set_frozen(())
    for one in (made, other):
        train(one, 2, seed=9)
    assert max(error(a, other.arrays()[k], floor=0.1) for k, a in made.arrays().items()) < 1e-6


@on_engines
def test_weights_that_are_loaded_into_a_frozen_layer_are_used(engine: Setting) -> None:
    made, frozen = learner(engine, SMALL, "kernel"), prefix(SMALL, "relu4", "test")
    made.set_frozen(frozen)
    train(made, 1)
    arrays = {k: v * np.float32(0.5) if k == "conv2.weight" else v for k, v in made.arrays().items()}
    made.load(arrays)
    x, _ = data(SMALL)
    exact = reference_net.Result(SMALL, arrays, x, JOINED, frozen)
    assert max(error(a, b) for a, b in zip(run(made, x, JOINED), exact.outputs(), strict=True)) < 2e-5


@on_engines
def test_steps_that_are_compiled_anew_obey(engine: Setting) -> None:
    made, frozen = learner(engine, SMALL, "kernel"), prefix(SMALL, "relu2", "test")
    (batch,) = batches(SMALL, 1)
    made.compile(stepper(made))(batch)
    made.set_frozen(frozen)
    before, step = made.arrays(), made.compile(stepper(made))
    for _ in range(3):
        step(batch)
    assert same(frozen_arrays(before, frozen), frozen_arrays(made.arrays(), frozen))
    assert not np.array_equal(before["conv3.weight"], made.arrays()["conv3.weight"])


@on_engines
def test_only_a_prefix_can_be_frozen(engine: Setting) -> None:
    made = start(engine, SMALL)
    with pytest.raises(ConfigError, match="node bn1 can't be frozen while conv1, which it reads, is not"):
        made.set_frozen({"bn1"})
    with pytest.raises(ConfigError, match="no node 'conv9'"):
        made.set_frozen({"conv9"})
    with pytest.raises(ConfigError, match=r"holds the classifier \(classifier\)"):
        made.set_frozen({n.name for n in SMALL.nodes})


# ---- memory ----


@pytest.mark.parametrize("net", [build_net("resnet18", (3, 32, 32), 10, 8), *NETS], ids=lambda net: f"{net.name}-{net.input[1]}")
def test_a_frozen_prefix_takes_no_more_memory(net: Net) -> None:
    sizes = [pass_bytes(net, 32, 16, train=True, frozen=f) for f in ((), middle(net))]
    assert sizes[1] <= sizes[0]


def test_half_of_resnet_frozen_leaves_less_than_a_third_of_the_activations() -> None:
    net = build_net("resnet18", (3, 32, 32), 10, 8)
    whole, frozen, none = (
        pass_bytes(net, 32, 16, train=train, frozen=prefix(net, until, "test") if until else ())
        for train, until in ((True, ""), (True, "layer2"), (False, ""))
    )
    assert frozen < whole / 3
    assert none <= frozen


def test_the_native_engine_takes_what_was_told() -> None:
    """Its plans are made anew, in as many bytes as the planner's first walk says."""
    net = build_net(TINY, (1, 8, 8), 10)
    made: Any = start(("native", {"threads": 1}), net)
    (x, _), taken = data(net, (16,)), []
    for frozen in (frozenset(), middle(net)):
        made.set_frozen(frozen)
        run(made, x, SEPARATE[:1])
        (plan,) = made._plans.values()
        host = sum(a.nbytes for a in (plan.d, plan.logits, plan.features))
        taken.append(plan.kept[0].bytes + plan.bytes + host)
        assert taken[-1] == pass_bytes(net, 16, made._kernels.lanes, train=True, frozen=frozen)
    assert taken[1] < taken[0]
