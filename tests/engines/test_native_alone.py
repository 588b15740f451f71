"""The native engine against the numpy engine in float64, which shares no code with it: this runs where torch does not.

tools/arm runs it on emulated processors. What the numpy engine is worth as a reference, the contract suite says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from engine_cases import NETS, PASSES, data, error, gradients, half_live, run, start, weights_for
from probes import CASES, copying, laid_out, probe
from training import batches, direct, learner, sums

from edgecl.engines import Engine
from edgecl.engines.numpy_engine import NumpyEngine
from edgecl.engines.numpy_ops import OPS
from edgecl.nets import Net, build_net
from edgecl.nets.nodes import BatchNorm, Conv2d, GlobalPool, Linear, Node, Relu6, Shape
from edgecl.types import Pass

N = 6
NATIVE = ("native", {"threads": 1})
SMALL = [net for net in NETS if net.name in ("branched", "gated", "tiny_cnn", "small_cnn")]
on_small = pytest.mark.parametrize("net", SMALL, ids=lambda net: net.name)


class Exact(NumpyEngine):
    """In float64."""

    dtype = np.float64


def exact(net: Net, **options: Any) -> Engine:
    made = Exact(net, **options)
    made.load({**made.arrays(), **weights_for(net)})
    return made


def worst(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray], floor: float) -> tuple[float, str]:
    return max((error(found[k], v, floor), k) for k, v in wanted.items())


# ---- op by op ----


@pytest.fixture(scope="module")
def activations() -> dict[str, dict[str, np.ndarray]]:
    """What float64 has at every node of every net."""
    found = {}
    for net in NETS:
        weights = {k: v.astype(np.float64) for k, v in weights_for(net).items()}
        values = {"x": data(net, (N,))[0][0].astype(np.float64)}
        for node in net.nodes:
            own = {k.rpartition(".")[2]: v for k, v in weights.items() if k.rpartition(".")[0] == node.name}
            values[node.name], _ = OPS[type(node)](node, own, True, *(values[i] for i in node.inputs))
        found[net.name] = values
    return found


@pytest.mark.parametrize(("net", "node", "shapes"), CASES)
def test_node_by_node(net: Net, node: Node, shapes: tuple[Shape, ...], activations: Any) -> None:
    """Outputs, gradients, running statistics and prediction within 1e-5."""
    alone = probe(node, shapes)
    inputs = [laid_out(activations[net.name][i], shapes[0]) for i in node.inputs]
    x = np.concatenate(inputs, axis=1).astype(np.float32)
    weights = copying(alone, {k: v for k, v in weights_for(net).items() if k.rsplit(".", 1)[0] == node.name})
    d = np.random.default_rng(3).normal(size=(N, alone.classes)).astype(np.float32)
    results = []
    for made in (start(NATIVE, alone, momentum=0.5), exact(alone, momentum=0.5)):
        made.load({**made.arrays(), **weights})
        logits, grads = run(made, [x], (Pass((0,)),))[0], gradients(made, [d])
        statistics = {k: v for k, v in made.arrays().items() if ".running_" in k}
        results.append(({"logits": logits, "predicted": made.predict(x), **statistics}, grads))
    (values, grads), (exact_values, exact_grads) = results
    terms = float(np.sqrt(x.size / x.shape[1]))  # size of a sum over samples and positions, whose terms may cancel
    assert worst(values, exact_values, 1.0)[0] < 1e-5
    assert worst(grads, exact_grads, terms)[0] < 1e-5


# ---- whole nets ----


@on_small
@pytest.mark.parametrize("how", PASSES)
@pytest.mark.parametrize("score", [False, True])
def test_passes_and_sums_by_source(net: Net, how: str, score: bool) -> None:
    x, d = data(net)
    results, live = [], half_live(net, "kernel")
    for made in (start(NATIVE, net, momentum=0.5), exact(net, momentum=0.5)):
        made.set_masks(live, dict.fromkeys(live, "kernel"))
        outputs = dict(enumerate(run(made, x, PASSES[how], split=score)))
        results.append([outputs, gradients(made, d, score=score), *([sums(made)] if score else [])])
    for found, wanted in zip(*results, strict=True):
        scale = max(float(abs(v).max()) for v in wanted.values())
        assert worst(found, wanted, scale)[0] < 1e-4


@on_small
@pytest.mark.parametrize("unit", ["", "weight", "kernel", "block4x4", "channel"])
def test_steps_of_training(net: Net, unit: str) -> None:
    """With momentum, weight decay, masks and gradient masks; what is dead stays dead."""
    results = []
    for made in (learner(NATIVE, net, unit), exact_learner(net, unit)):
        made.set_gradient_masks(half_updated(net, unit))
        losses = [float(direct(made, batch).loss) for batch in batches(net, 3)]
        results.append({**made.arrays(), "losses": np.array(losses)})
    found, wanted = results
    assert worst(found, wanted, 0.1)[0] < 1e-3
    assert all(not found[k][v == 0].any() for k, v in wanted.items() if k.endswith(".weight") and unit)


def half_updated(net: Net, unit: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(8)
    return {k: v & (rng.random(v.shape) < 0.5) for k, v in half_live(net, unit).items()} if unit else {}


def exact_learner(net: Net, unit: str) -> Engine:
    made = exact(net, momentum=0.8, weight_decay=0.01)
    if unit:
        live = half_live(net, unit)
        made.set_masks(live, dict.fromkeys(live, unit))
    return made


def test_threads_change_little() -> None:
    net = build_net("small_cnn", (3, 16, 16), 10, 32)  # large enough for the kernels to share out: see parallel() in pool.h
    x, d = data(net, (32, 20, 32))
    results = []
    for threads in (1, 2, 3):
        made = start(("native", {"threads": threads}), net, momentum=0.5)
        run(made, x, PASSES["separate"])
        results.append(gradients(made, d))
    assert max(worst(other, results[0], 1e-3)[0] for other in results[1:]) < 1e-4
    assert any(not np.array_equal(results[1][k], g) for k, g in results[0].items())  # the threads did take part


# ---- channels that no live weight reads ----


def separable() -> Net:
    """1×1 up, depthwise, 1×1 down: what lies between may be read by nobody, or be a constant."""
    nodes = (
        Conv2d("up", ("x",), 16, 1),
        BatchNorm("up.bn", ("up",)),
        Relu6("up.act", ("up.bn",)),
        Conv2d("dw", ("up.act",), 16, 3, 1, 1, groups=16),
        BatchNorm("dw.bn", ("dw",)),
        Relu6("dw.act", ("dw.bn",)),
        Conv2d("down", ("dw.act",), 8, 1),
        BatchNorm("down.bn", ("down",)),
        GlobalPool("pool", ("down.bn",)),
        Linear("classifier", ("pool",), 5, role="classifier"),
    )
    return Net("separable", (8, 8, 8), 5, nodes, "classifier", "pool")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("unit", ["block4x4", "weight"])
def test_channels_that_are_dead_on_one_side(unit: str, threads: int) -> None:
    """Four each: dead before the depthwise layer, behind it, on both sides, on none. Gradients and statistics are exact.

    The first step runs with all alive, so that arrays which are then passed over hold numbers that would show.
    """
    net = separable()
    up, down = np.zeros((16, 8), bool), np.zeros((8, 16), bool)
    up[4:8], up[12:] = True, True
    down[:, :4], down[:, 12:] = True, True
    live = {"up": up, "down": down} if unit == "weight" else {k: v[::4, ::4] for k, v in (("up", up), ("down", down))}
    if unit == "weight":
        live = {k: v[:, :, None, None] for k, v in live.items()}
    x, d = data(net)
    found: list[dict[str, np.ndarray]] = []
    for made in (start(("native", {"threads": threads}), net, momentum=0.5), exact(net, momentum=0.5)):
        run(made, x, PASSES["separate"])
        gradients(made, d)
        made.set_masks(live, dict.fromkeys(live, unit))
        logits = run(made, x, PASSES["separate"])
        g = gradients(made, d)
        masks = {"up.weight": up[:, :, None, None], "down.weight": down[:, :, None, None]}
        found.append({**{k: v * masks.get(k, True) for k, v in g.items()}, "logits": logits[0], **made.arrays()})
    assert worst(found[0], found[1], 0.1)[0] < 2e-5, worst(found[0], found[1], 0.1)
