"""Activations stored in half precision (engine.storage=fp16): how exact the native engine then is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from engine_cases import PASSES, TINY, data, error, gradients, run, start, weights_for
from probes import CASES, copying, laid_out, probe
from test_native_alone import SMALL, exact, worst

from edgecl.data import load_stream
from edgecl.engines import make_engine
from edgecl.kernels import Kind, Op, View, array, isas, load, pointer, program
from edgecl.nets import Net, build_net
from edgecl.nets.nodes import Node, Shape
from edgecl.types import ConfigError, Pass

HALF = ("native", {"threads": 1, "storage": "fp16"})
FULL = ("native", {"threads": 1})
N = 6
OP, OUTPUTS, STATISTICS = 2e-3, 2e-2, 5e-4
"""Bounds of the error in parts of the largest value: of one operation; of a small net's outputs (measured: 9.1e-3, of most below
1e-3) and running statistics (9.2e-5)."""

NET, FLIPPED = 5e-3, 0.15
"""The same of a small net's gradients as one vector: of the median case (measured: 1.6e-3), of the worst (7.0e-2)."""

on_isas = pytest.mark.parametrize("isa", [name for name, here in isas().items() if here])


@on_isas
def test_halves_are_those_of_the_standard(isa: str) -> None:
    """All of them are read, and floats of every kind rounded, as numpy does."""
    kernels, rng = load(isa), np.random.default_rng(0)
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)].astype(np.float32)
    between = np.nextafter(finite, np.float32(rng.choice([-1e9, 1e9])))
    ties = (finite[:-1] + finite[1:]) / 2
    spread = rng.normal(size=4096) * 10.0 ** rng.integers(-12, 9, 4096)
    host = np.concatenate(
        [every.astype(np.float32), between, ties, np.array([*spread, 65519.9, 65520, -65520, 1e38], np.float32)]
    )
    host = np.resize(host, -(-len(host) // 16) * 16)
    cells, back = array(len(host) // 2), array(len(host))
    shape: dict[str, Any] = {"n": len(host), "c": 1, "h": 1, "w": 1}
    pack = Op(kind=Kind.PACK, **shape, out=pointer(cells), host=pointer(host))
    kernels.run(program([pack, Op(kind=Kind.UNPACK, **shape, a=View(pointer(cells)), host=pointer(back))]), half=True)
    with np.errstate(over="ignore"):
        wanted = host.astype(np.float16)
    assert np.array_equal(cells.view(np.float16), wanted, equal_nan=True)
    assert np.array_equal(np.signbit(back), np.signbit(wanted))
    assert np.array_equal(back, wanted.astype(np.float32), equal_nan=True)


@pytest.mark.parametrize(("net", "node", "shapes"), CASES)
def test_node_by_node(net: Net, node: Node, shapes: tuple[Shape, ...]) -> None:
    """Outputs, gradients, running statistics and prediction, from inputs that halves hold exactly."""
    alone, rng = probe(node, shapes), np.random.default_rng(5)
    inputs = [laid_out(rng.normal(size=(N, *shape)).astype(np.float16), shapes[0]) for shape in shapes]
    x = np.concatenate(inputs, axis=1).astype(np.float32)
    weights = copying(alone, {k: v for k, v in weights_for(net).items() if k.rsplit(".", 1)[0] == node.name})
    d = rng.normal(size=(N, alone.classes)).astype(np.float32)
    results = []
    for made in (start(HALF, alone, momentum=0.5), exact(alone, momentum=0.5)):
        made.load({**made.arrays(), **weights})
        logits, grads = run(made, [x], (Pass((0,)),))[0], gradients(made, [d])
        statistics = {k: v for k, v in made.arrays().items() if ".running_" in k}
        results.append(({"logits": logits, "predicted": made.predict(np.repeat(x, 2, axis=0)), **statistics}, grads))
    (values, grads), (exact_values, exact_grads) = results
    terms = float(np.sqrt(x.size / x.shape[1]))  # size of a sum over samples and positions, whose terms may cancel
    assert worst(values, exact_values, 1.0)[0] < OP
    assert worst(grads, exact_grads, terms)[0] < OP


def errors(net: Net, how: str, seed: int) -> tuple[float, float, float]:
    """Of outputs, of all gradients together (as a vector, in parts of its length) and of running statistics."""
    x, d = data(net, seed=seed)
    half, full = start(HALF, net, momentum=0.5), exact(net, momentum=0.5)
    outputs, wanted = ({str(i): a for i, a in enumerate(run(made, x, PASSES[how]))} for made in (half, full))
    found, right = gradients(half, d), gradients(full, d)
    a, b = (np.concatenate([grads[k].reshape(-1) for k in right]) for grads in (found, right))
    running = {k: v for k, v in full.arrays().items() if ".running_" in k}
    statistics = worst(half.arrays(), running, 0.1)[0] if running else 0.0
    return worst(outputs, wanted, 1.0)[0], float(np.linalg.norm(a - b) / np.linalg.norm(b)), statistics


def test_gradients_of_small_nets() -> None:
    """Rounding sends some values to the other side of a ReLU or makes another the largest of a pool, and with few samples
    such a change is seen. Elsewhere gradients are as exact as the operations."""
    found = np.array([errors(net, how, seed) for net in SMALL for how in PASSES for seed in (1, 2, 3)])
    outputs, grads, statistics = found.T
    assert outputs.max() < OUTPUTS
    assert grads.max() < FLIPPED
    assert np.median(grads) < NET
    assert statistics.max() < STATISTICS


def test_storage_is_half() -> None:
    """A bound from below, too: what is rounded differs from what is not."""
    net = build_net(TINY, (1, 8, 8), 10)
    x, _ = data(net, (32,))
    half, full = (run(start(kind, net), x, (Pass((0,)),))[0] for kind in (HALF, FULL))
    assert 1e-6 < error(half, full) < OP


# ---- training ----


def digits(steps: int, batch: int) -> list[tuple[np.ndarray, np.ndarray]]:
    (task,) = load_stream("digits", "", classes_per_task=10, samples_per_class=0).tasks
    chosen = np.random.default_rng(1).integers(0, len(task.train), (steps, batch))
    x = np.asarray(task.train.x)
    return [((x[i] / np.float32(255) - np.float32(0.3)) * 3, np.eye(10, dtype=np.float32)[task.train.y[i]]) for i in chosen]


def losses(kind: tuple[str, Mapping[str, Any]], net: Net) -> np.ndarray:
    """Of 50 steps on digits, from the same weights."""
    engine, found = start(kind, net, momentum=0.0), []
    for x, y in digits(50, 16):
        logits = run(engine, [x.astype(np.float32)], (Pass((0,)),))[0]
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        found.append(-np.log((p * y).sum(1)).mean())
        engine.backward([(p - y) / np.float32(len(y))])
        engine.step(np.float32(0.05))
    return np.array(found)


DRIFT = 0.05
"""Of a loss that falls from 2.3 to 1.0: by so much a step's may differ from that of full precision (measured: 0.016)."""


def test_training_follows_full_precision() -> None:
    net = build_net("small_cnn", (1, 8, 8), 10)
    half, full = losses(HALF, net), losses(FULL, net)
    assert full[-5:].mean() < 0.6 * full[0]
    assert 0 < abs(half - full).max() < DRIFT


# ---- what does not fit ----


def test_what_overflows_a_half_is_named() -> None:
    """65,520 and more is infinity: it reaches the statistics of that batch norm and the logits, not silence."""
    net = next(n for n in SMALL if n.name == "branched")
    results = []
    for kind in (FULL, HALF):
        made = start(kind, net)
        arrays = made.arrays()
        made.load({**arrays, "a.weight": arrays["a.weight"] * np.float32(1e6)})
        x, _ = data(net, (N,))
        logits = run(made, x, (Pass((0,)),))[0]
        results.append((bool(np.isfinite(logits).all()), made.nonfinite()))
    assert results[0] == (True, None)
    assert results[1][0] is False
    assert str(results[1][1]).startswith("a.bn.running_")


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_other_engines_have_no_halves(name: str) -> None:
    net = build_net(TINY, (1, 8, 8), 10)
    with pytest.raises(ConfigError, match=rf"^engine\.storage: engine {name} has only fp32, not 'fp16'$"):
        make_engine(name, net, storage="fp16")


def test_a_storage_that_there_is_not() -> None:
    with pytest.raises(ConfigError, match=r"^engine\.storage: engine native has only fp32 and fp16, not 'fp8'$"):
        make_engine("native", build_net(TINY, (1, 8, 8), 10), storage="fp8")


# ---- memory shared by training and prediction ----


@pytest.mark.parametrize("kind", [FULL, HALF], ids=["fp32", "fp16"])
def test_a_prediction_between_forward_and_backward_changes_nothing(kind: tuple[str, Mapping[str, Any]]) -> None:
    net = build_net(TINY, (1, 8, 8), 10)
    (x,), d = data(net, (40,))
    results = []
    for between in (False, True):
        made = start(kind, net, momentum=0.5)
        run(made, [x], (Pass((0,)),))
        if between:
            made.predict(x)
        results.append(gradients(made, d))
    assert all(np.array_equal(results[0][k], results[1][k]) for k in results[0])
