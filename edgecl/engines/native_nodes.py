"""How each kind of node becomes kernel calls: forward it returns the node's value, backward it hands on the value's gradient."""

from __future__ import annotations

from collections.abc import Callable

from edgecl.engines.native_build import Builder
from edgecl.engines.native_layers import Statistics
from edgecl.engines.native_values import Cell, Gradient, Value, family, geometry, out_shape, pool_kind
from edgecl.kernels import Kind, View, array, pointer
from edgecl.nets.nodes import Add, BatchNorm, Conv2d, Flatten, GlobalPool, Linear, Node, Pool, Relu
from edgecl.types import ConfigError

_BAND = 4  # rows of the image whose statistics the 3×3 kernels keep together
_ALONE = "a pass of one sample has one value a channel and no variance; take a larger train.batch"


def conv(build: Builder, node: Node, value: Value) -> Value:
    layer, shape = build.layers[node.name], out_shape(node, value.shape)
    cell = Cell(build.take(shape))
    if family(node) is Kind.CONV3 and build.train and _normed(build, node.name):
        cell.band, bands = _BAND, -(-shape[1] // _BAND)
        cell.stats = build.keep(array(build.blocks * bands * shape[0] * 2 * build.lanes))
    view, out, stats = value.view(), pointer(cell.data), pointer(cell.stats)
    build.emit(family(node), value, **geometry(node, shape), a=view, out=out, stats=stats, layer=layer.pointer)
    return Value(cell, shape)


def norm(build: Builder, node: Node, value: Value) -> Value:
    assert isinstance(node, BatchNorm)
    value = build.stored(value) if value.norm or value.relu else value
    state, cell, (c, h, w) = Statistics(node, build.p, build.g), value.cell, value.shape
    build.kept.append(state)
    common = {"norm": state.pointer, "eps": node.eps, "momentum": node.momentum}
    if not build.train:
        build.emit(Kind.NORM_EVAL, value, **common)
    else:
        if build.n * h * w == 1:
            raise ConfigError(f"node {node.name}: {_ALONE}")
        if cell.stats is None:
            cell.stats, cell.band = build.keep(array(build.blocks * c * 2 * build.lanes)), h
            build.emit(Kind.STATS, value, a=value.view(), stats=pointer(cell.stats))
        build.emit(Kind.NORM, value, stats=pointer(cell.stats), band=cell.band, **common)
    return Value(cell, value.shape, state, parent=value, learns=True)


def relu(build: Builder, node: Node, value: Value) -> Value:
    return Value(value.cell, value.shape, value.norm, True, value, learns=value.learns)


def flatten(build: Builder, node: Node, value: Value) -> Value:
    value = build.stored(value) if value.norm else value
    c, h, w = value.shape
    return Value(value.cell, (c * h * w, 1, 1), None, value.relu, value, learns=value.learns)


def add(build: Builder, node: Node, a: Value, other: Value) -> Value:
    cell = Cell(build.take(a.shape))
    build.emit(Kind.STORE, a, a=a.view(), b=other.view(), out=pointer(cell.data))
    return Value(cell, a.shape, learns=a.learns or other.learns)


def pool(build: Builder, node: Node, value: Value) -> Value:
    shape = out_shape(node, value.shape)
    cell = Cell(build.take(shape))
    build.emit(pool_kind(node), value, **geometry(node, shape), a=value.view(), out=pointer(cell.data))
    return Value(cell, shape, learns=value.learns)


def back_conv(build: Builder, node: Node, value: Value, g: Gradient) -> None:
    source, layer = build.values[node.inputs[0]], build.layers[node.name]
    first, common = family(node), {**geometry(node, value.shape), "g": g.struct(), "layer": layer.pointer}
    if node.bias:  # type: ignore[attr-defined]
        build.emit(Kind.BIAS_GRAD, source, **common)
    if first is Kind.CONV3 and source.learns:
        build.emit(Kind.CONV3_BOTH, source, a=source.view(), **common, **build.slot(source))
    else:
        build.emit(first + 2, source, a=source.view(), **common)
        if source.learns:
            build.emit(first + 1, source, **common, **build.slot(source))
    build.drop(g)


def back_norm(build: Builder, node: Node, value: Value, g: Gradient) -> None:
    source, copy = build.values[node.inputs[0]], _behind(value)
    assert value.norm is not None
    g = build.plain(value, g) if g.norm else g
    build.emit(Kind.NORM_REDUCE, value, g=g.struct(), a=View(pointer(value.cell.data)), norm=value.norm.pointer)
    g = Gradient(g.buffer, g.mask, value)
    build.hand(source, g if copy is source else build.plain(value, g))


def back_relu(build: Builder, node: Node, value: Value, g: Gradient) -> None:
    g = g if g.plain else build.plain(value, g)
    build.hand(_behind(value), Gradient(g.buffer, value))


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


def back_pool(build: Builder, node: Node, value: Value, g: Gradient) -> None:
    source = build.values[node.inputs[0]]
    if source.learns:
        g = g if g.plain else build.plain(value, g)
        view = source.view() if pool_kind(node) is Kind.MAXPOOL else View()
        shape = geometry(node, value.shape)
        build.emit(pool_kind(node) + 1, source, a=view, g=g.struct(), **shape, **build.slot(source))
    build.drop(g)


def _normed(build: Builder, name: str) -> bool:
    return any(isinstance(n, BatchNorm) and name in n.inputs for n in build.net.nodes)


def _behind(value: Value) -> Value:
    """The value that this one is a view of, past a copy that was made of it."""
    assert value.parent is not None
    return value.parent


VIEWS = (BatchNorm, Relu, Flatten)  # which store nothing
FORWARD: dict[type[Node], Callable[..., Value]] = {
    Conv2d: conv,
    Linear: conv,
    BatchNorm: norm,
    Relu: relu,
    Add: add,
    Pool: pool,
    GlobalPool: pool,
    Flatten: flatten,
}
BACKWARD: dict[type[Node], Callable[..., None]] = {
    Conv2d: back_conv,
    Linear: back_conv,
    BatchNorm: back_norm,
    Relu: back_relu,
    Add: back_add,
    Pool: back_pool,
    GlobalPool: back_pool,
    Flatten: back_flatten,
}
