"""The method seam: a frozen config and pure functions over arrays of any namespace."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from edgecl.engines.base import Output
from edgecl.types import Array, Batch, ConfigError, Pass

CLASS_MASKS = ("task", "seen", "none")
PASSES = ("separate", "concat")


class Loss(NamedTuple):
    """A step's loss and its gradient with respect to every part's logits."""

    value: Array  # [] float32
    d_logits: list[Array]  # one [N, K] a part


class Method(Protocol):
    """What the loop asks of a method. It never touches masks, the data set or the engine."""

    name: ClassVar[str]
    joint: ClassVar[bool]  # learns all tasks at once
    keeps_logits: ClassVar[bool]  # reads Part.logits

    @property
    def draws(self) -> int:
        """Independent draws from the replay memory a step."""

    def passes(self) -> tuple[Pass, ...]:
        """Which parts go through the network together, with common batch statistics."""

    def loss(self, xp: Any, outputs: Sequence[Output], batch: Batch) -> Loss:
        """Loss and gradients; no synchronisation with the host and no shapes that depend on values."""


class ByPart(ABC):
    """A method whose loss is a sum over the parts, each of its own output: passes may then take turns, each forward and
    backward before the next begins, so that one pass's activations are kept at a time."""

    @abstractmethod
    def passes(self) -> tuple[Pass, ...]:
        """As `Method.passes`."""

    @abstractmethod
    def part_loss(self, xp: Any, part: int, output: Output, batch: Batch) -> tuple[Array, Array]:
        """The part's share of the loss, and the gradient of its logits [N, K]."""

    def loss(self, xp: Any, outputs: Sequence[Output], batch: Batch) -> Loss:
        values, d = zip(*(self.part_loss(xp, i, output, batch) for i, output in enumerate(outputs)), strict=True)
        return Loss(sum(values[1:], start=values[0]), list(d))


def class_mask(kind: str, batch: Batch) -> Array:
    """The classes that the current samples' loss reads: the task's own (SparCL), those seen, or all."""
    if kind == "none":
        return batch.seen_mask * 0 + 1
    return batch.task_mask if kind == "task" else batch.seen_mask


def replay_mask(kind: str, batch: Batch) -> Array:
    """The classes that the replayed samples' loss reads: all those seen, or all."""
    return class_mask("none" if kind == "none" else "seen", batch)


def one_of(key: str, value: str, known: Sequence[str]) -> None:
    """Raises ConfigError unless `value` is known."""
    if value not in known:
        raise ConfigError(f"{key}: {value!r} is not one of {', '.join(known)}")


def at_least_0(key: str, value: float) -> None:
    """Raises ConfigError unless `value` is a finite number from 0 up."""
    if not 0 <= value < float("inf"):
        raise ConfigError(f"{key}: {value!r} is not a number from 0 up")


def split_or_joined(how: str, parts: int) -> tuple[Pass, ...]:
    """One pass a part, or all in one."""
    return tuple(Pass((i,)) for i in range(parts)) if how == "separate" else (Pass(tuple(range(parts))),)
