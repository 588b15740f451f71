"""A Net as a .tflite file for LiteRT, node by node through the schema that `ai_edge_litert` brings: no converter, no torch.

Input `x` [N, H, W, C] float32, a stored sample's 0 to 255; its normalisation is the graph's first two operations. Output
`logits` [N, K] float32. N is 1 until an interpreter resizes the input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgecl.card import Card
from edgecl.export.tflite_graph import CUT, Graph
from edgecl.nets import Net
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
    Shape,
    Sigmoid,
    Silu,
    pair,
)
from edgecl.types import Named


def write(net: Net, weights: Named, card: Card) -> bytes:
    """The file. `weights` are the net's, by name, float32; batch norms that are left become a product and a sum.

    Raises ConfigError that names the extra that is missing.
    """
    graph = Graph(net, weights)
    graph.begin(card)
    for node, shapes in net.walk():
        MAKE[type(node)](graph, node, *shapes)
    return graph.finish(card)


# One function a kind of node


def _conv(g: Graph, node: Conv2d, shape: Shape) -> None:
    (ph, pw), (kh, kw), (sh, sw) = pair(node.padding), pair(node.kernel), pair(node.stride)
    source, same = g.at[node.inputs[0]], (ph, pw) == (kh // 2, kw // 2) and kh % 2 == kw % 2 == sh == sw == 1
    if (ph or pw) and not same:  # SAME puts an odd row at the far edge; torch pads both alike
        source = g.padded(node.inputs[0], ph, ph, pw, pw, f"{node.name}.padded")
    padding = g.s.Padding.SAME if same and (ph or pw) else g.s.Padding.VALID
    w = g.weight(node, "weight").transpose(0, 2, 3, 1)
    depthwise = node.groups == shape[0] > 1
    filters = g.constant(f"{node.name}.weight", w.transpose(3, 1, 2, 0) if depthwise else w)
    inputs = [source, filters, _bias(g, node, node.bias, node.out)]
    out, strides = (
        node.out_shape(shape),
        {"strideH": sh, "strideW": sw, "padding": padding, "dilationHFactor": 1, "dilationWFactor": 1},
    )
    if depthwise:
        g.emit(
            "DEPTHWISE_CONV_2D",
            "DepthwiseConv2DOptionsT",
            inputs,
            node.name,
            out,
            depthMultiplier=node.out // shape[0],
            **strides,
        )
    else:
        g.emit("CONV_2D", "Conv2DOptionsT", inputs, node.name, out, **strides)


def _bias(g: Graph, node: Node, has: bool, out: int) -> int:
    """int8 kernels ask for one."""
    return g.constant(f"{node.name}.bias", g.weight(node, "bias") if has else np.zeros(out))


def _linear(g: Graph, node: Linear, shape: Shape) -> None:
    filters = g.constant(f"{node.name}.weight", g.weight(node, "weight"))
    inputs = [g.at[node.inputs[0]], filters, _bias(g, node, node.bias, node.out)]
    g.emit("FULLY_CONNECTED", "FullyConnectedOptionsT", inputs, node.name, (node.out,))


def _batch_norm(g: Graph, node: BatchNorm, shape: Shape) -> None:
    scale = g.weight(node, "weight") / np.sqrt(g.weight(node, "running_var") + np.float32(node.eps))
    shift = g.weight(node, "bias") - g.weight(node, "running_mean") * scale
    scaled = f"{node.name}.scaled"
    g.emit("MUL", "MulOptionsT", [g.at[node.inputs[0]], g.constant(f"{node.name}.scale", scale)], scaled, shape)
    g.emit("ADD", "AddOptionsT", [g.at[scaled], g.constant(f"{node.name}.shift", shift)], node.name, shape)


def _unary(code: str, options: str = "", positive: bool = False) -> Callable[[Graph, Any, Shape], None]:
    def make(g: Graph, node: Node, shape: Shape) -> None:
        if type(node) in CUT and node.inputs[0] in g.cut:
            g.at[node.name] = g.at[node.inputs[0]]
        else:
            g.emit(code, options, [g.at[node.inputs[0]]], node.name, shape)
        g.positive |= {node.name} if positive else set()

    return make


def _hardsigmoid(g: Graph, node: Hardsigmoid, shape: Shape) -> None:
    shifted, cut = f"{node.name}.shifted", f"{node.name}.cut"
    g.emit("ADD", "AddOptionsT", [g.at[node.inputs[0]], g.constant(f"{node.name}.three", [3.0])], shifted, shape)
    g.emit("RELU6", "", [g.at[shifted]], cut, shape)
    g.emit("MUL", "MulOptionsT", [g.at[cut], g.constant(f"{node.name}.sixth", [1 / 6])], node.name, shape)
    g.positive.add(node.name)


def _silu(g: Graph, node: Silu, shape: Shape) -> None:
    gate = f"{node.name}.gate"
    g.emit("LOGISTIC", "", [g.at[node.inputs[0]]], gate, shape)
    g.emit("MUL", "MulOptionsT", [g.at[node.inputs[0]], g.at[gate]], node.name, shape)


def _both(code: str, options: str) -> Callable[[Graph, Any, Shape, Shape], None]:
    def make(g: Graph, node: Node, a: Shape, b: Shape) -> None:
        g.emit(code, options, [g.at[name] for name in node.inputs], node.name, a)
        g.positive |= {node.name} if g.positive.issuperset(node.inputs) else set()

    return make


def _concat(g: Graph, node: Concat, *shapes: Shape) -> None:
    out = node.out_shape(*shapes)
    g.emit("CONCATENATION", "ConcatenationOptionsT", [g.at[name] for name in node.inputs], node.name, out, axis=len(out))
    g.positive |= {node.name} if g.positive.issuperset(node.inputs) else set()


def _pad(g: Graph, node: Pad, shape: Shape) -> None:
    g.padded(node.inputs[0], node.top, node.bottom, node.left, node.right, node.name)
    g.positive |= {node.name} if node.inputs[0] in g.positive else set()


def _pool(g: Graph, node: Pool, shape: Shape) -> None:
    (ph, pw), (kh, kw), (sh, sw) = pair(node.padding), pair(node.kernel), pair(node.stride)
    source = node.inputs[0]
    if ph or pw:
        source = f"{node.name}.padded"
        mirror = node.kind == "max" and node.inputs[0] not in g.positive
        g.padded(node.inputs[0], ph, ph, pw, pw, source, mirror=mirror)
    values = {"filterHeight": kh, "filterWidth": kw, "strideH": sh, "strideW": sw, "padding": g.s.Padding.VALID}
    code = "MAX_POOL_2D" if node.kind == "max" else "AVERAGE_POOL_2D"
    g.emit(code, "Pool2DOptionsT", [g.at[source]], node.name, node.out_shape(shape), **values)
    g.positive |= {node.name} if node.inputs[0] in g.positive else set()


def _global_pool(g: Graph, node: GlobalPool, shape: Shape) -> None:
    axes = g.constant(f"{node.name}.axes", [1, 2], np.int32)
    g.emit("MEAN", "ReducerOptionsT", [g.at[node.inputs[0]], axes], node.name, node.out_shape(shape), keepDims=node.keep)


def _flatten(g: Graph, node: Flatten, shape: Shape) -> None:
    """In the order C, H, W, as the layers after it were trained."""
    source = g.at[node.inputs[0]]
    if len(shape) == 3 and shape[1] * shape[2] > 1:
        order = g.constant(f"{node.name}.order", [0, 3, 1, 2], np.int32)
        moved = (shape[1], shape[2], shape[0])  # what `layout` takes to N, C, H, W
        source = g.emit("TRANSPOSE", "TransposeOptionsT", [source, order], f"{node.name}.moved", moved)
    out = node.out_shape(shape)
    to = g.constant(f"{node.name}.shape", [-1, *out], np.int32)
    g.emit("RESHAPE", "ReshapeOptionsT", [source, to], node.name, out, newShape=[-1, *out])


MAKE: Mapping[type[Node], Callable[..., None]] = {
    Conv2d: _conv,
    Linear: _linear,
    BatchNorm: _batch_norm,
    Relu: _unary("RELU", positive=True),
    Relu6: _unary("RELU6", positive=True),
    Hardsigmoid: _hardsigmoid,
    Hardswish: _unary("HARD_SWISH", "HardSwishOptionsT"),
    Sigmoid: _unary("LOGISTIC", positive=True),
    Silu: _silu,
    Add: _both("ADD", "AddOptionsT"),
    Mul: _both("MUL", "MulOptionsT"),
    Concat: _concat,
    Pad: _pad,
    Pool: _pool,
    GlobalPool: _global_pool,
    Flatten: _flatten,
}
