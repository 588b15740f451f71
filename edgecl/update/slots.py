"""Which numbers an update has: its arrays in order, and of each the weights that live."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import NamedTuple

import numpy as np

from edgecl import masks
from edgecl.nets import Net
from edgecl.nets.nodes import BatchNorm, Shape
from edgecl.types import F32, I64, Bools
from edgecl.update.difference import shapes_of
from edgecl.update.values import LEVELS

SAME, LEVEL, HALF, SINGLE = range(4)
"""How an array is sent: not at all, as levels, as float16, as float32."""


class Slot(NamedTuple):
    """One array of an update. Seen as [units, weights of a unit], `alive` are the rows that live."""

    name: str
    shape: Shape
    units: int
    alive: I64 | None  # None: all
    counts: I64  # live weights of each output channel
    wish: int  # how it is sent if it is, and can be

    def take(self, a: F32) -> F32:
        """The live weights of an array of this shape, in C order."""
        found: F32 = a.reshape(-1) if self.alive is None else a.reshape(self.units, -1).take(self.alive, axis=0).reshape(-1)
        return found

    def put(self, a: F32, x: F32) -> None:
        """Writes the live weights into an array of this shape, contiguous."""
        assert self.alive is not None
        a.reshape(self.units, -1)[self.alive] = x.reshape(len(self.alive), -1)


def slots(net: Net, live: Mapping[str, Bools], values: str) -> Iterator[Slot]:
    """All arrays of an update, in order: parameters, then buffers."""
    norms = {n.name for n in net.nodes if isinstance(n, BatchNorm)}
    for name, shape in shapes_of(net).items():
        layer, _, what = name.rpartition(".")
        exact = values == "fp32" or what == "running_var" or (what == "bias" and layer not in norms)
        wish = LEVEL if len(shape) > 1 and values in LEVELS else SINGLE if exact else HALF
        units, index = positions(live[layer], shape) if what == "weight" and layer in live else (prod(shape), None)
        yield Slot(name, shape, units, index, _counts(shape, units, index), wish)


def positions(live: Bools, shape: Shape) -> tuple[int, I64]:
    """(rows that an array of this shape is seen as, those that live): a row is a unit where units are its first axes, else a
    weight.
    """
    if live.shape != shape[: live.ndim]:
        live = masks.expand(live, "block4x4", shape)
    return live.size, np.flatnonzero(live)


def _counts(shape: Shape, units: int, index: I64 | None) -> I64:
    if index is None:
        return np.full(shape[0], prod(shape[1:]), np.int64)
    starts = np.arange(shape[0] + 1) * (units // shape[0])
    return np.diff(np.searchsorted(index, starts)) * (prod(shape) // units)
