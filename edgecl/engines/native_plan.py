"""A net as a list of kernel calls: made once for a number of samples, with every buffer it needs, then only run.

A node's output is a *value*: a stored array as its readers see it. Batch norm, ReLU and flatten store nothing; whoever reads
the value applies them. In the backward pass a gradient is likewise a buffer and what is still to be applied to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgecl.engines.native_layers import Floats, Statistics, Weights
from edgecl.engines.native_values import Buffer, Cell, Gradient, Value, family, geometry, out_shape, pool_kind
from edgecl.kernels import Kind, Op, View, array, pointer, program
from edgecl.nets.graph import Net
from edgecl.nets.nodes import Add, BatchNorm, Conv2d, Flatten, GlobalPool, Linear, Node, Pool, Relu, Shape
from edgecl.types import ConfigError

_BOTH = {Kind.CONV3: Kind.CONV3_BOTH, Kind.CONV1: Kind.CONV1_BOTH}  # input and weight gradient in one operation
_BAND = 4  # rows of the image whose statistics the 3×3 and 1×1 kernels keep together, as they write their outputs


@dataclass(eq=False)
class Plan:
    """One pass of n samples through the net. `x` and `d` are read, `logits` and `features` written, as numpy has them."""

    x: Floats
    d: Floats
    logits: Floats
    features: Floats
    forward: Any  # operations for kernels.Kernels.run
    backward: Any
    bytes: int
    kept: list[Any] = field(default_factory=list)  # what the operations point to


class Planner:
    """Walks the net once; `train` keeps what the backward pass needs."""

    def __init__(self, net: Net, n: int, lanes: int, layers: Mapping[str, Weights], p: Any, g: Any, train: bool) -> None:
        self.net, self.n, self.lanes, self.layers, self.p, self.g, self.train = net, n, lanes, layers, p, g, train
        self.blocks = -(-n // lanes)
        self.ops: list[Op] = []
        self.values: dict[str, Value] = {}
        self.free: dict[int, list[Floats]] = {}
        self.kept: list[Any] = []
        self.bytes = 0
        self.readers = _readers(net)

    # buffers and operations

    def take(self, shape: Shape) -> Floats:
        """An array for a value of this shape, used before if one is free."""
        size = self.blocks * self.lanes * int(np.prod(shape))
        if self.free.get(size):
            return self.free[size].pop()
        return self.keep(array(size))

    def keep(self, a: Floats) -> Floats:
        self.kept.append(a)
        self.bytes += a.nbytes
        return a

    def give(self, a: Floats) -> None:
        self.free.setdefault(a.size, []).append(a)

    def emit(self, kind: int, value: Value | None = None, **fields: Any) -> None:
        """An operation; `value` sets its input's shape."""
        c, h, w = value.shape if value else (0, 0, 0)
        self.ops.append(Op(kind=int(kind), n=self.n, **{"c": c, "h": h, "w": w, **fields}))

    # forward

    def make(self) -> Plan:
        host = {"x": (self.n, *self.net.input), "d": (self.n, self.net.classes)}
        x, d = (array(s) for s in host.values())
        self.values["x"] = Value(Cell(self.take(self.net.input)), self.net.input, uses=self.readers["x"], learns=False)
        self.emit(Kind.PACK, self.values["x"], out=pointer(self.values["x"].cell.data), host=pointer(x))
        last = _last_readers(self.net) if not self.train else {}
        for i, node in enumerate(self.net.nodes):
            self.values[node.name] = FORWARD[type(node)](self, node, *(self.values[k] for k in node.inputs))
            self.values[node.name].uses = self.readers[node.name]
            for name in last.get(i, ()):
                self.give(self.values[name].cell.data)
        logits, features = (self.unpack(self.values[k]) for k in (self.net.logits, self.net.features))
        forward, self.ops = program(self.ops), []
        if self.train:
            self.back(d)
        return Plan(x, d, logits, features, forward, program(self.ops), self.bytes, self.kept)

    def unpack(self, value: Value) -> Floats:
        host: Floats = array((self.n, value.shape[0]))
        self.emit(Kind.UNPACK, value, a=value.view(), host=pointer(host))
        return host

    def stored(self, value: Value) -> Value:
        """The value as an array of its own."""
        out = Value(Cell(self.take(value.shape)), value.shape, parent=value, uses=1, learns=value.learns)
        self.emit(Kind.STORE, value, a=value.view(), out=pointer(out.cell.data))
        return out

    def conv(self, node: Node, value: Value) -> Value:
        layer, shape = self.layers[node.name], out_shape(node, value.shape)
        cell = Cell(self.take(shape))
        if family(node) in (Kind.CONV3, Kind.CONV1) and self.train and self.normed(node.name):
            cell.band, bands = _BAND, -(-shape[1] // _BAND)
            cell.stats = self.keep(array(self.blocks * bands * shape[0] * 2 * self.lanes))
        view, out, stats = value.view(), pointer(cell.data), pointer(cell.stats)
        self.emit(family(node), value, **geometry(node, shape), a=view, out=out, stats=stats, band=cell.band, layer=layer.pointer)
        return Value(cell, shape)

    def normed(self, name: str) -> bool:
        return any(isinstance(n, BatchNorm) and name in n.inputs for n in self.net.nodes)

    def norm(self, node: Node, value: Value) -> Value:
        assert isinstance(node, BatchNorm)
        value = self.stored(value) if value.norm or value.relu else value
        state, cell, (c, h, w) = Statistics(node, self.p, self.g), value.cell, value.shape
        self.kept.append(state)
        common = {"norm": state.pointer, "eps": node.eps, "momentum": node.momentum}
        if not self.train:
            self.emit(Kind.NORM_EVAL, value, **common)
        else:
            if self.n * h * w == 1:
                raise ConfigError(f"node {node.name}: {_ALONE}")
            if cell.stats is None:
                cell.stats, cell.band = self.keep(array(self.blocks * c * 2 * self.lanes)), h
                self.emit(Kind.STATS, value, a=value.view(), stats=pointer(cell.stats))
            self.emit(Kind.NORM, value, stats=pointer(cell.stats), band=cell.band, **common)
        return Value(cell, value.shape, state, parent=value, learns=True)

    def relu(self, node: Node, value: Value) -> Value:
        return Value(value.cell, value.shape, value.norm, True, value, learns=value.learns)

    def flatten(self, node: Node, value: Value) -> Value:
        value = self.stored(value) if value.norm else value
        c, h, w = value.shape
        return Value(value.cell, (c * h * w, 1, 1), None, value.relu, value, learns=value.learns)

    def add(self, node: Node, a: Value, b: Value) -> Value:
        cell = Cell(self.take(a.shape))
        self.emit(Kind.STORE, a, a=a.view(), b=b.view(), out=pointer(cell.data))
        return Value(cell, a.shape, learns=a.learns or b.learns)

    def pool(self, node: Node, value: Value) -> Value:
        shape = out_shape(node, value.shape)
        cell = Cell(self.take(shape))
        self.emit(pool_kind(node), value, **geometry(node, shape), a=value.view(), out=pointer(cell.data))
        return Value(cell, shape, learns=value.learns)

    # backward

    def back(self, d: Floats) -> None:
        """From the logits' gradient `d` to every parameter's."""
        logits = self.values[self.net.logits]
        logits.uses += 1
        logits.grad = Gradient(Buffer(self.take(logits.shape)))
        self.emit(Kind.PACK, logits, out=pointer(logits.grad.buffer.data), host=pointer(d))
        for node in reversed(self.net.nodes):
            value = self.values[node.name]
            if value.grad is not None:
                BACKWARD[type(node)](self, node, value, value.grad)
                value.grad = None

    def drop(self, g: Gradient) -> None:
        g.buffer.holders -= 1
        if not g.buffer.holders:
            self.give(g.buffer.data)

    def slot(self, value: Value) -> dict[str, Any]:
        """Where a reader of the value adds its gradient: `out` and `accumulate` of an operation."""
        if value.grad is None:
            value.grad = Gradient(Buffer(self.take(value.shape)))
            return {"out": pointer(value.grad.buffer.data), "accumulate": 0}
        if value.grad.buffer.holders > 1 or not value.grad.plain:
            value.grad = self.plain(value, value.grad)
        return {"out": pointer(value.grad.buffer.data), "accumulate": 1}

    def plain(self, value: Value, g: Gradient) -> Gradient:
        """The gradient with all applied to it, in a buffer that nobody else holds."""
        if g.plain and g.buffer.holders == 1:
            return g
        own = g.buffer if g.buffer.holders == 1 else Buffer(self.take(value.shape))
        self.emit(Kind.STORE_GRAD, value, g=g.struct(), out=pointer(own.data))
        if own is not g.buffer:
            self.drop(g)
        return Gradient(own)

    def hand(self, value: Value, g: Gradient) -> None:
        """Passes a gradient, with its buffer, to a value it is the whole gradient of, or a part."""
        if not value.learns:
            self.drop(g)
        elif value.uses == 1 and value.grad is None:
            value.grad = g
        else:
            self.emit(Kind.STORE_GRAD, value, g=g.struct(), **self.slot(value))
            self.drop(g)

    def behind(self, value: Value) -> Value:
        """The value that this one is a view of, past a copy that was made of it."""
        assert value.parent is not None
        return value.parent

    def back_conv(self, node: Node, value: Value, g: Gradient) -> None:
        source, layer = self.values[node.inputs[0]], self.layers[node.name]
        first, common = family(node), {**geometry(node, value.shape), "g": g.struct(), "layer": layer.pointer}
        if node.bias:  # type: ignore[attr-defined]
            self.emit(Kind.BIAS_GRAD, source, **common)
        if first in _BOTH and source.learns:
            self.emit(_BOTH[first], source, a=source.view(), **common, **self.slot(source))
        else:
            self.emit(first + 2, source, a=source.view(), **common)
            if source.learns:
                self.emit(first + 1, source, **common, **self.slot(source))
        self.drop(g)

    def back_norm(self, node: Node, value: Value, g: Gradient) -> None:
        source, copy = self.values[node.inputs[0]], self.behind(value)
        assert value.norm is not None
        g = self.plain(value, g) if g.norm else g
        self.emit(Kind.NORM_REDUCE, value, g=g.struct(), a=View(pointer(value.cell.data)), norm=value.norm.pointer)
        g = Gradient(g.buffer, g.mask, value)
        self.hand(source, g if copy is source else self.plain(value, g))

    def back_relu(self, node: Node, value: Value, g: Gradient) -> None:
        g = g if g.plain else self.plain(value, g)
        self.hand(self.behind(value), Gradient(g.buffer, value))

    def back_flatten(self, node: Node, value: Value, g: Gradient) -> None:
        self.hand(self.values[node.inputs[0]], g if g.plain else self.plain(value, g))

    def back_add(self, node: Node, value: Value, g: Gradient) -> None:
        g = g if g.plain else self.plain(value, g)
        for source in (self.values[k] for k in node.inputs):
            if source.learns and source.grad is None:
                g.buffer.holders += 1
                source.grad = Gradient(g.buffer)
            elif source.learns:
                self.emit(Kind.STORE_GRAD, source, g=g.struct(), **self.slot(source))
        self.drop(g)

    def back_pool(self, node: Node, value: Value, g: Gradient) -> None:
        source = self.values[node.inputs[0]]
        if source.learns:
            g = g if g.plain else self.plain(value, g)
            view = source.view() if pool_kind(node) is Kind.MAXPOOL else View()
            shape = geometry(node, value.shape)
            self.emit(pool_kind(node) + 1, source, a=view, g=g.struct(), **shape, **self.slot(source))
        self.drop(g)


_ALONE = "a pass of one sample has one value a channel and no variance; take a larger train.batch"

FORWARD: dict[type[Node], Callable[..., Value]] = {
    Conv2d: Planner.conv,
    Linear: Planner.conv,
    BatchNorm: Planner.norm,
    Relu: Planner.relu,
    Add: Planner.add,
    Pool: Planner.pool,
    GlobalPool: Planner.pool,
    Flatten: Planner.flatten,
}
BACKWARD: dict[type[Node], Callable[..., None]] = {
    Conv2d: Planner.back_conv,
    Linear: Planner.back_conv,
    BatchNorm: Planner.back_norm,
    Relu: Planner.back_relu,
    Add: Planner.back_add,
    Pool: Planner.back_pool,
    GlobalPool: Planner.back_pool,
    Flatten: Planner.back_flatten,
}


def _readers(net: Net) -> dict[str, int]:
    """How many nodes read each value."""
    found = dict.fromkeys(("x", *(n.name for n in net.nodes)), 0)
    for node in net.nodes:
        for name in node.inputs:
            found[name] += 1
    return found


def _last_readers(net: Net) -> dict[int, list[str]]:
    """Position of a node → values whose array nobody reads after it."""
    root, last = {"x": "x"}, {"x": 0}
    for i, node in enumerate(net.nodes):
        is_view = isinstance(node, (BatchNorm, Relu, Flatten))
        root[node.name] = root[node.inputs[0]] if is_view else node.name
        for name in (*node.inputs, node.name):
            last[root[name]] = i
    for output in (net.logits, net.features):
        last.pop(root[output], None)
    return {i: [k for k, at in last.items() if at == i] for i in set(last.values())}
