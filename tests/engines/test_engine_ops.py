"""Engines against float64: op by op from the reference's activations, whole nets, and finite differences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import pytest
import reference_net
import torch
from engine_cases import (
    NETS,
    PASSES,
    branched,
    data,
    error,
    gated,
    gradients,
    on_engines,
    on_nets,
    run,
    start,
    weights_for,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecl.engines.torch_ops import render
from edgecl.nets import Net
from edgecl.nets.nodes import BatchNorm, Conv2d, Flatten, GlobalPool, Linear, Node, Pad, Pair, Pool, Shape, pair
from edgecl.types import Pass

Setting = tuple[str, Mapping[str, Any]]
ONE = (Pass((0,)),)
N = 6


# ---- one op ----


def probe(node: Node, shapes: tuple[Shape, ...]) -> Net:
    """The op alone. Its inputs lie side by side in the picture's channels; a 1×1 convolution that copies picks each.

    So the weight gradients of those convolutions are products of the op's input gradient.
    """
    sources = [source(i, shape, shapes[0]) for i, shape in enumerate(shapes)]
    nodes = [n for source in sources for n in source]
    nodes.append(replace(node, inputs=tuple(source[-1].name for source in sources)))
    size, out = prod(node.out_shape(*shapes)), "out"
    nodes.append(Flatten(out, (node.name,)))
    return Net("probe", (sum(s[0] for s in shapes), *picture(shapes)), size, tuple(nodes), out, out)


def source(i: int, shape: Shape, first: Shape) -> list[Node]:
    """Nodes that take input i of a probe from its picture."""
    pick = Conv2d(f"in{i}", ("x",), shape[0], 1)
    if len(shape) == 1:
        return [pick, Flatten(f"flat{i}", (pick.name,))]
    return [pick] if shape[1:] == first[1:] else [pick, GlobalPool(f"mean{i}", (pick.name,), keep=True)]  # a scale a channel


def picture(shapes: tuple[Shape, ...]) -> tuple[int, int]:
    """Height and width that hold the inputs of one op."""
    return (shapes[0][1], shapes[0][2]) if len(shapes[0]) == 3 else (1, 1)


def copying(net: Net, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Makes the convolutions in0, in1, … pick their channels."""
    at = 0
    for name, (out, channels, _, _) in ((k, s) for k, s in net.weights().items() if k.startswith("in")):
        arrays[name] = np.eye(channels, dtype=np.float32)[at : at + out].reshape(out, channels, 1, 1)
        at += out
    return arrays


def laid_out(a: np.ndarray, first: Shape) -> np.ndarray:
    """An input of a probe, in its picture: a flat one is a pixel, a scale a channel fills the picture."""
    a = a.reshape(*a.shape[:2], 1, 1) if a.ndim == 2 else a
    return np.broadcast_to(a, (*a.shape[:2], *picture((first,))))


def check_probe(setting: Setting, net: Net, x: np.ndarray, arrays: dict[str, np.ndarray]) -> None:
    """Outputs, gradients, running statistics and prediction within 1e-5 of float64; inputs are of the order of 1."""
    engine = start(setting, net, momentum=0.5)
    engine.load({**engine.arrays(), **arrays})
    d = np.random.default_rng(3).normal(size=(len(x), net.classes)).astype(np.float32)
    exact = reference_net.Result(net, arrays, [x], ONE)
    logits, found, after = run(engine, [x], ONE)[0], gradients(engine, [d]), engine.arrays()
    predicted = engine.numpy(engine.predict(engine.asarray(x)))
    terms = float(np.sqrt(x.size / x.shape[1]))  # size of a sum over samples and positions, whose terms may cancel
    checks = {k: (found[k], v, terms) for k, v in exact.gradients([d]).items()}
    checks |= {k: (after[k], v, 1.0) for k, v in exact.buffers().items()}
    checks |= {"logits": (logits, exact.outputs()[0], 1.0)}
    checks |= {"predicted": (predicted, reference_net.predict(net, after, x), 1.0)}
    assert {k: e for k, check in checks.items() if (e := error(*check)) > 1e-5} == {}


def distinct(net: Net) -> Iterator[tuple[Node, tuple[Shape, ...]]]:
    """Nodes that differ in more than their names."""
    seen = set()
    for node, shapes in net.walk():
        key = (replace(node, name="", inputs=("",) * len(node.inputs)), shapes)
        if key not in seen:
            seen.add(key)
            yield node, shapes


CASES = [pytest.param(net, node, shapes, id=f"{net.name}-{node.name}") for net in NETS for node, shapes in distinct(net)]


@pytest.fixture(scope="module")
def activations() -> dict[str, dict[str, torch.Tensor]]:
    """What the reference computes at every node of every net."""
    found = {}
    for net in NETS:
        p = {k: torch.from_numpy(v).double() for k, v in weights_for(net).items()}
        found[net.name] = reference_net.values(net, p, torch.from_numpy(data(net, (N,))[0][0]).double(), train=True)
    return found


