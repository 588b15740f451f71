"""Dark experience replay ++ (Buzzega et al. 2020, eq. 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from edgecl.engines.base import Output
from edgecl.methods.base import CLASS_MASKS, PASSES, ByPart, at_least_0, class_mask, one_of, replay_mask, split_or_joined
from edgecl.methods.losses import cross_entropy, squared_error
from edgecl.types import Array, Batch, Pass


@dataclass(frozen=True)
class Derpp(ByPart):
    """Cross entropy on current samples, α · squared error to stored logits on one draw, β · cross entropy on another.

    Published with three passes, each with its own batch statistics; "concat" runs them as one, which is another method.
    """

    alpha: float = 0.1
    beta: float = 0.5
    class_mask: str = "task"
    forward: str = "separate"

    name: ClassVar[str] = "derpp"
    draws: ClassVar[int] = 2
    joint: ClassVar[bool] = False
    keeps_logits: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least_0("method.alpha", self.alpha)
        at_least_0("method.beta", self.beta)
        one_of("method.class_mask", self.class_mask, CLASS_MASKS)
        one_of("method.forward", self.forward, PASSES)

    def passes(self) -> tuple[Pass, ...]:
        return split_or_joined(self.forward, 3)

    def part_loss(self, xp: Any, part: int, output: Output, batch: Batch) -> tuple[Array, Array]:
        mine = batch.parts[part]
        share = mine.weight * ((1.0, self.alpha, self.beta)[part] / mine.y.shape[0])
        if part == 1:
            return squared_error(xp, output.logits, mine.logits, share)
        mask = replay_mask(self.class_mask, batch) if part else class_mask(self.class_mask, batch)
        return cross_entropy(xp, output.logits, mine.y, mask, share)
