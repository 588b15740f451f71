"""How each kind of node becomes kernel calls: forward it returns the node's value, backward it hands on the value's gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgecl.engines.native_build import Builder
from edgecl.engines.native_layers import Statistics
from edgecl.engines.native_values import Gradient, Value, family, geometry, out_shape, pool_kind
from edgecl.kernels import Kind, View, array, pointer
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
from edgecl.types import ConfigError

_ALONE = "a pass of one sample has one value a channel and no variance; take a larger train.batch"


def conv(build: Builder, node: Node, value: Value) -> Value:
    layer, shape, kind = build.layers[node.name], out_shape(node, value.shape), family(node, value.shape[0])
    cell = build.cell(shape)
    if kind in BANDS and build.train and _normed(build, node.name):
        cell.band = BANDS[kind] or shape[1]
        cell.stats = build.keep(array(build.blocks * -(-shape[1] // cell.band) * shape[0] * 2 * build.lanes))
    view, out, stats = value.view(), pointer(cell.data), pointer(cell.stats)
    build.emit(kind, value, **geometry(node, shape), a=view, out=out, stats=stats, band=cell.band, layer=layer.pointer)
    return Value(cell, shape, learns=node.name not in build.frozen)


def norm(build: Builder, node: Node, value: Value) -> Value:
    assert isinstance(node, BatchNorm)
    value = build.stored(value) if value.norm or value.relu else value
    state, cell, (c, h, w) = Statistics(node, build.p, build.g), value.cell, value.shape
    build.kept.append(state)
    common = {"norm": state.pointer, "eps": node.eps, "momentum": node.momentum}
    if not build.train or node.name in build.frozen:
        build.emit(Kind.NORM_EVAL, value, **common)
    else:
        if build.n * h * w == 1:
            raise ConfigError(f"node {node.name}: {_ALONE}")
        if cell.stats is None:
            cell.stats, cell.band = build.keep(array(build.blocks * c * 2 * build.lanes)), h
            build.emit(Kind.STATS, value, a=value.view(), stats=pointer(cell.stats))
        build.emit(Kind.NORM, value, stats=pointer(cell.stats), band=cell.band, **common)
    return Value(cell, value.shape, state, parent=value, learns=node.name not in build.frozen)


def relu(build: Builder, node: Node, value: Value) -> Value:
    bounds = [hi for hi in (value.hi, 6.0 if isinstance(node, Relu6) else 0.0) if hi]
    return Value(value.cell, value.shape, value.norm, True, min(bounds, default=0.0), value, learns=value.learns)


def curve(build: Builder, node: Node, value: Value) -> Value:
    cell = build.cell(value.shape)
    build.emit(Kind.ACTIVATE, value, a=value.view(), out=pointer(cell.data), flag=CURVES.index(type(node)))
    return Value(cell, value.shape, learns=value.learns)


def flatten(build: Builder, node: Node, value: Value) -> Value:
    value = build.stored(value) if value.norm else value
    c, h, w = value.shape
    return Value(value.cell, (c * h * w, 1, 1), None, value.relu, value.hi, value, learns=value.learns)


def add(build: Builder, node: Node, a: Value, other: Value) -> Value:
    cell = build.cell(a.shape)
    build.emit(Kind.STORE, a, a=a.view(), b=other.view(), out=pointer(cell.data))
    return Value(cell, a.shape, learns=a.learns or other.learns)


def mul(build: Builder, node: Node, a: Value, other: Value) -> Value:
    cell, flag = build.cell(a.shape), SAME if a.shape == other.shape else SCALE
    build.emit(Kind.MULTIPLY, a, a=a.view(), b=other.view(), out=pointer(cell.data), flag=flag)
    return Value(cell, a.shape, learns=a.learns or other.learns)


def concat(build: Builder, node: Node, *values: Value) -> Value:
    shape, first = out_shape(node, *(v.shape for v in values)), 0
    cell = build.cell(shape)
    for value in values:
        build.emit(Kind.JOIN, value, a=value.view(), out=pointer(cell.data), o=shape[0], count=first)
        first += value.shape[0]
    return Value(cell, shape, learns=any(v.learns for v in values))


def pad(build: Builder, node: Node, value: Value) -> Value:
    assert isinstance(node, Pad)
    shape = out_shape(node, value.shape)
    cell = build.cell(shape)
    build.emit(Kind.PAD, value, **_padded(node, shape), a=value.view(), out=pointer(cell.data))
    return Value(cell, shape, learns=value.learns)


def pool(build: Builder, node: Node, value: Value) -> Value:
    shape = out_shape(node, value.shape)
    cell = build.cell(shape)
    build.emit(pool_kind(node), value, **geometry(node, shape), a=value.view(), out=pointer(cell.data))
    return Value(cell, shape, learns=value.learns)


def back_conv(build: Builder, node: Node, value: Value, g: Gradient) -> None:
    source, layer = build.values[node.inputs[0]], build.layers[node.name]
    first, common = family(node, source.shape[0]), {**geometry(node, value.shape), "g": g.struct(), "layer": layer.pointer}
    if node.bias:  # type: ignore[attr-defined]
        build.emit(Kind.BIAS_GRAD, source, **common)
    if first in BOTH and source.learns:
        reduced = _reduced(source) if first in (Kind.DEPTHWISE, Kind.CONV1) else {}
        build.emit(BOTH[first], source, a=source.view(), **common, **reduced, **build.slot(source))
    else:
        build.emit(first + 2, source, a=source.view(), **common)
        if source.learns:
            build.emit(first + 1, source, **common, **build.slot(source))
    build.drop(g)


def _reduced(source: Value) -> dict[str, Any]:
    """The batch norm that a value is read through, if nothing else reads either: its sums are made with the gradient."""
    value = source
    while value.relu and value.uses == 1 and value.parent is not None and value.parent.norm is value.norm:
        value = value.parent
    if value.norm is None or value.relu or value.uses != 1 or value.cell is not source.cell or not value.learns:
        return {}
    value.reduced = True
    return {"norm": value.norm.pointer}


def back_norm(build: Builder, node: Node, value: Value, g: Gradient) -> None:
    source, copy = build.values[node.inputs[0]], _behind(value)
    assert value.norm is not None
    g = build.plain(value, g) if g.norm else g
    if not value.reduced:
        build.emit(Kind.NORM_REDUCE, value, g=g.struct(), a=View(pointer(value.cell.data)), norm=value.norm.pointer)
    g = Gradient(g.buffer, g.mask, value)
    build.hand(source, g if copy is source or not source.learns else build.plain(value, g))


def back_relu(build: Builder, node: Node, value: Value, g: Gradient) -> None:
    g = g if g.plain else build.plain(value, g)
    build.hand(_behind(value), Gradient(g.buffer, value))


def back_curve(build: Builder, node: Node, value: Value, g: Gradient) -> None:
    source = build.values[node.inputs[0]]
    if source.learns:
        flag = CURVES.index(type(node))
        build.emit(Kind.ACTIVATE_DX, source, a=source.view(), g=g.struct(), flag=flag, **build.slot(source))
    build.drop(g)


def back_flatten(build: Builder, node: Node, value: Value, g: Gradient) -> None:
    build.hand(build.values[node.inputs[0]], g if g.plain else build.plain(value, g))


def back_add(build: Builder, node: Node, value: Value, g: Gradient) -> None:
    g = g if g.plain else build.plain(value, g)
    for source in (build.values[k] for k in node.inputs):
        if source.learns and source.grad is None:
            g.buffer.holders += 1
            source.grad = Gradient(g.buffer)
        elif source.learns:
            build.emit(Kind.STORE_GRAD, source, g=g.struct(), **build.slot(source))
    build.drop(g)


def back_mul(build: Builder, node: Node, value: Value, g: Gradient) -> None:
    a, b = (build.values[k] for k in node.inputs)
    same = a.shape == b.shape
    for source, other, flag in ((a, b, SAME if same else SCALE), (b, a, SAME if same else TO_SCALE)):
        if source.learns:
            build.emit(Kind.MULTIPLY_DX, value, a=other.view(), g=g.struct(), flag=flag, **build.slot(source))
    build.drop(g)


def back_concat(build: Builder, node: Node, value: Value, g: Gradient) -> None:
    first = 0
    for source in (build.values[k] for k in node.inputs):
        if source.learns:
            build.emit(Kind.JOIN_DX, source, g=g.struct(), o=value.shape[0], count=first, **build.slot(source))
        first += source.shape[0]
    build.drop(g)


def back_pad(build: Builder, node: Node, value: Value, g: Gradient) -> None:
    assert isinstance(node, Pad)
    source = build.values[node.inputs[0]]
    if source.learns:
        build.emit(Kind.PAD_DX, source, g=g.struct(), **_padded(node, value.shape), **build.slot(source))
    build.drop(g)


def _padded(node: Pad, shape: tuple[int, int, int]) -> dict[str, int]:
    return {"o": shape[0], "ho": shape[1], "wo": shape[2], "ph": node.top, "pw": node.left}


def back_pool(build: Builder, node: Node, value: Value, g: Gradient) -> None:
    source = build.values[node.inputs[0]]
    if source.learns:
        g = g if g.plain else build.plain(value, g)
        view = source.view() if pool_kind(node) is Kind.MAXPOOL else View()
        shape = geometry(node, value.shape)
        build.emit(pool_kind(node) + 1, source, a=view, g=g.struct(), **shape, **build.slot(source))
    build.drop(g)


def _normed(build: Builder, name: str) -> bool:
    return any(isinstance(n, BatchNorm) and name in n.inputs and n.name not in build.frozen for n in build.net.nodes)


def _behind(value: Value) -> Value:
    """The value that this one is a view of, past a copy that was made of it."""
    assert value.parent is not None
    return value.parent


VIEWS = (BatchNorm, Relu, Relu6, Flatten)  # which store nothing
BANDS = {Kind.CONV3: 4, Kind.CONV1: 4, Kind.DEPTHWISE: 0}  # rows whose statistics come with the outputs; 0: all
BOTH = {  # which find both gradients in one walk
    Kind.CONV3: Kind.CONV3_BOTH,
    Kind.CONV1: Kind.CONV1_BOTH,
    Kind.DEPTHWISE: Kind.DEPTHWISE_BOTH,
}
CURVES = (Hardsigmoid, Hardswish, Sigmoid, Silu)  # in the order of Curve in elementwise.h
SAME, SCALE, TO_SCALE = range(3)  # Factor in elementwise.h
FORWARD: dict[type[Node], Callable[..., Value]] = {
    Conv2d: conv,
    Linear: conv,
    BatchNorm: norm,
    Relu: relu,
    Relu6: relu,
    **dict.fromkeys(CURVES, curve),
    Add: add,
    Mul: mul,
    Concat: concat,
    Pad: pad,
    Pool: pool,
    GlobalPool: pool,
    Flatten: flatten,
}
BACKWARD: dict[type[Node], Callable[..., None]] = {
    Conv2d: back_conv,
    Linear: back_conv,
    BatchNorm: back_norm,
    Relu: back_relu,
    Relu6: back_relu,
    **dict.fromkeys(CURVES, back_curve),
    Add: back_add,
    Mul: back_mul,
    Concat: back_concat,
    Pad: back_pad,
    Pool: back_pool,
    GlobalPool: back_pool,
    Flatten: back_flatten,
}
