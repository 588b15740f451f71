"""A net as a list of kernel calls: made once for a number of samples, with every buffer it needs, then only run.

A node's output is a *value*: a stored array as its readers see it. Batch norm, ReLU and flatten store nothing; whoever reads
the value applies them. In the backward pass a gradient is likewise a buffer and what is still to be applied to it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from math import prod
from typing import Any

from edgecl.engines.native_arena import Arena, Sketch
from edgecl.engines.native_build import Builder, Parameters
from edgecl.engines.native_layers import Floats
from edgecl.engines.native_nodes import BACKWARD, FORWARD, VIEWS
from edgecl.engines.native_values import Buffer, Gradient, Value
from edgecl.kernels import Kind, array, pointer, program
from edgecl.nets.graph import Net
from edgecl.nets.prefix import learning


@dataclass(eq=False)
class Plan:
    """One pass of n samples through the net. `x` and `d` are read, `logits` and `features` written, as numpy has them.

    `x` lies where activations come later: it is to be written before each run of `forward`.
    """

    x: Floats
    d: Floats
    logits: Floats
    features: Floats
    forward: Any  # operations for kernels.Kernels.run
    backward: Any
    bytes: int
    kept: list[Any] = field(default_factory=list)  # what the operations point to


def make_plan(
    net: Net,
    n: int,
    lanes: int,
    own: Parameters,
    room: Callable[[int], Floats] = array,
    *,
    train: bool,
    again: bool = False,
    half: bool = False,
) -> Plan:
    """The plan of a pass of n samples, its activations in what `room` gives for so many floats; see `Builder`."""
    sketch = Sketch()
    Planner(net, n, lanes, own, sketch, train=train, again=again, half=half).make()
    return Planner(net, n, lanes, own, Arena(sketch.lives(), room), train=train, again=again, half=half).make()


class Planner(Builder):
    """Walks the net once, forward and, to train, backward."""

    def make(self) -> Plan:
        room, d = self.memory.take(self.n * prod(self.net.input)), array((self.n, self.net.classes))
        x = room.reshape(self.n, *self.net.input)
        readers, self.given = _readers(self.net), set[str]()
        self.values["x"] = Value(self.cell(self.net.input), self.net.input, uses=readers["x"], learns=False)
        self.emit(Kind.PACK, self.values["x"], out=pointer(self.values["x"].cell.data), host=pointer(x))
        self.give(room)
        last = _last_readers(self.net, learning(self.net, self.frozen) if self.train else set())
        for i, node in enumerate(self.net.nodes):
            self.values[node.name] = FORWARD[type(node)](self, node, *(self.values[k] for k in node.inputs))
            self.values[node.name].uses = readers[node.name]
            for name in last.get(i, ()):
                self.give(self.values[name].cell.data)
                self.given.add(name)
        logits, features = (self.unpack(self.values[k]) for k in (self.net.logits, self.net.features))
        forward, self.ops = program(self.ops), []
        if self.train:
            self.back(d)
        return Plan(x, d, logits, features, forward, program(self.ops), self.bytes, [self.memory, *self.kept])

    def unpack(self, value: Value) -> Floats:
        host: Floats = array((self.n, value.shape[0]))
        self.emit(Kind.UNPACK, value, a=value.view(), host=pointer(host))
        return host

    def back(self, d: Floats) -> None:
        """From the logits' gradient `d` to every parameter's."""
        logits = self.values[self.net.logits]
        logits.uses += 1
        logits.grad = Gradient(Buffer(self.take(logits.shape)))
        self.emit(Kind.PACK, logits, out=pointer(logits.grad.buffer.data), host=pointer(d), flag=1)
        for node in reversed(self.net.nodes):
            value = self.values[node.name]
            if value.grad is not None:
                BACKWARD[type(node)](self, node, value, value.grad)
                value.grad = None
            if value.parent is None and not self.again and node.name not in self.given:  # all that read it has been dealt with
                self.give(value.cell.data)


def _readers(net: Net) -> dict[str, int]:
    """How many nodes read each value."""
    found = dict.fromkeys(("x", *(n.name for n in net.nodes)), 0)
    for node in net.nodes:
        for name in node.inputs:
            found[name] += 1
    return found


def _last_readers(net: Net, learning: Collection[str]) -> dict[int, list[str]]:
    """Position of a node → values whose array nobody reads after it; for the way back `learning` nodes keep theirs and their
    inputs'."""
    root, last = {"x": "x"}, {"x": 0}
    for i, node in enumerate(net.nodes):
        is_view = isinstance(node, VIEWS)
        root[node.name] = root[node.inputs[0]] if is_view else node.name
        for name in (*node.inputs, node.name):
            last[root[name]] = i
    kept = [k for node in net.nodes if node.name in learning for k in (*node.inputs, node.name)]
    for name in (net.logits, net.features, *kept):
        last.pop(root[name], None)
    return {i: [k for k, at in last.items() if at == i] for i in set(last.values())}
