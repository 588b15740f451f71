"""Kinds of node that a net is made of. Parameters are named like torch's: `<node>.weight`, `<node>.bias`, and for batch norm
the buffers `<node>.running_mean`, `<node>.running_var`.

A 1-D signal is an image of height 1: its kernels are (1, k). Kernels, strides and paddings are one number or (height, width).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import prod
from typing import ClassVar

from edgecl.nets.checks import wrong
from edgecl.types import ConfigError

Shape = tuple[int, ...]  # without the batch: (C, H, W), or (C,) once flat
Pair = int | tuple[int, int]  # one number, or (height, width)


@dataclass(frozen=True)
class Node:
    """A node's name is also its parameters' prefix. `inputs` are names of earlier nodes, or "x"."""

    name: str
    inputs: tuple[str, ...]
    op: ClassVar[str] = ""
    arity: ClassVar[int | None] = 1  # number of inputs; None: one or more

    def __post_init__(self) -> None:
        for f in fields(self):
            if fault := wrong(f.name, str(f.type), getattr(self, f.name)):
                raise ConfigError(f"node {self.name}: {fault}")
        if len(self.inputs) != (self.arity or max(1, len(self.inputs))):
            raise ConfigError(f"node {self.name}: {self.op} has {len(self.inputs)} inputs, not {self.arity or 'one or more'}")

    def out_shape(self, *shapes: Shape) -> Shape:
        """Output shape of one sample from those of its inputs."""
        return shapes[0]

    def weights(self, *shapes: Shape) -> dict[str, Shape]:
        """Trained parameters by their last name, with shapes."""
        return {}

    def buffers(self, *shapes: Shape) -> dict[str, Shape]:
        """Arrays kept but not trained by gradient."""
        return {}

    def macs(self, *shapes: Shape) -> int:
        """Multiply-adds of one sample's forward pass through dense weights."""
        return 0


