"""One sample's prediction against the batched plan and float64: every net, masks, and weights that change while it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from engine_cases import NETS, data, error, half_live, on_nets, start
from reference_net import predict

from edgecl.engines import Engine, make_engine
from edgecl.engines.native_single import Single
from edgecl.kernels import isas
from edgecl.masks import UNITS
from edgecl.nets import Net, build_net
from edgecl.nets.nodes import (
    Add,
    BatchNorm,
    Concat,
    Conv2d,
    Flatten,
    GlobalPool,
    Hardsigmoid,
    Hardswish,
    Linear,
    Mul,
    Node,
    Pad,
    Pool,
    Relu,
    Relu6,
    Sigmoid,
    Silu,
)
from edgecl.types import Pass

BOUND = 1e-5
MANY = 9  # samples that go through the batched plan
NATIVE = ("native", {"threads": 1})


@pytest.fixture(params=[name for name, here in isas().items() if here])
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("EDGECL_ISA", request.param)
    return str(request.param)


def samples(net: Net) -> np.ndarray:
    return data(net, (MANY,))[0][0]


def one_by_one(engine: Engine, x: np.ndarray) -> np.ndarray:
    return np.concatenate([engine.numpy(engine.predict(one[None])) for one in x])


@on_nets
@pytest.mark.parametrize("unit", ["", *UNITS])
def test_as_the_batched_plan_and_as_float64(isa: str, net: Net, unit: str) -> None:
    engine, x = start(NATIVE, net), samples(net)
    if unit:
        live = half_live(net, unit)
        engine.set_masks(live, dict.fromkeys(live, unit))
    found = one_by_one(engine, x)
    assert error(found, engine.predict(x)) < BOUND
    assert error(found, predict(net, engine.arrays(), x)) < BOUND


def test_several_samples_are_predicted_one_by_one_in_the_order_given(isa: str) -> None:
    engine, x = start(NATIVE, NETS[0]), samples(NETS[0])
    assert np.array_equal(engine.predict(x[:3]), one_by_one(engine, x)[:3])


def test_what_is_learnt_shows_at_once() -> None:
    """Weights by a step, running statistics by a forward pass alone, masks, and arrays loaded."""
    net, other = NETS[0], start(NATIVE, NETS[0])
    engine, (x, d) = start(NATIVE, net), data(net)
    seen = [engine.predict(x[0][:1])]

    def changed() -> None:
        other.load(engine.arrays())
        seen.append(engine.predict(x[0][:1]))
        assert not np.array_equal(seen[-1], seen[-2])
        assert error(seen[-1], other.predict(np.repeat(x[0][:1], MANY, 0))[:1]) < BOUND

    engine.forward(x, (Pass((0, 1, 2)),))
    changed()
    engine.backward(d)
    engine.step(np.float32(0.1))
    changed()
    live = half_live(net, "kernel")
    engine.set_masks(live, dict.fromkeys(live, "kernel"))
    changed()
    engine.load({k: v * np.float32(0.7) for k, v in engine.arrays().items()})
    changed()


def test_threads_change_no_bit() -> None:
    net = build_net("resnet18", (3, 32, 32), 10, 32)
    x = samples(net)[:2]
    one, three = (start(("native", {"threads": n}), net).predict(x) for n in (1, 3))
    assert np.array_equal(one, three)


def test_not_a_number_reaches_the_logits() -> None:
    for net in NETS:
        x = samples(net)[:1]
        x[0, 0, 3, 3] = np.nan
        assert np.isnan(start(NATIVE, net).predict(x)).any(), net.name


def test_batch_norm_activation_and_addition_end_the_layer_before_them() -> None:
    net, engine = build_net("resnet18", (3, 8, 8), 5, 4), start(NATIVE, build_net("resnet18", (3, 8, 8), 5, 4))
    single = Single(net, engine._kernels, engine.layers, engine.p, engine._g)
    assert len(single.ops) == 1 + len(net.layers()) + 1  # the image in, each layer, the mean


# ---- kinds of node that small nets use ----


def mobile() -> Net:
    """Inverted bottlenecks with squeeze-and-excitation, two-sided windows, branches joined, and each activation once."""
    nodes = (
        Conv2d("stem", ("x",), 8, (5, 2), (2, 1), (2, 1), bias=True, role="stem"),
        BatchNorm("stem.bn", ("stem",)),
        Hardswish("stem.act", ("stem.bn",)),
        Conv2d("wide", ("stem.act",), 24, 1),
        BatchNorm("wide.bn", ("wide",)),
        Relu6("wide.act", ("wide.bn",)),
        Conv2d("deep", ("wide.act",), 24, 3, 2, 1, groups=24),
        BatchNorm("deep.bn", ("deep",)),
        Silu("deep.act", ("deep.bn",)),
        GlobalPool("se.pool", ("deep.act",), keep=True),
        Conv2d("se.down", ("se.pool",), 6, 1, bias=True),
        Relu("se.relu", ("se.down",)),
        Conv2d("se.up", ("se.relu",), 24, 1, bias=True),
        Hardsigmoid("se.gate", ("se.up",)),
        Mul("se", ("deep.act", "se.gate")),
        Conv2d("narrow", ("se",), 8, 1),
        BatchNorm("narrow.bn", ("narrow",)),
        Conv2d("same", ("narrow.bn",), 8, 3, 1, 1, groups=8),
        Add("sum", ("same", "narrow.bn")),
        BatchNorm("sum.bn", ("sum",)),
        Pad("pad", ("sum.bn",), 1, 2, 0, 1),
        Pool("max", ("pad",), "max", (3, 2), (2, 1), 1),
        Pool("avg", ("pad",), "avg", (3, 2), (2, 1), 1),
        Concat("both", ("max", "avg", "max")),
        Conv2d("grouped", ("both",), 12, (1, 3), 1, (0, 1), groups=4),
        Sigmoid("grouped.act", ("grouped",)),
        Mul("gated", ("grouped.act", "grouped")),
        Flatten("flat", ("gated",)),
        Linear("features", ("flat",), 20),
        BatchNorm("features.bn", ("features",)),
        Relu("features.relu", ("features.bn",)),
        Linear("logits", ("features.relu",), 7),
    )
    return Net("mobile", (2, 19, 11), 7, nodes, "logits", "features.relu")


ELEMENTS = {
    Relu: F.relu,
    Relu6: F.relu6,
    Hardsigmoid: F.hardsigmoid,
    Hardswish: F.hardswish,
    Sigmoid: torch.sigmoid,
    Silu: F.silu,
    Add: torch.add,
    Mul: torch.mul,
    Concat: lambda *a: torch.cat(a, 1),
    Flatten: lambda a: a.flatten(1),
}


def exact(node: Node, p: dict[str, torch.Tensor], *x: torch.Tensor) -> torch.Tensor:
    own = {k.rsplit(".", 1)[1]: v for k, v in p.items() if k.rsplit(".", 1)[0] == node.name}
    if isinstance(node, Conv2d):
        return F.conv2d(x[0], own["weight"], own.get("bias"), node.stride, node.padding, 1, node.groups)
    if isinstance(node, Linear):
        return F.linear(x[0], own["weight"], own.get("bias"))
    if isinstance(node, BatchNorm):
        return F.batch_norm(x[0], *(own[k] for k in ("running_mean", "running_var", "weight", "bias")), eps=node.eps)
    if isinstance(node, Pool):
        return (F.max_pool2d if node.kind == "max" else F.avg_pool2d)(x[0], node.kernel, node.stride, node.padding)
    if isinstance(node, GlobalPool):
        return x[0].mean((2, 3), keepdim=node.keep)
    if isinstance(node, Pad):
        return F.pad(x[0], (node.left, node.right, node.top, node.bottom))
    return ELEMENTS[type(node)](*x)


def logits(net: Net, arrays: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    p = {k: torch.from_numpy(np.asarray(v, np.float64)) for k, v in arrays.items()}
    values = {"x": torch.from_numpy(np.asarray(x, np.float64))}
    for node in net.nodes:
        values[node.name] = exact(node, p, *(values[i] for i in node.inputs))
    return values[net.logits].numpy()


@pytest.mark.parametrize("unit", ["", *UNITS])
def test_small_nets(isa: str, unit: str) -> None:
    net = mobile()
    engine, x = start(NATIVE, net), samples(net)[:4]
    if unit:
        live = half_live(net, unit)
        engine.set_masks(live, dict.fromkeys(live, unit))
    found = engine.predict(x)
    assert error(found, logits(net, engine.arrays(), x)) < BOUND
    assert error(engine.predict(x), found) == 0  # nothing is left over from the first time


def test_a_signal_of_one_dimension(isa: str) -> None:
    """(1, k) kernels, strided, as nets for accelerometers and keywords have them."""
    nodes = (
        Conv2d("a", ("x",), 10, (1, 5), (1, 2), (0, 2)),
        BatchNorm("a.bn", ("a",)),
        Relu("a.relu", ("a.bn",)),
        Conv2d("b", ("a.relu",), 12, (1, 3), 1, (0, 1)),
        GlobalPool("pool", ("b",)),
        Linear("logits", ("pool",), 6),
    )
    net = Net("signal", (6, 1, 53), 6, nodes, "logits", "pool")
    engine, x = start(NATIVE, net), samples(net)[:2]
    assert error(engine.predict(x), logits(net, engine.arrays(), x)) < BOUND


def test_one_sample_of_a_net_made_anew() -> None:
    """`make_engine` alone: no training before."""
    net = build_net("mlp", (1, 5, 5), 4, 17)
    assert make_engine("native", net).predict(np.ones((1, 1, 5, 5), np.float32)).shape == (1, 4)
