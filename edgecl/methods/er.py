"""Experience replay, plain (Ratcliff 1990; Chaudhry et al. 2019, "tiny episodic memories") and asymmetric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from edgecl.engines.base import Output
from edgecl.methods.base import CLASS_MASKS, PASSES, Loss, class_mask, one_of, replay_mask, split_or_joined
from edgecl.methods.losses import cross_entropy, one_hot
from edgecl.types import Batch, Pass


@dataclass(frozen=True)
class Er:
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

    def loss(self, xp: Any, outputs: Sequence[Output], batch: Batch) -> Loss:
        now, old = batch.parts
        total = xp.sum(now.weight) + xp.sum(old.weight)
        a, d_a = cross_entropy(xp, outputs[0].logits, now.y, class_mask(self.class_mask, batch), now.weight / total)
        b, d_b = cross_entropy(xp, outputs[1].logits, old.y, replay_mask(self.class_mask, batch), old.weight / total)
        return Loss(a + b, [d_a, d_b])


@dataclass(frozen=True)
class ErAce:
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

    def loss(self, xp: Any, outputs: Sequence[Output], batch: Batch) -> Loss:
        now, old = batch.parts
        present = xp.max(one_hot(xp, now.y, outputs[0].logits), axis=0)
        a, d_a = cross_entropy(xp, outputs[0].logits, now.y, present, now.weight / now.y.shape[0])
        b, d_b = cross_entropy(xp, outputs[1].logits, old.y, batch.seen_mask, old.weight / old.y.shape[0])
        return Loss(a + b, [d_a, d_b])
