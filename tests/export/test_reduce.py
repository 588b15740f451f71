"""A reduced net is the same function, and as small as it can be where that can be counted by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from export_cases import NETS, bound, damaged, flat_logits, logits
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecl.export import reduce
from edgecl.export.reduce import count
from edgecl.nets import Net, build_net
from edgecl.nets.nodes import Add, BatchNorm, Conv2d, GlobalPool, Linear, Relu
from edgecl.types import ConfigError

on_nets = pytest.mark.parametrize("net", NETS, ids=lambda net: net.name)


def pictures(net: Net, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(4, *net.input))


@on_nets
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), sparsity=st.sampled_from([0.0, 0.5, 0.9]), data=st.data())
def test_logits_of_the_classes_seen_stay(net: Net, seed: int, sparsity: float, data: st.DataObject) -> None:
    seen = sorted(data.draw(st.sets(st.integers(0, net.classes - 1), min_size=1)))
    arrays, x = damaged(net, seed, sparsity), pictures(net, seed)
    found = reduce(net, arrays, seen)
    whole, small = logits(net, arrays, x)[:, seen], logits(found.net, found.weights, x)
    assert small.shape == whole.shape
    np.testing.assert_allclose(small, whole, rtol=1e-8, atol=1e-8 * (1 + abs(whole).max()))
    assert count(found.net)[0] <= count(net)[0] + net.classes**2  # a row a class more at most, where logits are picked


@on_nets
def test_nothing_is_left_that_can_be_folded(net: Net) -> None:
    arrays = damaged(net, 1)
    once = reduce(net, arrays, range(net.classes))
    again = reduce(once.net, once.weights, range(net.classes))
    assert again.net == once.net
    allowed = {"bound": {"in.bn", "a.bn"}}.get(net.name, set())  # the one pads after it, the other has a rival reader
    assert {n.name for n in once.net.nodes if isinstance(n, BatchNorm)} <= allowed


def outs(net: Net) -> dict[str, int]:
    return {k: n.out for k, n in net.layers().items()}


def chain(*, padding: int = 1) -> tuple[Net, dict[str, np.ndarray]]:
    nodes = (
        Conv2d("a", ("x",), 4, 3, 1, 1),
        BatchNorm("a.bn", ("a",)),
        Relu("a.relu", ("a.bn",)),
        Conv2d("b", ("a.relu",), 4, 3, 1, padding),
        Relu("b.relu", ("b",)),
        GlobalPool("pool", ("b.relu",)),
        Linear("logits", ("pool",), 3),
    )
    net = Net("chain", (1, 5, 5), 3, nodes, "logits", "pool")
    return net, damaged(net, 3, sparsity=0.0)


def test_what_nothing_reads_goes() -> None:
    net, arrays = chain()
    arrays["b.weight"][:, 2] = 0
    assert outs(reduce(net, arrays, [0, 1, 2]).net) == {"a": 3, "b": 4, "logits": 3}


def test_what_is_never_above_zero_goes() -> None:
    net, arrays = chain()
    arrays["a.weight"][1] = 0
    arrays["a.bn.running_mean"][1], arrays["a.bn.bias"][1] = 0.0, -0.1
    assert outs(reduce(net, arrays, [0, 1, 2]).net) == {"a": 3, "b": 4, "logits": 3}


@pytest.mark.parametrize(("padding", "left"), [(0, 3), (1, 4)])
def test_a_constant_goes_into_the_next_bias_where_that_is_exact(padding: int, left: int) -> None:
    net, arrays = chain(padding=padding)
    arrays["a.weight"][1] = 0
    arrays["a.bn.running_mean"][1], arrays["a.bn.bias"][1] = 0.0, 0.7
    found = reduce(net, arrays, [0, 1, 2])
    assert outs(found.net) == {"a": left, "b": 4, "logits": 3}
    x = pictures(net)
    np.testing.assert_allclose(logits(found.net, found.weights, x), logits(net, arrays, x), rtol=1e-9)


def test_a_dead_chain_goes_from_its_end_to_its_start() -> None:
    net, arrays = chain()
    arrays["logits.weight"][:, [0, 2]] = 0  # so b's 0 and 2, and then what only these read of a
    arrays["b.weight"][:, 3] = 0
    arrays["b.weight"][0, 3] = 1.0
    assert outs(reduce(net, arrays, [0, 1, 2]).net) == {"a": 3, "b": 2, "logits": 3}


def test_a_residual_group_goes_together_or_not_at_all() -> None:
    nodes = (
        Conv2d("a", ("x",), 3, 1, bias=True),
        Conv2d("b", ("a",), 3, 3, 1, 1, bias=True),
        Add("sum", ("a", "b")),
        GlobalPool("pool", ("sum",)),
        Linear("logits", ("pool",), 2),
    )
    net = Net("residual", (1, 4, 4), 2, nodes, "logits", "pool")
    arrays = damaged(net, 5, sparsity=0.0)
    arrays["b.weight"][0] = arrays["b.bias"][0] = 0  # its rival in the sum is alive: stays, as zeros
    arrays["logits.weight"][:, 1] = 0  # nobody reads the sum here, but b reads a
    assert outs(reduce(net, arrays, [0, 1]).net) == {"a": 3, "b": 3, "logits": 2}
    arrays["b.weight"][:, 1] = 0
    assert outs(reduce(net, arrays, [0, 1]).net) == {"a": 2, "b": 2, "logits": 2}


def test_rows_of_classes_not_seen_go_with_what_only_they_read() -> None:
    net, arrays = chain()
    arrays["logits.weight"][:2, 1] = 0
    found = reduce(net, arrays, [0, 1])
    assert outs(found.net) == {"a": 4, "b": 3, "logits": 2}
    assert found.net.classes == 2


def test_logits_that_are_bound_are_picked() -> None:
    net = flat_logits()
    arrays, x = damaged(net, 2, 0.0), pictures(net)
    found = reduce(net, arrays, [1, 6])
    np.testing.assert_allclose(logits(found.net, found.weights, x), logits(net, arrays, x)[:, [1, 6]], rtol=1e-9)
    assert found.net.layers()[found.net.logits].role == "classifier"


def test_a_net_of_nothing_is_still_a_net() -> None:
    net = bound()
    arrays = {k: np.zeros_like(a) for k, a in damaged(net, 1).items()}
    found = reduce(net, arrays, [4])
    assert set(outs(found.net).values()) <= {1, 2, 3, 4}
    assert logits(found.net, found.weights, pictures(net)).tolist() == [[0.0]] * 4


def test_a_masked_resnet_loses_what_its_masks_cut_off() -> None:
    net = build_net("resnet18", (3, 8, 8), 10, 8)
    found = reduce(net, damaged(net, 7, 0.9), range(5))
    assert count(found.net)[0] < count(net)[0] / 2


def test_a_net_that_has_learned_nothing_has_no_predictor() -> None:
    net, arrays = chain()
    with pytest.raises(ConfigError, match="no class has been learned"):
        reduce(replace(net, name="new"), arrays, [])
