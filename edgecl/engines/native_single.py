"""A net as a list of kernel calls for one sample: lanes are pixels, where the batched plan's are samples, so none is empty.

A layer ends with all that follows it and needs nothing else: batch norm by running statistics, an image added that is there
already, an activation. Weights are not copied: batch norm is a factor and an offset a channel, found anew for each prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecl.engines.native_layers import Floats, Statistics, Weights
from edgecl.kernels import Kernels, Kind, Op, View, array, pointer, program
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
    Pair,
    Pool,
    Relu,
    Relu6,
    Shape,
    Sigmoid,
    Silu,
    pair,
)

ACTIVATIONS: dict[type[Node], int] = {Relu: 1, Relu6: 2, Hardsigmoid: 3, Hardswish: 4, Sigmoid: 5, Silu: 6}  # single.h


@dataclass(eq=False)
class Image:
    """A sample's value as src/single.h lays it out; flat where it has one pixel a channel."""

    data: Floats
    shape: tuple[int, int, int]
    front: int  # floats before the first pixel
    gap: int  # floats from one channel to the next

    def at(self, channel: int = 0) -> int:
        """Address of a channel's first pixel."""
        return self.data.ctypes.data + 4 * (self.front + channel * self.gap)


@dataclass
class End:
    """What a layer does to its sums before it stores them, and the last node that this computes."""

    name: str
    norm: BatchNorm | None = None
    added: str = ""
    activation: int = 0


