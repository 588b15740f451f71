"""Dark experience replay ++ (Buzzega et al. 2020, eq. 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from edgecl.engines.base import Output
from edgecl.methods.base import CLASS_MASKS, PASSES, ByPart, at_least_0, class_mask, one_of, replay_mask, split_or_joined
from edgecl.methods.losses import cross_entropy, squared_error
from edgecl.types import Array, Batch, ConfigError, Pass


@dataclass(frozen=True)
class Derpp(ByPart):
    """Cross entropy on current samples, α · squared error to stored logits on one draw, β · cross entropy on another.

    Published with three passes, each with its own batch statistics; "concat" runs them as one, which is another method. With
    one draw both losses read the same replayed samples: a third of the FLOPs less, and another method too.
    """

    alpha: float = 0.1
    beta: float = 0.5
    class_mask: str = "task"
    forward: str = "separate"
    draws: int = 2

    name: ClassVar[str] = "derpp"
    joint: ClassVar[bool] = False
    keeps_logits: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least_0("method.alpha", self.alpha)
        at_least_0("method.beta", self.beta)
        one_of("method.class_mask", self.class_mask, CLASS_MASKS)
        one_of("method.forward", self.forward, PASSES)
        if self.draws not in (1, 2):
            raise ConfigError(f"method.draws: {self.draws!r} is not 1 or 2")

    def passes(self) -> tuple[Pass, ...]:
        return split_or_joined(self.forward, 1 + self.draws)

    def part_loss(self, xp: Any, part: int, output: Output, batch: Batch) -> tuple[Array, Array]:
        mine = batch.parts[part]
        share = mine.weight / mine.y.shape[0]
        if not part:
            return cross_entropy(xp, output.logits, mine.y, class_mask(self.class_mask, batch), share)
        losses = []
        if part == 1:
            losses.append(squared_error(xp, output.logits, mine.logits, self.alpha * share))
        if part == self.draws:
            losses.append(cross_entropy(xp, output.logits, mine.y, replay_mask(self.class_mask, batch), self.beta * share))
        values, d = zip(*losses, strict=True)
        return sum(values[1:], start=values[0]), sum(d[1:], start=d[0])
