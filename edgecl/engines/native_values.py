"""What the native engine's planner reckons with: stored arrays, values as their readers see them, gradients, geometry."""

from __future__ import annotations

from dataclasses import dataclass

from edgecl.engines.native_layers import Floats, Statistics
from edgecl.kernels import Grad, Kind, View, pointer
from edgecl.nets.nodes import Conv2d, GlobalPool, Linear, Node, Pool


@dataclass(eq=False)
class Cell:
    """A stored array [blocks, C, H, W, V]."""

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
    """A cell as its readers see it: relu(norm(x))."""

    cell: Cell
    shape: tuple[int, int, int]
    norm: Statistics | None = None
    relu: bool = False
    parent: Value | None = None  # which this one is a view of
    uses: int = 0  # readers
    learns: bool = True  # some parameter lies behind it
    grad: Gradient | None = None

    def view(self) -> View:
        n = self.norm
        return View(pointer(self.cell.data), pointer(n.scale) if n else None, pointer(n.shift) if n else None, int(self.relu))


@dataclass(eq=False)
class Gradient:
    """A buffer, to be masked where `mask` is not positive, then taken through batch norm's input `norm`."""

    buffer: Buffer
    mask: Value | None = None
    norm: Value | None = None

    @property
    def plain(self) -> bool:
        return self.mask is None and self.norm is None

    def struct(self) -> Grad:
        g = Grad(pointer(self.buffer.data))
        if self.mask is not None:
            g.mask, n = pointer(self.mask.cell.data), self.mask.norm
            g.mscale, g.mshift = (pointer(n.scale), pointer(n.shift)) if n else (None, None)
        if self.norm is not None and self.norm.norm is not None:
            g.s, g.k = pointer(self.norm.cell.data), pointer(self.norm.norm.k)
        return g


def family(node: Node) -> Kind:
    """The kernels that run a layer: + 1 is its input gradient, + 2 its weight gradient."""
    if isinstance(node, Linear):
        return Kind.CONV1
    assert isinstance(node, Conv2d)
    if node.groups == 1 and (node.kernel, node.padding) == (1, 0):
        return Kind.CONV1
    fits = node.groups == 1 and (node.kernel, node.padding) == (3, 1) and node.stride in (1, 2)
    return Kind.CONV3 if fits else Kind.CONV


def pool_kind(node: Node) -> Kind:
    return Kind.MAXPOOL if isinstance(node, Pool) and node.kind == "max" else Kind.AVGPOOL


def out_shape(node: Node, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    out = node.out_shape(shape[:1] if isinstance(node, Linear) else shape)
    return (out[0], out[1], out[2]) if len(out) == 3 else (out[0], 1, 1)


def geometry(node: Node, shape: tuple[int, int, int]) -> dict[str, int]:
    """Fields of an operation; a global pool has kernel 0."""
    o, ho, wo = shape
    if isinstance(node, (Linear, GlobalPool)):
        return {"o": o, "ho": ho, "wo": wo, "kernel": int(isinstance(node, Linear)), "stride": 1, "groups": 1}
    keys = ("kernel", "stride", "padding", "groups")
    return {"o": o, "ho": ho, "wo": wo, **{k: int(getattr(node, k)) for k in keys if hasattr(node, k)}}
