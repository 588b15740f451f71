"""What goes into a merge and what comes out, and the check of what came from outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edgecl import masks
from edgecl.nets import Net
from edgecl.nets.nodes import Linear
from edgecl.tensors import Arrays
from edgecl.types import Bools, DataError
from edgecl.update import Base, Update

SAMPLES = 1 << 40  # of a class at most: sums of counts stay exact


@dataclass(frozen=True)
class Contribution:
    """One device's update, and what the hub knows of it."""

    update: Update
    device: str
    sequence: int
    age: int  # models published since the update's base
    personal: frozenset[str]  # classes that stay the device's own

    @property
    def name(self) -> str:
        """For messages and the order of merging."""
        return f"{self.device}/{self.sequence}"

    def samples(self) -> int:
        """Learned of classes that are shared."""
        return sum(n for k, n in zip(self.update.classes, self.update.samples, strict=True) if k not in self.personal)


class Merged(NamedTuple):
    """A better base, if all went well. Classes keep the base's rows; new ones follow."""

    weights: Arrays  # parameters and buffers, float32; 0 under dead units
    live: dict[str, Bools]  # as many units a layer as the base has
    classes: tuple[str, ...]
    notes: tuple[str, ...]  # what was done with whom: one line each
    net: Net  # the base's, or with more rows in its classifier


def rows_of(net: Net) -> tuple[str, ...]:
    """Names of the arrays whose first axis is the classes; none where no linear layer gives the logits."""
    last = next((n for n in net.nodes if n.name == net.logits), None)
    names = (f"{net.logits}.weight", f"{net.logits}.bias") if isinstance(last, Linear) else ()
    return tuple(k for k in names if k in net.weights())


def unit_of(weight: tuple[int, ...], live: tuple[int, ...]) -> str:
    """The unit in which a mask of this shape masks a weight of that one. Raises DataError where there is none."""
    for unit in masks.UNITS:
        if masks.unit_shape(unit, weight) == live:
            return unit
    raise DataError(f"a mask of shape {list(live)} fits no weight of shape {list(weight)}")


def check(base: Base, contribution: Contribution) -> None:
    """Raises DataError that names the device and the first thing that does not belong to `base`, or is not finite."""
    try:
        _check_classes(base, contribution.update, contribution.age)
        _check_arrays(base, contribution.update)
        _check_masks(base, contribution.update)
    except DataError as e:
        raise DataError(f"update {contribution.name}: {e}") from None


def _check_classes(base: Base, update: Update, age: int) -> None:
    if (update.base, update.net) != (base.snapshot, base.net.name):
        raise DataError(f"is of base {update.base[:12]} and net {update.net}, not {base.snapshot[:12]} and {base.net.name}")
    if update.classes[: len(base.classes)] != base.classes or len(set(update.classes)) != len(update.classes):
        raise DataError("its classes are not the base's and others after them")
    counts = update.samples
    if len(counts) != len(update.classes) or not all(type(n) is int and 0 <= n <= SAMPLES for n in counts):
        raise DataError(f"its samples are not {len(update.classes)} counts of at most {SAMPLES}")
    if age < 0:
        raise DataError(f"its age is {age}")


def _check_arrays(base: Base, update: Update) -> None:
    rows = rows_of(base.net)
    if update.delta.keys() != base.weights.keys():
        wrong = sorted(update.delta.keys() ^ base.weights.keys())[0]
        raise DataError(f"array {wrong!r} is {'missing' if wrong in base.weights else 'unknown'}")
    for name, of_base in base.weights.items():
        delta = update.delta[name]
        least = max(len(of_base), len(update.classes)) if name in rows else len(of_base)
        fits = len(delta) >= least if name in rows and delta.ndim else delta.shape[:1] == of_base.shape[:1]
        if delta.dtype != np.float32 or not fits or delta.shape[1:] != of_base.shape[1:]:
            raise DataError(f"array {name!r} is {delta.dtype} {list(delta.shape)}, the base's float32 {list(of_base.shape)}")
        if not np.isfinite(delta).all():
            raise DataError(f"array {name!r} is not finite")


def _check_masks(base: Base, update: Update) -> None:
    if update.live.keys() != base.live.keys():
        raise DataError(f"layer {sorted(update.live.keys() ^ base.live.keys())[0]!r} is masked in one of base and update only")
    for name, of_base in base.live.items():
        live = update.live[name]
        if live.dtype != np.bool_ or live.shape != of_base.shape:
            raise DataError(f"mask of layer {name!r} is {live.dtype} {list(live.shape)}, the base's bool {list(of_base.shape)}")


def weighted_layers(base: Base) -> Mapping[str, str]:
    """Masked array → its unit."""
    return {f"{k}.weight": unit_of(base.weights[f"{k}.weight"].shape, live.shape) for k, live in base.live.items()}
