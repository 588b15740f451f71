"""Experience replay, plain (Ratcliff 1990; Chaudhry et al. 2019, "tiny episodic memories") and asymmetric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from edgecl.engines.base import Output
from edgecl.methods.base import CLASS_MASKS, PASSES, ByPart, class_mask, one_of, replay_mask, split_or_joined
from edgecl.methods.losses import cross_entropy, one_hot
from edgecl.types import Array, Batch, Pass


@dataclass(frozen=True)
class Er(ByPart):
    """Mean cross entropy over current and replayed samples. Published as one concatenated pass."""

    class_mask: str = "task"
    forward: str = "concat"

    name: ClassVar[str] = "er"
    draws: ClassVar[int] = 1
    joint: ClassVar[bool] = False
    keeps_logits: ClassVar[bool] = False

    def __post_init__(self) -> None:
        one_of("method.class_mask", self.class_mask, CLASS_MASKS)
        one_of("method.forward", self.forward, PASSES)

    def passes(self) -> tuple[Pass, ...]:
        return split_or_joined(self.forward, 2)

    def part_loss(self, xp: Any, part: int, output: Output, batch: Batch) -> tuple[Array, Array]:
        mine, total = batch.parts[part], sum(xp.sum(one.weight) for one in batch.parts)
        mask = replay_mask(self.class_mask, batch) if part else class_mask(self.class_mask, batch)
        return cross_entropy(xp, output.logits, mine.y, mask, mine.weight / total)


@dataclass(frozen=True)
class ErAce(ByPart):
    """Asymmetric cross entropy (Caccia et al. 2022, eq. 3): current samples compete with the classes of their own batch only,
    replayed ones with all classes seen. Published as two passes."""

    forward: str = "separate"

    name: ClassVar[str] = "er_ace"
    draws: ClassVar[int] = 1
    joint: ClassVar[bool] = False
    keeps_logits: ClassVar[bool] = False

    def __post_init__(self) -> None:
        one_of("method.forward", self.forward, PASSES)

    def passes(self) -> tuple[Pass, ...]:
        return split_or_joined(self.forward, 2)

    def part_loss(self, xp: Any, part: int, output: Output, batch: Batch) -> tuple[Array, Array]:
        mine = batch.parts[part]
        mask = batch.seen_mask if part else xp.max(one_hot(xp, mine.y, output.logits), axis=0)
        return cross_entropy(xp, output.logits, mine.y, mask, mine.weight / mine.y.shape[0])
