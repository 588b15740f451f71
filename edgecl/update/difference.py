"""What a device learned: its network minus the base that it was installed with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edgecl.model import Model
from edgecl.nets import Net, with_room
from edgecl.tensors import Arrays
from edgecl.types import F32, Bools, ConfigError, Named
from edgecl.update.taught import Taught, taught_since


class Base(NamedTuple):
    """What an update is read beside."""

    snapshot: str  # Card.snapshot: 64 hex digits
    net: Net
    classes: tuple[str, ...]  # by row of the classifier
    weights: Named  # parameters and BN's buffers by name, float32, no momentum; 0 under dead units
    live: Mapping[str, Bools]  # masked layer → units

    @staticmethod
    def of(model: Model) -> Base:
        """Of an opened snapshot."""
        weights = {k: model.weights[k] for k in (*model.net.weights(), *model.net.buffers())}
        return Base(model.card.snapshot, model.net, model.card.classes, weights, model.live)


@dataclass(frozen=True)
class Update:
    """A difference. Its classifier may have more rows than the base's, which count as 0 there; never fewer."""

    base: str  # Base.snapshot
    net: str  # name
    classes: tuple[str, ...]  # by row of the classifier; the base's first
    samples: tuple[int, ...]  # learned of each class since the base
    live: Mapping[str, Bools]  # masked layer → units, as they are now
    delta: Mapping[str, F32]  # parameter or buffer → its value now minus the base's; under a dead unit minus the base's value
    steps: int  # of training since the base
    executed: int  # FLOPs of them
    seconds: float  # that they took


def difference(base: Model, learned: Model, taught: Taught | None = None) -> Update:
    """What `learned` is more than `base`, whose lessons it went through.

    `taught` says what was learned since; None: what can be told from the two (see `taught_since`).
    Raises ConfigError where the one is not made from the other: another net, other masks, other classes.
    """
    was = Base.of(base)
    net = widened(was, learned.card.classes)
    if learned.net.nodes != net.nodes or learned.card.classes[: len(was.classes)] != was.classes:
        raise ConfigError(f"{learned.folder}: net {learned.net.name} or its classes do not go on from those of {base.folder}")
    shapes = [{k: v.shape for k, v in live.items()} for live in (learned.live, was.live)]
    if shapes[0] != shapes[1]:
        raise ConfigError(f"{learned.folder}: its masks are not of the layers and units of {base.folder}")
    delta = {k: learned.weights[k] - wide(was.weights[k], s) for k, s in shapes_of(net).items()}
    known = taught_since(base, learned) if taught is None else taught
    samples = tuple(known.samples.get(name, 0) for name in learned.card.classes)
    live = {k: learned.live[k] for k in was.live}
    return Update(was.snapshot, net.name, learned.card.classes, samples, live, delta, known.steps, known.executed, known.seconds)


def apply(base: Base, update: Update) -> tuple[Arrays, dict[str, Bools]]:
    """The network that the update is the difference of: weights and buffers, new arrays, and its masks.

    Raises ConfigError where it is another base's.
    """
    if update.base != base.snapshot:
        raise ConfigError(f"the update is of base {update.base[:12]}, not of {base.snapshot[:12]}")
    weights: Arrays = {k: wide(base.weights[k], d.shape) + d for k, d in update.delta.items()}
    return weights, {k: v.copy() for k, v in update.live.items()}


def residual(update: Update, sent: Update) -> dict[str, F32]:
    """What an update lost on its way: by array, its difference minus what `decode` gives of it.

    A device whose next difference is of the same base need not keep it: it is in that one. One that gets a new base may add it.
    """
    return {k: d - sent.delta[k] for k, d in update.delta.items()}


def widened(base: Base, classes: tuple[str, ...]) -> Net:
    """The base's net, with rows for these classes where it has too few. Raises ConfigError where its classifier can't grow."""
    if len(classes) <= base.net.classes:
        return base.net
    if base.net.logits in base.live:
        raise ConfigError(f"net {base.net.name}: layer {base.net.logits} is masked, and can't grow with the classifier")
    return with_room(base.net, len(classes))


def shapes_of(net: Net) -> dict[str, tuple[int, ...]]:
    """Of all arrays of an update, in its order: parameters, then buffers."""
    return {**net.weights(), **net.buffers()}


def wide(a: F32, shape: tuple[int, ...]) -> F32:
    """A base's array, with rows of zeros up to `shape`."""
    a = np.asarray(a, np.float32)
    return a if a.shape == shape else np.concatenate([a, np.zeros((shape[0] - len(a), *shape[1:]), np.float32)])
