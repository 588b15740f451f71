"""Bounds: plain SGD on the stream as it comes (lower), and on all of it at once (upper)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from edgecl.engines.base import Output
from edgecl.methods.base import CLASS_MASKS, ByPart, class_mask, one_of
from edgecl.methods.losses import cross_entropy
from edgecl.types import Array, Batch, Pass


@dataclass(frozen=True)
class Sgd(ByPart):
    """Fine-tuning: remembers nothing. `class_mask` "none" as published; "task" to compare with masked methods."""

    class_mask: str = "none"

    name: ClassVar[str] = "sgd"
    draws: ClassVar[int] = 0
    joint: ClassVar[bool] = False
    keeps_logits: ClassVar[bool] = False

    def __post_init__(self) -> None:
        one_of("method.class_mask", self.class_mask, CLASS_MASKS)

    def passes(self) -> tuple[Pass, ...]:
        return (Pass((0,)),)

    def part_loss(self, xp: Any, part: int, output: Output, batch: Batch) -> tuple[Array, Array]:
        now = batch.parts[part]
        return cross_entropy(xp, output.logits, now.y, class_mask(self.class_mask, batch), now.weight / now.y.shape[0])


@dataclass(frozen=True)
class Joint(Sgd):
    """All tasks as one: what a learner that never has to remember would reach."""

    name: ClassVar[str] = "joint"
    joint: ClassVar[bool] = True