class Single:
    """The net for one sample at a time, in prediction."""

    def __init__(self, net: Net, kernels: Kernels, layers: Mapping[str, Weights], p: Any, g: Any) -> None:
        """`p`, `g`: parameters and gradients by name, which the plan points to."""
        self.net, self.lanes, self.layers, self.p, self.g = net, kernels.lanes, layers, p, g
        self._kernels = kernels
        self.values: dict[str, Image] = {}
        self.shapes = {k: _image(s) for k, s in net.shapes().items()}
        self.readers = _readers(net)
        self.left = {k: len(v) for k, v in self.readers.items()} | {net.logits: 1}
        self.done: set[str] = set()  # nodes that an earlier operation ends with
        self.free: dict[Shape, list[Image]] = {}
        self.kept: list[Any] = []
        self.norms: list[Op] = []
        self.ops: list[Op] = []
        self.bytes = 0
        self._make()

    def predict(self, x: np.ndarray[Any, Any], threads: int) -> Floats:
        """Logits [N, K] of x [N, C, H, W], with the weights and running statistics of now."""
        out: Floats = np.empty((len(x), self.net.classes), np.float32)
        self._kernels.run(self._norms, threads)
        for i, sample in enumerate(x):
            self.x[...] = sample
            self._kernels.run(self._forward, threads)
            out[i] = self.logits
        return out

    def _make(self) -> None:
        self.x: Floats = array(self.net.input)
        self.values["x"] = self.take("x")
        c, h, w = self.shapes["x"]
        self.ops.append(Op(kind=Kind.SINGLE_IN, c=c, h=h, w=w, out=self.values["x"].at(), host=pointer(self.x)))
        for node in self.net.nodes:
            if node.name in self.readers and node.name not in self.done:
                MAKE[type(node)](self, node)
        self.logits = self.values[self.net.logits].data[: self.net.classes]
        self._norms, self._forward = program(self.norms), program(self.ops)

    # values

    def take(self, name: str) -> Image:
        """An image for a node's output; its zeros stay, so only the same shape may use it again."""
        shape = self.shapes[name]
        if self.free.get(shape):
            return self.free[shape].pop()
        c, h, w = shape
        flat, front = h * w == 1, self.up(w)
        gap = 1 if flat else self.up(h * w + w)
        data: Floats = array(self.up(c) if flat else c * gap + 2 * front + self.lanes)
        self.bytes += data.nbytes
        return Image(data, shape, 0 if flat else front, gap)

    def up(self, n: int) -> int:
        return -(-n // self.lanes) * self.lanes

    def only_reader(self, name: str) -> Node | None:
        return self.readers[name][0] if len(self.readers[name]) == 1 and name != self.net.logits else None

    def end(self, name: str, *, norm: bool = True, add: bool = True) -> End:
        """How far the layer `name` goes."""
        end, reader = End(name), self.only_reader(name)
        if norm and isinstance(reader, BatchNorm):
            end.norm, end.name, reader = reader, reader.name, self.only_reader(reader.name)
            self.done.add(end.name)
        if add and isinstance(reader, Add) and (other := _other(reader, end.name)) in self.values:
            end.added, end.name, reader = other, reader.name, self.only_reader(reader.name)
            self.done.add(end.name)
        if type(reader) in ACTIVATIONS:
            assert reader is not None
            end.activation, end.name = ACTIVATIONS[type(reader)], reader.name
            self.done.add(end.name)
        return end

    def emit(self, kind: Kind, source: str, end: End, **fields: Any) -> None:
        """An operation from the value `source` to the value `end.name`."""
        (c, h, w), (o, ho, wo) = self.values[source].shape, self.shapes[end.name]
        out = self.values[end.name] = self.take(end.name)
        op = Op(kind=int(kind), c=c, h=h, w=w, o=o, ho=ho, wo=wo, flag=end.activation, a=View(self.values[source].at()))
        op.out = out.at()
        if end.norm:
            op.norm = self.statistics(end.norm)
        if end.added:
            op.b = View(self.values[end.added].at())
        for name, value in fields.items():
            setattr(op, name, value)
        self.ops.append(op)

    def statistics(self, node: BatchNorm) -> Any:
        state = Statistics(node, self.p, self.g)
        self.kept.append(state)
        self.norms.append(Op(kind=Kind.NORM_EVAL, c=self.shapes[node.name][0], eps=node.eps, norm=state.pointer))
        return state.pointer

    def drop(self, *names: str) -> None:
        """Values read once more; their images are free after the last time."""
        for name in names:
            self.left[name] -= 1
            if not self.left[name]:
                image = self.values[name]
                self.free.setdefault(image.shape, []).append(image)

    # nodes

    def layer(self, node: Node) -> None:
        source, end = node.inputs[0], self.end(node.name)
        assert isinstance(node, (Conv2d, Linear))
        kind = Kind.SINGLE_CONV3 if self.by_kernels(node) else Kind.SINGLE_CONV
        window = (1, 1, 0) if isinstance(node, Linear) else (node.kernel, node.stride, node.padding)
        groups = 1 if isinstance(node, Linear) else node.groups
        layer, copied = self.layers[node.name].whole()
        if copied:
            self.norms.append(Op(kind=int(Kind.GATHER), layer=layer))
        self.emit(kind, source, end, layer=layer, groups=groups, **_window(*window))
        self.drop(source, *filter(None, [end.added]))

    def by_kernels(self, node: Conv2d | Linear) -> bool:
        if isinstance(node, Linear) or 1 in (_pixels(self.shapes[k]) for k in (node.inputs[0], node.name)):
            return False
        return (*pair(node.kernel), *pair(node.padding)) == (3, 3, 1, 1) and pair(node.stride) in ((1, 1), (2, 2))

    def element(self, node: Node) -> None:
        """A batch norm or activation that no layer ends with."""
        end = End(node.name, activation=ACTIVATIONS.get(type(node), 0))
        if isinstance(node, BatchNorm):
            end = self.end(node.name, norm=False)
            end.norm = node
        self.emit(Kind.SINGLE_MAP, node.inputs[0], end)
        self.drop(node.inputs[0], *filter(None, [end.added]))

    def both(self, node: Node) -> None:
        a, b = node.inputs
        end = self.end(node.name, norm=False, add=False)
        times, by_channel = isinstance(node, Mul), self.shapes[a] != self.shapes[b]
        self.emit(Kind.SINGLE_MAP, a, end, b=View(self.values[b].at()), kh=int(times), sh=int(by_channel))
        self.drop(a, b)

    def concat(self, node: Node) -> None:
        out, at = self.take(node.name), 0
        for name in node.inputs:
            c, h, w = self.shapes[name]
            source = View(self.values[name].at())
            self.ops.append(Op(kind=Kind.SINGLE_COPY, c=c, h=h, w=w, ho=h, wo=w, a=source, out=out.at(at)))
            at += c
        self.values[node.name] = out
        self.drop(*node.inputs)

    def pad(self, node: Node) -> None:
        assert isinstance(node, Pad)
        self.free.pop(self.shapes[node.name], None)  # what was used before may hold other than 0 at the edges,
        self.left[node.name] += 1  # and nothing else may write there
        self.emit(Kind.SINGLE_COPY, node.inputs[0], End(node.name), ph=node.top, pw=node.left)
        self.drop(node.inputs[0])

    def pool(self, node: Node) -> None:
        assert isinstance(node, Pool)
        window = _window(node.kernel, node.stride, node.padding)
        self.emit(Kind.SINGLE_POOL, node.inputs[0], End(node.name), **{**window, "flag": int(node.kind == "max")})
        self.drop(node.inputs[0])

    def global_pool(self, node: Node) -> None:
        self.emit(Kind.SINGLE_MEAN, node.inputs[0], End(node.name))
        self.drop(node.inputs[0])

    def flatten(self, node: Node) -> None:
        self.emit(Kind.SINGLE_COPY, node.inputs[0], End(node.name), flag=1)
        self.drop(node.inputs[0])


MAKE: dict[type[Node], Callable[[Single, Any], None]] = {
    Conv2d: Single.layer,
    Linear: Single.layer,
    BatchNorm: Single.element,
    Add: Single.both,
    Mul: Single.both,
    Concat: Single.concat,
    Pad: Single.pad,
    Pool: Single.pool,
    GlobalPool: Single.global_pool,
    Flatten: Single.flatten,
    **dict.fromkeys(ACTIVATIONS, Single.element),
}


def runs(net: Net) -> bool:
    """Whether all kinds of node are known here."""
    return all(type(node) in MAKE for node in net.nodes)


def _window(kernel: Pair, stride: Pair, padding: Pair) -> dict[str, int]:
    """Fields of an operation."""
    (kh, kw), (sh, sw), (ph, pw) = pair(kernel), pair(stride), pair(padding)
    return {"kh": kh, "kw": kw, "sh": sh, "sw": sw, "ph": ph, "pw": pw}


def _image(shape: Shape) -> tuple[int, int, int]:
    return (shape[0], shape[1], shape[2]) if len(shape) == 3 else (shape[0], 1, 1)


def _pixels(shape: tuple[int, int, int]) -> int:
    return shape[1] * shape[2]


def _other(node: Node, name: str) -> str:
    return node.inputs[1] if node.inputs[0] == name else node.inputs[0]


def _readers(net: Net) -> dict[str, list[Node]]:
    """What the logits hang on, with the nodes that read it."""
    found: dict[str, list[Node]] = {net.logits: [], "x": []}
    for node in reversed(net.nodes):
        if node.name in found:
            for name in node.inputs:
                found.setdefault(name, []).append(node)
    return found
