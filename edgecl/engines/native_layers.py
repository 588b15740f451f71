"""Parameters of the native engine: arrays that the kernels read, and the lists of live and updated kernels.

A *kernel* is the taps of one (out, in) pair; of a 1×1 convolution or a linear layer it is a single weight. Kernels without
a live weight are skipped; of 3×3 kernels single weights are, too, where that is faster. Rows of a 1×1 convolution that have
the same live columns, as in masks of 4×4 blocks and of channels, are run together.
"""

from __future__ import annotations

import ctypes
from math import prod
from typing import Any

import numpy as np

from edgecl import masks
from edgecl.engines.native_lists import Floats as Floats
from edgecl.engines.native_lists import Ints, Listed, fit, row_groups
from edgecl.kernels import Layer, Norm, Unit, array, pointer
from edgecl.nets.nodes import BatchNorm, Conv2d, Linear
from edgecl.types import Bools

# A single weight costs about 1.5 times its share of a whole 3×3 kernel: each multiply-add loads its input.
_WEIGHT_COST = 1.5


class Weights:
    """One convolution or linear layer: `w` [O, I, ...] and `v` (its momentum) are the engine's own arrays."""

    def __init__(self, node: Conv2d | Linear, w: Floats, v: Floats | None, bias: Floats | None, gbias: Floats | None) -> None:
        self.node, self.w, self.v = node, w, v
        self.taps = prod(w.shape[2:])
        self.pairs = (int(w.shape[0]), int(w.shape[1]))
        self.forward, self.backward, self.updated, self.all = Listed(), Listed(), Listed(), Listed()
        self.unit = self.updated_unit = Unit.BY_KERNEL
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
        self.live, self.unit, self.struct.full = live, self._best_unit(live), 0
        if live is None or self.unit is Unit.BY_KERNEL:
            self._list_kernels(np.ones(self.pairs, np.bool_) if live is None else _any_tap(live))
        elif self.unit is Unit.BY_WEIGHT:
            self._list_weights(live.reshape(*self.pairs, self.taps))
        else:
            self._list_groups(live.reshape(self.pairs))
        self.struct.unit, self.struct.taps = self.unit, self.listed_taps
        self.set_updated(live)

    @property
    def listed_taps(self) -> int:
        """Weights in an entry of the lists."""
        return 1 if self.unit is Unit.BY_WEIGHT else self.taps

    def _best_unit(self, live: Bools | None) -> Unit:
        """Single weights of 3×3 kernels where they cost less than the kernels they lie in; groups of rows where there are any."""
        if live is None or live.all():
            return Unit.BY_KERNEL
        if self.taps == 1 and self.plain:
            grouped = all(_grouped(rows) for rows in (live.reshape(self.pairs), live.reshape(self.pairs).T))
            return Unit.BY_BLOCK if grouped else Unit.BY_KERNEL
        kernels = self.taps * np.count_nonzero(_any_tap(live))
        return Unit.BY_WEIGHT if self.single and _WEIGHT_COST * np.count_nonzero(live) < kernels else Unit.BY_KERNEL

    @property
    def single(self) -> bool:
        """Whether there are kernels that run single weights of this layer: the 3×3 ones."""
        n = self.node
        return isinstance(n, Conv2d) and n.groups == 1 and (n.kernel, n.padding) == (3, 1) and n.stride in (1, 2)

    @property
    def plain(self) -> bool:
        """Whether the 1×1 kernels run this layer, if it has one tap."""
        return isinstance(self.node, Linear) or (self.node.groups == 1 and self.node.padding == 0)

    def _list_kernels(self, pairs: Bools) -> None:
        self.forward.fill(pairs, self.pairs[1])
        self.struct.full = int(self.forward.n == pairs.size)
        self.struct.forward = self.forward.struct(self.forward.room(self.taps) if self.copied else self.w)
        if self.transposes:
            self.backward.fill(pairs, self.pairs[1], turned=True)
            self.struct.backward = self.backward.struct(self.backward.room(self.taps))

    def _list_weights(self, live: Bools) -> None:
        assert isinstance(self.node, Conv2d)
        assert isinstance(self.node.stride, int)
        self.forward.fill_weights(live)
        self.backward.turn_weights(live, self.forward, self.node.stride)
        self._point()

    def _list_groups(self, live: Bools) -> None:
        self.forward.fill_groups(row_groups(live), _places(self.pairs))
        self.backward.fill_groups(row_groups(live.T), self.forward.ranks(self.pairs).T)
        self._point()

    def _point(self) -> None:
        """Lists of single weights, copied in their order."""
        self.struct.forward = self.forward.struct(self.forward.room(1))
        self.struct.backward = self.backward.struct(self.backward.room(1))

    def set_updated(self, updated: Bools | None) -> None:
        """A new gradient mask in the weight's shape, within the live ones."""
        self.fine, self.updated_unit = None, Unit.BY_KERNEL
        if self.unit is Unit.BY_WEIGHT and updated is not None:
            self.updated_unit = Unit.BY_WEIGHT
            self.updated.fill_weights(updated.reshape(*self.pairs, self.taps))
        elif self.unit is Unit.BY_BLOCK and updated is not None and _grouped(updated.reshape(self.pairs)):
            self.updated_unit = Unit.BY_BLOCK
            self.updated.fill_groups(row_groups(updated.reshape(self.pairs)), _places(self.pairs))
        else:
            self._update_kernels(updated)
        self.struct.fine = pointer(self.fine)
        self.want_updated()

    def _update_kernels(self, updated: Bools | None) -> None:
        pairs = np.ones(self.pairs, np.bool_) if updated is None else _any_tap(updated)
        self.updated.fill(pairs, self.pairs[1])
        whole = updated is None or bool((updated.reshape(*self.pairs, -1) == pairs[..., None]).all())
        self.fine = None if whole or updated is None else np.ascontiguousarray(updated, np.uint8)

    def want_updated(self) -> None:
        """The next backward finds the gradients of updated kernels only; sets them to 0."""
        values = self.updated.room(self.listed_taps)
        values.fill(0)
        self.struct.updated, self.struct.dense_grad, self.struct.updated_unit = self.updated.struct(values), 0, self.updated_unit

    def want_all(self) -> Floats:
        """The next backward finds all gradients, of dead weights too; returns them [O, I, ...], set to 0."""
        if not self.all.n:
            self.all.fill(np.ones(self.pairs, np.bool_), self.pairs[1])
        self.dense = fit(self.dense, self.w.size)
        self.dense.fill(0)
        self.struct.updated, self.struct.dense_grad, self.struct.updated_unit = self.all.struct(self.dense), 1, Unit.BY_KERNEL
        return self.dense.reshape(self.w.shape)

    def update_from_all(self) -> None:
        """The next step takes the updated kernels out of what `want_all` returned."""
        self.struct.updated = self.updated.struct(self.dense)


def _any_tap(mask: Bools) -> Bools:
    return np.asarray(mask.reshape(*mask.shape[:2], -1).any(axis=2))


def _grouped(chosen: Bools) -> bool:
    """Whether at least two rows on average have the same columns, so that loads of inputs are shared."""
    return 2 * len(row_groups(chosen)) <= len(chosen)


def _places(pairs: tuple[int, int]) -> Ints:
    return np.arange(pairs[0] * pairs[1], dtype=np.int32).reshape(pairs)


def expanded(units: Any, unit: str, shape: tuple[int, ...]) -> Bools:
    """A unit mask in the weight's shape."""
    full: Bools = masks.expand(np.asarray(units, np.bool_), unit, shape)
    return full


class Statistics:
    """What one pass keeps of a batch norm: its scale and shift, and the coefficients of its input's gradient."""

    def __init__(self, node: BatchNorm, p: dict[str, Floats], g: dict[str, Floats]) -> None:
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
