"""Parameters of the native engine: arrays that the kernels read, and the lists of live and updated kernels.

A *kernel* is the taps of one (out, in) pair; of a 1×1 convolution or a linear layer it is a single weight. Kernels without
a live weight are skipped; single weights of a larger kernel (unit "weight") are masked, not yet skipped.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from edgecl import masks
from edgecl.kernels import Csr, Layer, Norm, array, pointer
from edgecl.nets.nodes import BatchNorm, Conv2d, Linear
from edgecl.types import Bools

Ints = np.ndarray[Any, np.dtype[np.int32]]
Floats = np.ndarray[Any, np.dtype[np.float32]]


class Kernels:
    """A list of kernels by row, as C reads it. Buffers are kept while they are large enough."""

    def __init__(self) -> None:
        self.rowptr: Ints = array(1, np.int32)
        self.col: Ints = array(0, np.int32)
        self.index: Ints = array(0, np.int32)
        self.values: Floats = array(0)
        self.n = 0

    def fill(self, chosen: Bools, inputs: int, *, turned: bool = False) -> None:
        """From `chosen` [O, I]; `turned` lists them by input, with their places in the list that is not turned."""
        rows, cols = np.nonzero(chosen.T if turned else chosen)
        counts = np.count_nonzero(chosen, axis=0 if turned else 1)
        self.n = len(rows)
        self.rowptr = array(len(counts) + 1, np.int32)
        np.cumsum(counts, out=self.rowptr[1:])
        self.col, self.index = _fit(self.col, self.n), _fit(self.index, self.n)
        self.col[: self.n] = cols
        places = (np.cumsum(chosen).reshape(chosen.shape) - 1)[cols, rows] if turned else rows * inputs + cols
        self.index[: self.n] = places

    def room(self, taps: int) -> Floats:
        """Values [n × taps], of no particular content."""
        self.values = _fit(self.values, self.n * taps)
        return self.values[: self.n * taps]

    def struct(self, values: Floats) -> Csr:
        """For C, with `values` as the weights or gradients."""
        rows = len(self.rowptr) - 1
        return Csr(self.n, rows, *(pointer(a) for a in (self.rowptr, self.col, self.index, values)))


def _fit(kept: Any, n: int) -> Any:
    return kept if len(kept) >= n else array(n, kept.dtype)


class Weights:
    """One convolution or linear layer: `w` [O, I, ...] and `v` (its momentum) are the engine's own arrays."""

    def __init__(self, node: Conv2d | Linear, w: Floats, v: Floats | None, bias: Floats | None, gbias: Floats | None) -> None:
        self.node, self.w, self.v = node, w, v
        self.taps = prod(w.shape[2:])
        self.pairs = (int(w.shape[0]), int(w.shape[1]))
        self.forward, self.backward, self.updated, self.all = Kernels(), Kernels(), Kernels(), Kernels()
        self.dense: Floats = array(0)  # gradient of all weights, while scores are gathered
        self.fine: Any = None
        self.live: Bools | None = None  # in the weight's shape; None: all
        self.struct = Layer(taps=self.taps, inputs=self.pairs[1])
        self.struct.w, self.struct.v = pointer(w), pointer(v)
        self.struct.bias, self.struct.gbias = pointer(bias), pointer(gbias)
        self.pointer = ctypes.pointer(self.struct)
        self.set_live(None)

    @property
    def copied(self) -> bool:
        """Whether the forward pass reads a copy of the live kernels, in their order."""
        return not self.struct.full

    @property
    def transposes(self) -> bool:
        """Whether the input gradient reads a list by input: not where dense loops or the general kernel do it."""
        plain = isinstance(self.node, Linear) or (self.node.groups == 1)
        return plain and not (self.struct.full and self.taps == 1)

    def set_live(self, live: Bools | None) -> None:
        """A new weight mask in the weight's shape; the gradient mask becomes the same."""
        self.live = live
        pairs = np.ones(self.pairs, np.bool_) if live is None else _any_tap(live)
        self.forward.fill(pairs, self.pairs[1])
        self.struct.full = int(self.forward.n == pairs.size)
        self.struct.forward = self.forward.struct(self.forward.room(self.taps) if self.copied else self.w)
        if self.transposes:
            self.backward.fill(pairs, self.pairs[1], turned=True)
            self.struct.backward = self.backward.struct(self.backward.room(self.taps))
        self.set_updated(live)

    def set_updated(self, updated: Bools | None) -> None:
        """A new gradient mask in the weight's shape, within the live ones."""
        pairs = np.ones(self.pairs, np.bool_) if updated is None else _any_tap(updated)
        self.updated.fill(pairs, self.pairs[1])
        whole = updated is None or bool((updated.reshape(*self.pairs, -1) == pairs[..., None]).all())
        self.fine = None if whole or updated is None else np.ascontiguousarray(updated, np.uint8)
        self.struct.fine = pointer(self.fine)
        self.want_updated()

    def want_updated(self) -> None:
        """The next backward finds the gradients of updated kernels only; sets them to 0."""
        values = self.updated.room(self.taps)
        values.fill(0)
        self.struct.updated, self.struct.dense_grad = self.updated.struct(values), 0

    def want_all(self) -> Floats:
        """The next backward finds all gradients, of dead weights too; returns them [O, I, ...], set to 0."""
        if not self.all.n:
            self.all.fill(np.ones(self.pairs, np.bool_), self.pairs[1])
        self.dense = _fit(self.dense, self.w.size)
        self.dense.fill(0)
        self.struct.updated, self.struct.dense_grad = self.all.struct(self.dense), 1
        return self.dense.reshape(self.w.shape)

    def update_from_all(self) -> None:
        """The next step takes the updated kernels out of what `want_all` returned."""
        self.struct.updated = self.updated.struct(self.dense)


def _any_tap(mask: Bools) -> Bools:
    return np.asarray(mask.reshape(*mask.shape[:2], -1).any(axis=2))


def expanded(units: Any, unit: str, shape: tuple[int, ...]) -> Bools:
    """A unit mask in the weight's shape."""
    full: Bools = masks.expand(np.asarray(units, np.bool_), unit, shape)
    return full


class Statistics:
    """What one pass keeps of a batch norm: its scale and shift, and the coefficients of its input's gradient."""

    def __init__(self, node: BatchNorm, p: Mapping[str, Floats], g: Mapping[str, Floats]) -> None:
        self.node = node
        channels = len(p[f"{node.name}.weight"])
        self.scale, self.shift, self.mean, self.rstd = (array(channels) for _ in range(4))
        self.k = array((channels, 4))
        names = ("weight", "bias", "running_mean", "running_var")
        own = (p[f"{node.name}.{k}"] for k in names)
        gradients = (g[f"{node.name}.{k}"] for k in ("weight", "bias"))
        arrays = (*own, *gradients, self.scale, self.shift, self.mean, self.rstd, self.k)
        self.struct = Norm(*(pointer(a) for a in arrays))
        self.pointer = ctypes.pointer(self.struct)
