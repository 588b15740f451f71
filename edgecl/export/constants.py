"""Channels that say the same whatever the picture: a channel all of whose weights are masked is its bias, on every pixel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgecl.engines.numpy_ops import OPS
from edgecl.export.weights import F64, Weights, affine, bias_of, by_input, has_padding, over_taps
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
    Shape,
    Sigmoid,
    Silu,
    pair,
)

ELEMENTWISE = (Relu, Relu6, Hardsigmoid, Hardswish, Sigmoid, Silu)


def constants(net: Net, p: Weights) -> dict[str, F64]:
    """A value for every channel of every node's output, and of "x": NaN where it depends on the picture."""
    found: dict[str, F64] = {"x": np.full(net.input[0], np.nan)}
    for node, shapes in net.walk():
        found[node.name] = RULES[type(node)](node, p, shapes, *(found[i] for i in node.inputs))
    return found


def taken(node: Conv2d | Linear, value: F64) -> Any:
    """Whether a constant input channel can become part of the layer's bias, bool [in]: padding is 0, so 0 always can."""
    return (value == 0) | (~np.isnan(value) & (not has_padding(node)))


def shares(node: Conv2d | Linear, p: Weights, value: F64) -> F64:
    """[out, in / groups]: what each input channel adds to every pixel of an output; 0 where it can't be told."""
    known: F64 = np.where(taken(node, value), value, 0.0)
    found: F64 = over_taps(p[f"{node.name}.weight"]) * by_input(node, known)
    return found


def _layer(node: Conv2d | Linear, p: Weights, shapes: tuple[Shape, ...], value: F64) -> F64:
    w = p[f"{node.name}.weight"]
    silent = ~w.reshape(*w.shape[:2], -1).any(axis=2)
    known = (silent | by_input(node, taken(node, value))).all(axis=1)
    total: F64 = bias_of(node, p) + shares(node, p, value).sum(axis=1)
    return np.where(known, total, np.nan)


def _norm(node: BatchNorm, p: Weights, shapes: tuple[Shape, ...], value: F64) -> F64:
    scale, shift = affine(node, p)
    return np.where(scale == 0, shift, value * scale + shift)


def _elementwise(node: Node, p: Weights, shapes: tuple[Shape, ...], value: F64) -> F64:
    found: F64 = np.asarray(OPS[type(node)](node, {}, False, value)[0], np.float64)
    return found


def _mul(node: Node, p: Weights, shapes: tuple[Shape, ...], a: F64, b: F64) -> F64:
    return np.where((a == 0) | (b == 0), 0.0, a * b)


def _flatten(node: Node, p: Weights, shapes: tuple[Shape, ...], value: F64) -> F64:
    pixels = int(np.prod(shapes[0][1:], dtype=int))
    return np.repeat(value, pixels)


def _pool(node: Pool, p: Weights, shapes: tuple[Shape, ...], value: F64) -> F64:
    """What is padded is never a maximum, but counts as 0 in a mean."""
    return value if node.kind == "max" or pair(node.padding) == (0, 0) else _only_zero(node, p, shapes, value)


def _only_zero(node: Node, p: Weights, shapes: tuple[Shape, ...], value: F64) -> F64:
    return np.where(value == 0, 0.0, np.nan)


RULES: dict[type[Node], Callable[..., F64]] = {
    Conv2d: _layer,
    Linear: _layer,
    BatchNorm: _norm,
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    Add: lambda node, p, shapes, a, b: a + b,
    Mul: _mul,
    Concat: lambda node, p, shapes, *values: np.concatenate(values),
    Pad: _only_zero,
    Pool: _pool,
    GlobalPool: lambda node, p, shapes, value: value,
    Flatten: _flatten,
}
