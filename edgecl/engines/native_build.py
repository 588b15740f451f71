"""Buffers, operations and gradients of a pass under construction: what the node handlers of `native_nodes.py` write with."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import prod
from typing import Any, NamedTuple

from edgecl.engines.native_arena import Memory
from edgecl.engines.native_layers import Floats, Weights
from edgecl.engines.native_values import Buffer, Cell, Gradient, Value
from edgecl.kernels import Kind, Op, pointer
from edgecl.nets.graph import Net
from edgecl.nets.nodes import Shape


class Parameters(NamedTuple):
    """What the engine owns and a pass reads or writes."""

    layers: Mapping[str, Weights]
    p: Mapping[str, Floats]  # weights and buffers
    g: Mapping[str, Floats]  # gradients of one-dimensional weights
    frozen: Collection[str] = ()  # nodes that do not learn


class Builder:
    """One pass of n samples, in vectors of `lanes`; `train` keeps what the backward pass needs, `again` until it has
    run more than once: for a pass of several sources, whose gradients may be asked for one by one. `half` stores what the
    forward pass leaves in half precision."""

    def __init__(
        self,
        net: Net,
        n: int,
        lanes: int,
        own: Parameters,
        memory: Memory,
        *,
        train: bool,
        again: bool = False,
        half: bool = False,
    ) -> None:
        self.net, self.n, self.lanes, self.memory, self.train, self.again = net, n, lanes, memory, train, again
        self.half = half
        self.layers, self.p, self.g, self.frozen = own
        self.blocks = -(-n // lanes)
        self.ops: list[Op] = []
        self.values: dict[str, Value] = {}
        self.kept: list[Any] = []
        self.bytes = 0

    def take(self, shape: Shape) -> Floats:
        """An array for a gradient of this shape."""
        return self.memory.take(self.blocks * self.lanes * prod(shape))

    def cell(self, shape: Shape) -> Cell:
        """A place for a value of this shape."""
        floats = self.blocks * self.lanes * prod(shape)
        return Cell(self.memory.take(floats // 2 if self.half else floats))  # lanes are even

    def keep(self, a: Floats) -> Floats:
        self.kept.append(a)
        self.bytes += a.nbytes
        return a

    def give(self, a: Floats) -> None:
        """No operation after this one needs the array."""
        self.memory.give(a)

    def emit(self, kind: int, value: Value | None = None, **fields: Any) -> None:
        """An operation; `value` sets its input's shape."""
        c, h, w = value.shape if value else (0, 0, 0)
        self.ops.append(Op(kind=int(kind), n=self.n, **{"c": c, "h": h, "w": w, **fields}))

    def stored(self, value: Value) -> Value:
        """The value as an array of its own."""
        out = Value(self.cell(value.shape), value.shape, parent=value, uses=1, learns=value.learns)
        self.emit(Kind.STORE, value, a=value.view(), out=pointer(out.cell.data))
        return out

    # gradients

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
