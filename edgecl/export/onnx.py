"""A reduced net as an ONNX model, node by node. Needs the package onnx, and no torch.

Input `x`: uint8 [N, C, H, W], pixels as a camera or a file has them; the model normalises them itself. Output `logits`:
float32 [N, S], one a class of the card's `seen`, in that order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from edgecl.card import Card
from edgecl.data.augment import affine
from edgecl.export.metadata import entries
from edgecl.export.reduce import Reduced
from edgecl.nets.graph import Net
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
    pair,
)
from edgecl.types import ConfigError

OPSET, IR_VERSION = 17, 8  # of 2022: read by every ONNX Runtime since 1.12
INPUT, OUTPUT = "x", "logits"
INPUT_NODES = ("input.cast", "input.scale", "input.shift")
"""What comes before the net: it is never quantised."""


class Op(NamedTuple):
    """One node of the model. A value is called as the node of the net that it is of, with an ending."""

    kind: str
    name: str
    inputs: list[str]
    output: str
    attributes: dict[str, Any] = {}  # noqa: RUF012, never changed


Made = Iterator[Op]


def write(found: Reduced, card: Card) -> bytes:
    """The model file: the same bytes for the same net, weights, card and version of onnx.

    Raises ConfigError where onnx is not installed.
    """
    helper = _onnx().helper
    stored = _stored(found, card)
    tensors = [_onnx().numpy_helper.from_array(v, k) for k, v in sorted(stored.items())]
    ops = [*_normalised(), *(op for node in found.net.nodes for op in MAKE[type(node)](_Names(found.net, node)))]
    nodes = [helper.make_node(o.kind, o.inputs, [o.output], name=o.name, **o.attributes) for o in ops]
    graph = helper.make_graph(nodes, found.net.name, *_ends(found.net), tensors)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="edgecl",
        producer_version=card.edgecl,
    )
    return sealed(model, card)


def sealed(model: Any, card: Card) -> bytes:
    """The bytes of a ModelProto whose metadata is the card, and nothing else."""
    model.ClearField("metadata_props")
    _onnx().helper.set_model_props(model, entries(card))
    return bytes(model.SerializeToString(deterministic=True))


def _onnx() -> Any:
    try:
        import onnx
        import onnx.helper
        import onnx.numpy_helper
    except ModuleNotFoundError as e:
        raise ConfigError(f'export: {e.name} is not installed; pip install "edgecl[onnx]"') from None
    return onnx


def _stored(found: Reduced, card: Card) -> dict[str, np.ndarray[Any, Any]]:
    """Constants by name: the weights in float32, the normalisation, and the sides of pads."""
    scale, shift = affine(np, card.preprocess, "cpu")
    arrays = {k: np.asarray(v, np.float32) for k, v in found.weights.items()}
    pads = {f"{n.name}.sides": _sides(n) for n in found.net.nodes if isinstance(n, Pad)}
    return {**arrays, **pads, "input.scale.by": scale, "input.shift.by": shift}


def _sides(node: Pad) -> np.ndarray[Any, Any]:
    return np.array([0, 0, node.top, node.left, 0, 0, node.bottom, node.right], np.int64)


def _ends(net: Net) -> tuple[list[Any], list[Any]]:
    helper, kinds = _onnx().helper, _onnx().TensorProto
    x = helper.make_tensor_value_info(INPUT, kinds.UINT8, ["N", *net.input])
    return [x], [helper.make_tensor_value_info(OUTPUT, kinds.FLOAT, ["N", net.classes])]


def _normalised() -> Made:
    cast, scale, shift = INPUT_NODES
    yield Op("Cast", cast, [INPUT], f"{cast}.out", {"to": _onnx().TensorProto.FLOAT})
    yield Op("Mul", scale, [f"{cast}.out", f"{scale}.by"], f"{scale}.out")
    yield Op("Add", shift, [f"{scale}.out", f"{shift}.by"], f"{shift}.out")


class _Names:
    """A node of the net, and what its values and weights are called in the model."""

    def __init__(self, net: Net, node: Any) -> None:
        self.node, self.name = node, node.name
        self.inputs = [_value(net, i) for i in node.inputs]
        self.output = _value(net, node.name)

    def op(self, kind: str, *stored: str, **attributes: Any) -> Op:
        """The node as one operation, which reads these arrays of its own beside its inputs."""
        return Op(kind, self.name, [*self.inputs, *(f"{self.name}.{k}" for k in stored)], self.output, attributes)

    def first(self, kind: str, part: str) -> Op:
        """The first of two operations; the second reads its output, `part_value(part)`."""
        return Op(kind, f"{self.name}.{part}", self.inputs, self.part_value(part))

    def part_value(self, part: str) -> str:
        return f"{self.name}.{part}.out"


def _value(net: Net, name: str) -> str:
    return f"{INPUT_NODES[-1]}.out" if name == "x" else OUTPUT if name == net.logits else f"{name}.out"


def _window(node: Conv2d | Pool) -> dict[str, list[int]]:
    shape, padding = list(pair(node.kernel)), list(pair(node.padding))
    return {"kernel_shape": shape, "strides": list(pair(node.stride)), "pads": padding * 2}


def _conv2d(n: _Names) -> Made:
    yield n.op("Conv", "weight", *["bias"] * n.node.bias, group=n.node.groups, **_window(n.node))


def _linear(n: _Names) -> Made:
    yield n.op("Gemm", "weight", *["bias"] * n.node.bias, transB=1)


def _batch_norm(n: _Names) -> Made:
    yield n.op("BatchNormalization", "weight", "bias", "running_mean", "running_var", epsilon=n.node.eps)


def _relu6(n: _Names) -> Made:
    """Its bounds are constants of the graph that no weight is named like."""
    low, high = (f"{n.name}.{k}.out" for k in ("low", "high"))
    for name, value in ((low, 0.0), (high, 6.0)):
        yield Op("Constant", name.removesuffix(".out"), [], name, {"value_float": value})
    yield Op("Clip", n.name, [*n.inputs, low, high], n.output)


def _silu(n: _Names) -> Made:
    yield n.first("Sigmoid", "gate")
    yield Op("Mul", n.name, [*n.inputs, n.part_value("gate")], n.output)


def _pool(n: _Names) -> Made:
    if n.node.kind == "max":
        yield n.op("MaxPool", **_window(n.node))
    else:
        yield n.op("AveragePool", count_include_pad=1, **_window(n.node))


def _global_pool(n: _Names) -> Made:
    if n.node.keep:
        yield n.op("GlobalAveragePool")
        return
    yield n.first("GlobalAveragePool", "image")
    yield Op("Flatten", n.name, [n.part_value("image")], n.output, {"axis": 1})


def _plain(kind: str, *stored: str, **attributes: Any) -> Callable[[_Names], Made]:
    def made(n: _Names) -> Made:
        yield n.op(kind, *stored, **attributes)

    return made


MAKE: dict[type[Node], Callable[[_Names], Made]] = {
    Conv2d: _conv2d,
    Linear: _linear,
    BatchNorm: _batch_norm,
    Relu: _plain("Relu"),
    Relu6: _relu6,
    Hardsigmoid: _plain("HardSigmoid", alpha=1 / 6, beta=0.5),
    Hardswish: _plain("HardSwish"),
    Sigmoid: _plain("Sigmoid"),
    Silu: _silu,
    Add: _plain("Add"),
    Mul: _plain("Mul"),
    Concat: _plain("Concat", axis=1),
    Pad: _plain("Pad", "sides", mode="constant"),
    Pool: _pool,
    GlobalPool: _global_pool,
    Flatten: _plain("Flatten", axis=1),
}
