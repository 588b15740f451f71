"""What the native engine's planner reckons with: stored arrays, values as their readers see them, gradients, geometry."""

from __future__ import annotations

from dataclasses import dataclass

from edgecl.engines.native_layers import Floats, Statistics
from edgecl.kernels import Grad, Kind, View, pointer
from edgecl.nets.nodes import Conv2d, GlobalPool, Linear, Node, Pool, pair


@dataclass(eq=False)
class Cell:
    """A stored array [blocks, C, H, W, V]: floats, or in as many bytes as they take, halves."""

    data: Floats
    stats: Floats | None = None
    band: int = 0


@dataclass(eq=False)
class Buffer:
    """A gradient's array; free again when its last holder lets go."""

    data: Floats
    holders: int = 1


@dataclass(eq=False)
class Value:
    """A cell as its readers see it: relu(norm(x)), the ReLU with an upper bound `hi`, or 0 for none."""

    cell: Cell
    shape: tuple[int, int, int]
    norm: Statistics | None = None
    relu: bool = False
    hi: float = 0.0
    parent: Value | None = None  # which this one is a view of
    uses: int = 0  # readers
    learns: bool = True  # some parameter lies behind it
    grad: Gradient | None = None
    reduced: bool = False  # a batch norm's, whose sums come with the gradient

    def view(self) -> View:
        n = self.norm
        scale, shift = (pointer(n.scale), pointer(n.shift)) if n else (None, None)
        return View(pointer(self.cell.data), scale, shift, int(self.relu), self.hi)


@dataclass(eq=False)
class Gradient:
    """A buffer, to be masked where `mask` is not within its ReLU's bounds, then taken through batch norm's input `norm`."""

    buffer: Buffer
    mask: Value | None = None
    norm: Value | None = None

    @property
    def plain(self) -> bool:
        return self.mask is None and self.norm is None

    def struct(self) -> Grad:
        g = Grad(pointer(self.buffer.data))
        if self.mask is not None:
            g.mask, g.hi, n = pointer(self.mask.cell.data), self.mask.hi, self.mask.norm
            g.mscale, g.mshift = (pointer(n.scale), pointer(n.shift)) if n else (None, None)
        if self.norm is not None and self.norm.norm is not None:
            g.s, g.k = pointer(self.norm.cell.data), pointer(self.norm.norm.k)
        return g


def family(node: Node, channels: int) -> Kind:
    """The kernels that run a layer of that many inputs: + 1 is its input gradient, + 2 its weight gradient."""
    if isinstance(node, Linear):
        return Kind.CONV1
    assert isinstance(node, Conv2d)
    kernel, stride, padding = (pair(v) for v in (node.kernel, node.stride, node.padding))
    if node.groups > 1:
        return Kind.DEPTHWISE if node.groups == channels == node.out else Kind.CONV
    if (kernel, padding) == ((1, 1), (0, 0)) and stride[0] == stride[1]:
        return Kind.CONV1
    return Kind.CONV3 if (kernel, padding) == ((3, 3), (1, 1)) and stride in ((1, 1), (2, 2)) else Kind.CONV


def pool_kind(node: Node) -> Kind:
    return Kind.MAXPOOL if isinstance(node, Pool) and node.kind == "max" else Kind.AVGPOOL


def out_shape(node: Node, *shapes: tuple[int, int, int]) -> tuple[int, int, int]:
    out = node.out_shape(*(s[:1] if isinstance(node, Linear) else s for s in shapes))
    return (out[0], out[1], out[2]) if len(out) == 3 else (out[0], 1, 1)


def geometry(node: Node, shape: tuple[int, int, int]) -> dict[str, int]:
    """Fields of an operation whose output has that shape; a global pool has kernel 0."""
    sides = {"kernel": 0 if isinstance(node, GlobalPool) else 1, "stride": 1, "padding": 0}
    found: dict[str, int] = dict(zip(("o", "ho", "wo"), shape, strict=True))
    for key, default in sides.items():
        found[f"{key[0]}h"], found[f"{key[0]}w"] = pair(getattr(node, key, default))
    return {**found, "groups": getattr(node, "groups", 1)}
