"""Nets as data: they survive YAML, and what is wrong with a description is named by node."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecl.nets import ZOO, Net, build_net
from edgecl.nets.nodes import (
    OPS,
    Add,
    BatchNorm,
    Concat,
    Conv2d,
    Flatten,
    GlobalPool,
    Hardswish,
    Linear,
    Mul,
    Node,
    Pad,
    Pool,
    Relu,
    Sigmoid,
)
from edgecl.types import ConfigError

TINY = Path(__file__).parents[2] / "models" / "tiny_cnn.yaml"
INPUTS = [(1, 8, 8), (3, 32, 32), (2, 9, 7), (1, 28, 28)]


def described() -> dict[str, Any]:
    """A fresh, valid description to spoil."""
    description: dict[str, Any] = yaml.safe_load(TINY.read_text())
    return description


# ---- round trip ----


@pytest.mark.parametrize("name", ZOO)
@settings(max_examples=20, deadline=None)
@given(st.sampled_from(INPUTS), st.integers(1, 100), st.integers(1, 40))
def test_yaml_brings_a_net_back(name: str, shape: tuple[int, int, int], classes: int, width: int) -> None:
    net = build_net(name, shape, classes, width)
    text = yaml.safe_dump(net.to_dict())
    assert Net.from_dict(yaml.safe_load(text)) == net
    assert yaml.safe_dump(Net.from_dict(yaml.safe_load(text)).to_dict()) == text


def test_sides_and_every_option_come_back() -> None:
    """Of a net with two-sided kernels, a frame, a gate and a join; YAML has lists where nodes have pairs."""
    nodes = (
        Conv2d("a", ("x",), 4, (3, 1), (2, 1), (1, 0), bias=True),
        Pad("pad", ("a",), left=1, right=0, top=2, bottom=0),
        Pool("pool", ("pad",), "max", (3, 2), 1, (1, 0)),
        GlobalPool("mean", ("pool",), keep=True),
        Sigmoid("gate", ("mean",)),
        Mul("mul", ("pool", "gate")),
        Concat("join", ("mul", "pool", "mul")),
        Hardswish("act", ("join",)),
        GlobalPool("features", ("act",)),
        Linear("logits", ("features",), 3, role="classifier"),
    )
    net = Net("sides", (2, 8, 6), 3, nodes, "logits", "features")
    text = yaml.safe_dump(net.to_dict())
    assert "!!" not in text
    assert Net.from_dict(yaml.safe_load(text)) == net
    assert net.shapes()["a"] == (4, 4, 6)


def test_a_net_is_a_value() -> None:
    one, two = (build_net("small_cnn", (1, 8, 8), 10) for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)
    assert one != build_net("small_cnn", (1, 8, 8), 10, 8)


def test_every_op_goes_by_its_own_name() -> None:
    assert {op.op: op for op in OPS.values()} == OPS


# ---- what is wrong is named ----


def spoil(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    description = copy.deepcopy(described())
    change(description)
    return description


def node(description: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(n for n in description["nodes"] if n["name"] == name)
    return found


SPOILED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "unknown op": (lambda d: node(d, "relu1").update(op="gelu"), r"node relu1: unknown op 'gelu'; known: conv2d, .*flatten"),
    "no op": (lambda d: node(d, "relu1").pop("op"), r"node relu1: unknown op None"),
    "op is a list": (lambda d: node(d, "relu1").update(op=["relu"]), r"node relu1: unknown op \['relu'\]"),
    "missing key": (lambda d: node(d, "conv2").pop("kernel"), r"node conv2: .*'kernel'"),
    "missing name": (lambda d: node(d, "conv2").pop("name"), r"node 4: .*'name'"),
    "unknown key": (lambda d: node(d, "conv2").update(strides=2), r"node conv2: conv2d has no key 'strides'"),
    "unknown input": (lambda d: node(d, "bn2").update(inputs=["conv9"]), r"node bn2: input 'conv9' is no earlier node"),
    "later input": (lambda d: node(d, "bn1").update(inputs=["conv2"]), r"node bn1: input 'conv2' is no earlier node"),
    "its own input": (lambda d: node(d, "bn1").update(inputs=["bn1"]), r"node bn1: input 'bn1' is no earlier node"),
    "inputs no list": (lambda d: node(d, "bn1").update(inputs="conv1"), r"node bn1: inputs is 'conv1', not a list of names"),
    "too many inputs": (lambda d: node(d, "relu2").update(inputs=["bn2", "bn2"]), r"node relu2: relu has 2 inputs, not 1"),
    "no inputs": (lambda d: node(d, "relu2").update(inputs=[]), r"node relu2: relu has 0 inputs, not 1"),
    "name taken": (lambda d: node(d, "bn2").update(name="bn1"), r"node bn1: its name is taken"),
    "name of the image": (lambda d: node(d, "conv1").update(name="x"), r"node x: its name is taken"),
    "name no text": (lambda d: node(d, "conv1").update(name=7), r"node 7: name is 7, not a text"),
    "number as text": (lambda d: node(d, "conv1").update(out="12"), r"node conv1: out is '12', not a whole number from 1 up"),
    "part of a channel": (lambda d: node(d, "conv1").update(out=1.5), r"node conv1: out is 1.5"),
    "true is no number": (lambda d: node(d, "conv1").update(kernel=True), r"node conv1: kernel is True"),
    "no stride": (lambda d: node(d, "conv1").update(stride=0), r"node conv1: stride is 0"),
    "no groups": (lambda d: node(d, "conv1").update(groups=0), r"node conv1: groups is 0"),
    "padding below 0": (
        lambda d: node(d, "conv1").update(padding=-1),
        r"node conv1: padding is -1, not a whole number from 0 up",
    ),
    "YAML's 1e-5 is text": (lambda d: node(d, "bn1").update(eps="1e-5"), r"node bn1: eps is '1e-5', not a number above 0"),
    "eps 0": (lambda d: node(d, "bn1").update(eps=0), r"node bn1: eps is 0"),
    "bias no bool": (lambda d: node(d, "conv1").update(bias="no"), r"node conv1: bias is 'no', not true or false"),
    "unknown role": (lambda d: node(d, "conv1").update(role="steam"), r"node conv1: role is 'steam', not one of stem"),
    "unknown pool": (lambda d: node(d, "pool1").update(kind="min"), r"node pool1: kind is 'min', not max or avg"),
    "three sides": (
        lambda d: node(d, "conv1").update(kernel=[3, 3, 3]),
        r"node conv1: kernel is \(3, 3, 3\), not .* height and width",
    ),
    "a side of 0": (
        lambda d: node(d, "conv1").update(stride=[1, 0]),
        r"node conv1: stride is \(1, 0\), not a whole number from 1",
    ),
    "padding of half a side": (lambda d: node(d, "conv1").update(padding=[0, 0.5]), r"node conv1: padding is \(0, 0\.5\)"),
    "padded too far": (
        lambda d: node(d, "pool1").update(padding=[1, 2]),
        r"node pool1: padding \(1, 2\) is more than half of the window 2",
    ),
    "keep no bool": (lambda d: node(d, "pool").update(keep=1), r"node pool: keep is 1, not true or false"),
    "groups don't fit": (
        lambda d: node(d, "conv2").update(groups=5),
        r"node conv2: 12 to 24 channels do not split into 5 groups",
    ),
    "kernel too large": (lambda d: node(d, "conv2").update(kernel=9), r"node conv2: input \(12, 4, 4\) is smaller than its 9×9"),
    "window too large": (lambda d: node(d, "pool1").update(kernel=9), r"node pool1: input \(12, 8, 8\) is smaller than its 9×9"),
    "linear on an image": (
        lambda d: node(d, "classifier").update(inputs=["relu2"]),
        r"node classifier: .* flat input, got \(24, 4, 4\)",
    ),
    "node no mapping": (lambda d: d["nodes"].insert(1, "bn"), r"node 1: 'bn' is not a mapping"),
    "nodes no list": (lambda d: d.update(nodes=None), r"net description: nodes is None, not a list"),
    "missing top key": (lambda d: d.pop("features"), r"net description: no key 'features'"),
    "unknown top key": (lambda d: d.update(width=3), r"net description: unknown key 'width'"),
    "input too short": (lambda d: d.update(input=[8, 8]), r"net tiny_cnn: input \(8, 8\)"),
    "input no list": (lambda d: d.update(input=8), r"net description: input is 8, not a list"),
    "no class": (lambda d: d.update(classes=0), r"net tiny_cnn: .* classes 0"),
    "output unknown": (lambda d: d.update(features="pol"), r"net tiny_cnn: output 'pol' is no node"),
    "wrong logits": (lambda d: d.update(classes=7), r"net tiny_cnn: logits have shape \(10,\), not \(7,\)"),
    "features an image": (lambda d: d.update(features="relu2"), r"net tiny_cnn: features are not flat, but \(24, 4, 4\)"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_errors_name_the_node(case: str) -> None:
    change, message = SPOILED[case]
    with pytest.raises(ConfigError, match=message) as caught:
        Net.from_dict(spoil(change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", SPOILED)
def test_a_file_is_named_too(case: str, tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(yaml.safe_dump(spoil(SPOILED[case][0])))
    with pytest.raises(ConfigError, match=r"net\.yaml: " + SPOILED[case][1]):
        build_net(str(path), (1, 8, 8), 10)


# ---- shapes by hand ----

SHAPES: dict[str, tuple[Node, tuple[tuple[int, ...], ...], tuple[int, ...]]] = {
    "conv same": (Conv2d("a", ("x",), 8, 3, padding=1), ((3, 32, 32),), (8, 32, 32)),
    "conv valid": (Conv2d("a", ("x",), 8, 5), ((3, 9, 7),), (8, 5, 3)),
    "conv halves": (Conv2d("a", ("x",), 8, 3, 2, 1), ((3, 9, 8),), (8, 5, 4)),
    "pool halves": (Pool("a", ("x",), "max", 2, 2), ((3, 9, 8),), (3, 4, 4)),
    "pool overlaps": (Pool("a", ("x",), "avg", 3, 1), ((3, 9, 8),), (3, 7, 6)),
    "global pool": (GlobalPool("a", ("x",)), ((5, 4, 3),), (5,)),
    "flatten": (Flatten("a", ("x",)), ((5, 4, 3),), (60,)),
    "linear": (Linear("a", ("x",), 7), ((60,),), (7,)),
    "add": (Add("a", ("x", "x")), ((2, 3, 4), (2, 3, 4)), (2, 3, 4)),
    "batch norm": (BatchNorm("a", ("x",)), ((2, 3, 4),), (2, 3, 4)),
    "conv of two sides": (Conv2d("a", ("x",), 8, (10, 4), 2, (5, 1)), ((1, 49, 10),), (8, 25, 5)),
    "conv of one row": (Conv2d("a", ("x",), 8, (1, 9), (1, 2), (0, 4)), ((6, 1, 128),), (8, 1, 64)),
    "pool padded": (Pool("a", ("x",), "max", 3, 2, 1), ((3, 9, 8),), (3, 5, 4)),
    "pool of two sides": (Pool("a", ("x",), "avg", (1, 3), (1, 3), (0, 1)), ((3, 1, 8),), (3, 1, 3)),
    "global pool kept": (GlobalPool("a", ("x",), keep=True), ((5, 4, 3),), (5, 1, 1)),
    "pad": (Pad("a", ("x",), left=1, right=2, top=3, bottom=4), ((5, 4, 3),), (5, 11, 6)),
    "mul": (Mul("a", ("x", "x")), ((2, 3, 4), (2, 3, 4)), (2, 3, 4)),
    "mul flat": (Mul("a", ("x", "x")), ((5,), (5,)), (5,)),
    "mul by channel": (Mul("a", ("x", "x")), ((2, 3, 4), (2, 1, 1)), (2, 3, 4)),
    "concat": (Concat("a", ("x", "x", "x")), ((2, 3, 4), (5, 3, 4), (1, 3, 4)), (8, 3, 4)),
    "concat of one": (Concat("a", ("x",)), ((2, 3, 4),), (2, 3, 4)),
    "concat flat": (Concat("a", ("x", "x")), ((2,), (5,)), (7,)),
    "relu": (Relu("a", ("x",)), ((6,),), (6,)),
}


@pytest.mark.parametrize("case", SHAPES)
def test_shapes_by_hand(case: str) -> None:
    one, inputs, expected = SHAPES[case]
    assert one.out_shape(*inputs) == expected


def test_parameters_by_hand() -> None:
    conv, linear = Conv2d("a", ("x",), 8, 3, groups=2, bias=True), Linear("a", ("x",), 7)
    assert conv.weights((4, 9, 9)) == {"weight": (8, 2, 3, 3), "bias": (8,)}
    assert linear.weights((60,)) == {"weight": (7, 60), "bias": (7,)}
    assert Linear("a", ("x",), 7, bias=False).weights((60,)) == {"weight": (7, 60)}
    assert BatchNorm("a", ("x",)).buffers((4, 9, 9)) == {"running_mean": (4,), "running_var": (4,)}
    assert conv.macs((4, 9, 9)) == 7 * 7 * 8 * 2 * 9


def test_add_needs_equal_shapes() -> None:
    with pytest.raises(ConfigError, match=r"node sum: can't add \(2, 3, 4\) and \(2, 3, 5\)"):
        Add("sum", ("a", "b")).out_shape((2, 3, 4), (2, 3, 5))


MISFITS: dict[str, tuple[Node, tuple[tuple[int, ...], ...], str]] = {
    "mul of other channels": (Mul("m", ("a", "b")), ((2, 3, 4), (3, 1, 1)), r"can't multiply \(2, 3, 4\) by \(3, 1, 1\)"),
    "mul the scale first": (Mul("m", ("a", "b")), ((2, 1, 1), (2, 3, 4)), r"can't multiply \(2, 1, 1\) by \(2, 3, 4\)"),
    "mul flat by a scale": (Mul("m", ("a", "b")), ((2,), (2, 1, 1)), r"can't multiply \(2,\) by \(2, 1, 1\)"),
    "concat of other sizes": (Concat("m", ("a", "b")), ((2, 3, 4), (2, 3, 5)), r"can't join .* along their channels"),
    "concat of flat and image": (Concat("m", ("a", "b")), ((2,), (2, 1, 1)), r"can't join \(2,\) and \(2, 1, 1\)"),
    "pad of what is flat": (Pad("m", ("a",), 1, 1, 1, 1), ((5,),), r"pad needs an image \(C, H, W\), got \(5,\)"),
    "pool smaller than its window": (Pool("m", ("a",), "max", (1, 9), 1), ((5, 4, 4),), r"smaller than its 1×9 window"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_shapes_that_do_not_fit_name_the_node(case: str) -> None:
    one, inputs, message = MISFITS[case]
    with pytest.raises(ConfigError, match="^node m: .*" + message):
        one.out_shape(*inputs)


def test_two_sided_parameters_by_hand() -> None:
    conv = Conv2d("a", ("x",), 8, (3, 2), (2, 1), (1, 0), groups=2)
    assert conv.weights((4, 9, 7)) == {"weight": (8, 2, 3, 2)}
    assert conv.macs((4, 9, 7)) == 5 * 6 * 8 * 2 * 6


def test_a_pad_takes_nothing_off() -> None:
    with pytest.raises(ConfigError, match=r"node p: left is -1, not a whole number from 0 up"):
        Pad("p", ("x",), left=-1, right=0, top=0, bottom=0)
    with pytest.raises(ConfigError, match=r"node c: concat has 0 inputs, not one or more"):
        Concat("c", ())
