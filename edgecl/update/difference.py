"""What a device learned: its network minus the base that it was installed with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from edgecl.model import Model
from edgecl.nets import Net
from edgecl.types import F32, Bools, Named


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