@on_engines
@pytest.mark.parametrize(("net", "node", "shapes"), CASES)
def test_node_by_node(engine: Setting, net: Net, node: Node, shapes: tuple[Shape, ...], activations: Any) -> None:
    alone = probe(node, shapes)
    inputs = [laid_out(activations[net.name][i].numpy(), shapes[0]) for i in node.inputs]
    weights = {k: v for k, v in weights_for(net).items() if k.rsplit(".", 1)[0] == node.name}
    check_probe(engine, alone, np.concatenate(inputs, axis=1).astype(np.float32), copying(alone, weights))


@on_engines
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_geometry(engine: Setting, data: st.DataObject) -> None:
    def whole(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    def two(low: int, high: int) -> Pair:
        """Two numbers, or one where the native engine can't take two yet."""
        return whole(low, high) if engine[0] == "native" else (whole(low, high), whole(low, high))

    groups, kernel, stride = whole(1, 3), two(1, 4), two(1, 3)
    kh, kw = pair(kernel)
    shape = (groups * whole(1, 3), whole(kh, 9), whole(kw, 9))
    conv = Conv2d("n", ("x",), groups * whole(1, 3), kernel, stride, two(0, 2), groups, data.draw(st.booleans()))
    around = 0 if engine[0] == "native" else (whole(0, kh // 2), whole(0, kw // 2))
    pool = Pool("n", ("x",), data.draw(st.sampled_from(["max", "avg"])), kernel, stride, around)
    pad = [] if engine[0] == "native" else [Pad("n", ("x",), whole(0, 2), whole(0, 2), whole(0, 2), whole(0, 2))]
    node = data.draw(st.sampled_from([conv, pool, BatchNorm("n", ("x",)), Linear("n", ("x",), 7), *pad]))
    net = probe(node, (shape[:1],) if isinstance(node, Linear) else (shape,))
    n = 16 if isinstance(node, BatchNorm) else whole(1, 4)  # of few samples the variance may be as good as 0
    x = np.random.default_rng(whole(0, 999)).normal(size=(n, *net.input)).astype(np.float32)
    check_probe(engine, net, x, copying(net, weights_for(net)))


# ---- whole nets, free-running ----


def torchs(net: Net, x: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(logits, gradients) of torch's own float32."""
    p = {k: torch.from_numpy(v) for k, v in weights_for(net).items()}
    leaves = [p[k].requires_grad_() for k in net.weights()]
    logits = render(net, p, torch.from_numpy(x), [len(x)])[net.logits]
    found = torch.autograd.grad(logits, leaves, torch.from_numpy(d), materialize_grads=True)
    return logits.detach().numpy(), {k: g.numpy() for k, g in zip(net.weights(), found, strict=True)}


@on_engines
@on_nets
def test_a_whole_net_errs_at_most_twice_as_much_as_torch(engine: Setting, net: Net) -> None:
    (x,), (d,) = data(net, (8,))
    made = start(engine, net, momentum=0.5)
    exact = reference_net.Result(net, weights_for(net), [x], ONE)
    logits, theirs = torchs(net, x, d)
    slack = 1e-6  # where torch happens to be exact
    assert error(run(made, [x], ONE)[0], exact.outputs()[0]) <= 2 * error(logits, exact.outputs()[0]) + slack
    ours, wanted = gradients(made, [d]), exact.gradients([d])
    scale = max(abs(v).max() for v in wanted.values())
    for name, g in wanted.items():
        bound = 2 * abs(theirs[name] - g).max() + slack * scale
        assert abs(ours[name] - g).max() <= bound, name


@on_engines
@pytest.mark.parametrize("how", PASSES)
@pytest.mark.parametrize("net", [branched(), gated()], ids=lambda net: net.name)
def test_gradients_are_finite_differences(engine: Setting, net: Net, how: str) -> None:
    """Of the reference's loss in float64, for a dozen weights an array: nothing here trusts a backward pass."""
    x, d = data(net, (5, 4, 6))
    made = start(engine, net, momentum=0.5)
    run(made, x, PASSES[how])
    found = gradients(made, d)
    arrays = {k: v.astype(np.float64) for k, v in weights_for(net).items()}
    rng, h = np.random.default_rng(0), 1e-6
    for name in net.weights():
        flat = arrays[name].reshape(-1)
        for i in rng.permutation(len(flat))[:12]:
            was, ends = flat[i], []
            for moved in (was + h, was - h):
                flat[i] = moved
                ends.append(reference_net.loss(net, arrays, x, PASSES[how], d))
            flat[i] = was
            assert found[name].reshape(-1)[i] == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-4, abs=1e-4), name