@dataclass(frozen=True)
class Conv2d(Node):
    """Weight [out, C / groups, kh, kw]. `role` says why SparCL leaves some layers dense."""

    out: int
    kernel: Pair
    stride: Pair = 1
    padding: Pair = 0
    groups: int = 1
    bias: bool = False
    role: str = ""  # "stem", "shortcut" or ""
    op: ClassVar[str] = "conv2d"

    def out_shape(self, *shapes: Shape) -> Shape:
        c, _, _ = _image(self, shapes[0])
        if c % self.groups or self.out % self.groups:
            raise ConfigError(f"node {self.name}: {c} to {self.out} channels do not split into {self.groups} groups")
        return (self.out, *_windows(self, shapes[0], "kernel"))

    def weights(self, *shapes: Shape) -> dict[str, Shape]:
        weight = {"weight": (self.out, shapes[0][0] // self.groups, *pair(self.kernel))}
        return weight | ({"bias": (self.out,)} if self.bias else {})

    def macs(self, *shapes: Shape) -> int:
        return prod(self.out_shape(*shapes)) * shapes[0][0] // self.groups * prod(pair(self.kernel))


@dataclass(frozen=True)
class Linear(Node):
    """Weight [out, in]."""

    out: int
    bias: bool = True
    role: str = ""  # "classifier" or ""
    op: ClassVar[str] = "linear"

    def out_shape(self, *shapes: Shape) -> Shape:
        if len(shapes[0]) != 1:
            raise ConfigError(f"node {self.name}: a linear layer needs a flat input, got {shapes[0]}")
        return (self.out,)

    def weights(self, *shapes: Shape) -> dict[str, Shape]:
        return {"weight": (self.out, shapes[0][0])} | ({"bias": (self.out,)} if self.bias else {})

    def macs(self, *shapes: Shape) -> int:
        return self.out * shapes[0][0]


@dataclass(frozen=True)
class BatchNorm(Node):
    """Over all axes but the channel; eps and momentum as torch names them."""

    eps: float = 1e-5
    momentum: float = 0.1
    op: ClassVar[str] = "batch_norm"

    def weights(self, *shapes: Shape) -> dict[str, Shape]:
        return {"weight": shapes[0][:1], "bias": shapes[0][:1]}

    def buffers(self, *shapes: Shape) -> dict[str, Shape]:
        return {"running_mean": shapes[0][:1], "running_var": shapes[0][:1]}


@dataclass(frozen=True)
class Relu(Node):
    op: ClassVar[str] = "relu"


@dataclass(frozen=True)
class Relu6(Node):
    """min(max(x, 0), 6)."""

    op: ClassVar[str] = "relu6"


@dataclass(frozen=True)
class Hardsigmoid(Node):
    """relu6(x + 3) / 6."""

    op: ClassVar[str] = "hardsigmoid"


@dataclass(frozen=True)
class Hardswish(Node):
    """x · relu6(x + 3) / 6."""

    op: ClassVar[str] = "hardswish"


@dataclass(frozen=True)
class Sigmoid(Node):
    op: ClassVar[str] = "sigmoid"


@dataclass(frozen=True)
class Silu(Node):
    """x · sigmoid(x)."""

    op: ClassVar[str] = "silu"


@dataclass(frozen=True)
class Add(Node):
    op: ClassVar[str] = "add"
    arity: ClassVar[int | None] = 2

    def out_shape(self, *shapes: Shape) -> Shape:
        if shapes[0] != shapes[1]:
            raise ConfigError(f"node {self.name}: can't add {' and '.join(map(str, shapes))}")
        return shapes[0]


@dataclass(frozen=True)
class Mul(Node):
    """Of two values of one shape, or of an image by a scale a channel, (C, 1, 1), as squeeze-and-excitation does."""

    op: ClassVar[str] = "mul"
    arity: ClassVar[int | None] = 2

    def out_shape(self, *shapes: Shape) -> Shape:
        a, b = shapes
        if b != a and (len(a) != 3 or b != (a[0], 1, 1)):
            raise ConfigError(f"node {self.name}: can't multiply {a} by {b}")
        return a


@dataclass(frozen=True)
class Concat(Node):
    """Along the channels."""

    op: ClassVar[str] = "concat"
    arity: ClassVar[int | None] = None

    def out_shape(self, *shapes: Shape) -> Shape:
        if len({s[1:] for s in shapes}) != 1:
            raise ConfigError(f"node {self.name}: can't join {' and '.join(map(str, shapes))} along their channels")
        return (sum(s[0] for s in shapes), *shapes[0][1:])


@dataclass(frozen=True)
class Pad(Node):
    """Zeros around an image; a negative number is refused."""

    left: int
    right: int
    top: int
    bottom: int
    op: ClassVar[str] = "pad"

    def out_shape(self, *shapes: Shape) -> Shape:
        c, h, w = _image(self, shapes[0])
        return c, h + self.top + self.bottom, w + self.left + self.right


@dataclass(frozen=True)
class Pool(Node):
    """`kind` "max" or "avg". What is padded is never the maximum; in a mean it counts as 0, as in torch's default."""

    kind: str
    kernel: Pair
    stride: Pair
    padding: Pair = 0
    op: ClassVar[str] = "pool"

    def out_shape(self, *shapes: Shape) -> Shape:
        if self.kind not in ("max", "avg"):
            raise ConfigError(f"node {self.name}: kind is {self.kind!r}, not max or avg")
        c, _, _ = _image(self, shapes[0])
        if any(2 * p > k for p, k in zip(pair(self.padding), pair(self.kernel), strict=True)):
            raise ConfigError(f"node {self.name}: padding {self.padding} is more than half of the window {self.kernel}")
        return (c, *_windows(self, shapes[0], "window"))


@dataclass(frozen=True)
class GlobalPool(Node):
    """Mean over height and width: flat, (C,), or (C, 1, 1) where `keep` says so."""

    keep: bool = False
    op: ClassVar[str] = "global_pool"

    def out_shape(self, *shapes: Shape) -> Shape:
        c, _, _ = _image(self, shapes[0])
        return (c, 1, 1) if self.keep else (c,)


@dataclass(frozen=True)
class Flatten(Node):
    op: ClassVar[str] = "flatten"

    def out_shape(self, *shapes: Shape) -> Shape:
        return (prod(shapes[0]),)


OPS: dict[str, type[Node]] = {
    "conv2d": Conv2d,
    "linear": Linear,
    "batch_norm": BatchNorm,
    "relu": Relu,
    "relu6": Relu6,
    "hardsigmoid": Hardsigmoid,
    "hardswish": Hardswish,
    "sigmoid": Sigmoid,
    "silu": Silu,
    "add": Add,
    "mul": Mul,
    "concat": Concat,
    "pad": Pad,
    "pool": Pool,
    "global_pool": GlobalPool,
    "flatten": Flatten,
}


def pair(value: Pair) -> tuple[int, int]:
    """(height, width) of a kernel, stride or padding."""
    return (value, value) if isinstance(value, int) else value


def _image(node: Node, shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ConfigError(f"node {node.name}: {node.op} needs an image (C, H, W), got {shape}")
    return shape[0], shape[1], shape[2]


def _windows(node: Conv2d | Pool, shape: Shape, what: str) -> tuple[int, int]:
    """Height and width of what slides over an image."""
    sides = zip(shape[1:], *(pair(v) for v in (node.kernel, node.stride, node.padding)), strict=True)
    h, w = ((n + 2 * p - k) // s + 1 for n, k, s, p in sides)
    if h < 1 or w < 1:
        k = pair(node.kernel)
        raise ConfigError(f"node {node.name}: input {shape} is smaller than its {k[0]}×{k[1]} {what}")
    return h, w
