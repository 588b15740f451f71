"""Parameters of the native engine: arrays that the kernels read, and the lists of live and updated kernels.

A *kernel* is the taps of one (out, in) pair; of a 1×1 convolution or a linear layer it is a single weight. Kernels without
a live weight are skipped; of 3×3 kernels single weights are, too, where that is faster. Rows of a 1×1 convolution that have
the same live columns, as in masks of 4×4 blocks and of channels, are run together.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import Any

import numpy as np

from edgecl import masks
from edgecl.engines.native_lists import Floats as Floats
from edgecl.engines.native_lists import Ints, Listed, row_groups
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
        self.total: Floats = array(0)  # gradient of a step that scores
        self.places: Any = None  # of updated weights in the list of live ones; None: not known yet
        self.dead = False  # whether `total` is of all weights
        self.fine: Any = None
        self._bits: Any = None  # of `live`; None: all
        self.struct = Layer(taps=self.taps, inputs=self.pairs[1])
        self.struct.w, self.struct.v = pointer(w), pointer(v)
        self.struct.bias, self.struct.gbias = pointer(bias), pointer(gbias)
        self.struct.full = 1
        self.pointer = ctypes.pointer(self.struct)
        self.listed = False
        self.wanted: Floats | None = None  # gradients of updated weights, where C is to put them now
        self.kept: Any = None  # what `whole` points to

    @property
    def live(self) -> Bools | None:
        """In the weight's shape; None: all. Kept as bits, an eighth of the bytes."""
        if self._bits is None:
            return None
        return np.unpackbits(self._bits, count=self.w.size).view(np.bool_).reshape(self.w.shape)

    def ready(self) -> None:
        """Lists all weights if no mask came: a layer that gets one is never listed whole."""
        if not self.listed:
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
        self._bits = None if live is None else np.packbits(live)
        self.unit, self.struct.full, self.listed = self._best_unit(live), 0, True
        if live is None or self.unit is Unit.BY_KERNEL:
            self._list_kernels(np.ones(self.pairs, np.bool_) if live is None else _any_tap(live))
        elif self.unit is Unit.BY_WEIGHT:
            self._list_weights(live.reshape(*self.pairs, self.taps))
        else:
            self._list_groups(live.reshape(self.pairs))
        self.struct.unit, self.struct.taps = self.unit, self.listed_taps
        self.set_updated(live)

    def whole(self) -> tuple[Any, bool]:
        """(pointer to the layer as a list of whole kernels, whether its values must be gathered before they are read)."""
        live = self.live
        if self.unit is Unit.BY_KERNEL or live is None:
            return self.pointer, False
        listed, struct = Listed(), Layer(taps=self.taps, inputs=self.pairs[1], unit=Unit.BY_KERNEL)
        listed.fill(_any_tap(live), self.pairs[1])
        struct.w, struct.bias, struct.forward = self.struct.w, self.struct.bias, listed.struct(listed.room(self.taps))
        self.kept = (listed, struct)
        return ctypes.pointer(struct), True

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
        self.fine = self.places = self.wanted = None
        self.updated_unit = Unit.BY_KERNEL
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
        if self.wanted is None:
            self.wanted = self.updated.room(self.listed_taps)
            updated = self.updated.struct(self.wanted)
            self.struct.updated, self.struct.dense_grad, self.struct.updated_unit = updated, 0, self.updated_unit
        self.wanted.fill(0)

    def want_live(self) -> Floats:
        """The next backward finds the gradients of all live weights, as they are listed; returns them, set to 0."""
        found, self.wanted = array(self.forward.n * self.listed_taps), None
        self.struct.updated, self.struct.dense_grad, self.struct.updated_unit = self.forward.struct(found), 0, self.unit
        self.dead = False
        return found

    def want_all(self) -> Floats:
        """The next backward finds all gradients, of dead weights too; returns them in the weight's order, set to 0."""
        if not self.all.n:
            self.all.fill(np.ones(self.pairs, np.bool_), self.pairs[1])
        found, self.wanted = array(self.w.size), None
        self.struct.updated, self.struct.dense_grad, self.struct.updated_unit = self.all.struct(found), 1, Unit.BY_KERNEL
        self.dead = True
        return found

    def update_from(self, total: Floats) -> None:
        """The next step takes the updated weights out of what `want_live` or `want_all` returned."""
        self.total = total
        if self.dead:
            self.struct.updated = self.updated.struct(total)
            return
        values = self.updated.room(self.listed_taps)
        same = (self.updated.n, self.updated_unit) == (self.forward.n, self.unit)
        values[:] = total if same else total.reshape(-1, self.listed_taps)[self._ranked()].reshape(-1)
        self.struct.updated, self.struct.dense_grad = self.updated.struct(values), 0

    def _ranked(self) -> Any:
        if self.places is None:
            self.places = self.forward.ranks((self.w.size // self.listed_taps,))[self.updated.index[: self.updated.n]]
        return self.places

    def spread(self, found: Floats) -> Floats:
        """What `want_live` or `want_all` returned, or a sum of such, in the weight's shape, 0 where nothing is listed."""
        if found.size == self.w.size:
            return found.reshape(self.w.shape)
        full = np.zeros((self.w.size // self.listed_taps, self.listed_taps), np.float32)
        full[self.forward.index[: self.forward.n]] = found.reshape(-1, self.listed_taps)
        return full.reshape(self.w.shape)


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


class Means(Mapping[str, Floats]):
    """Sums of gradients over `steps`, by layer, in the weight's shape. One layer is spread out at a time, when it is read."""

    def __init__(self, layers: Mapping[str, Weights], names: Iterable[str], sums: Mapping[str, Floats], steps: int) -> None:
        self._layers, self._names, self._sums, self._steps = layers, tuple(names), sums, np.float32(steps)

    def __getitem__(self, name: str) -> Floats:
        layer = self._layers[name]
        if name not in self._names or name not in self._sums:
            return np.zeros(layer.w.shape, np.float32)
        return layer.spread(self._sums[name] / self._steps)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


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
