"""Dark experience replay ++ (Buzzega et al. 2020, eq. 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from edgecl.engines.base import Output
from edgecl.methods.base import CLASS_MASKS, PASSES, Loss, at_least_0, class_mask, one_of, replay_mask, split_or_joined
from edgecl.methods.losses import cross_entropy, squared_error
from edgecl.types import Batch, Pass


@dataclass(frozen=True)
class Derpp:
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

    def loss(self, xp: Any, outputs: Sequence[Output], batch: Batch) -> Loss:
        now, soft, hard = batch.parts
        n = [part.y.shape[0] for part in batch.parts]
        a, d_a = cross_entropy(xp, outputs[0].logits, now.y, class_mask(self.class_mask, batch), now.weight / n[0])
        b, d_b = squared_error(xp, outputs[1].logits, soft.logits, soft.weight * (self.alpha / n[1]))
        mask = replay_mask(self.class_mask, batch)
        c, d_c = cross_entropy(xp, outputs[2].logits, hard.y, mask, hard.weight * (self.beta / n[2]))
        return Loss(a + b + c, [d_a, d_b, d_c])
