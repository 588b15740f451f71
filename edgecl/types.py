"""F0: the values that stages hand to each other, and the errors that users see.

Shapes: N samples, C channels, H height, W width, K classes (the classifier's capacity).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = Any
"""An array of whichever namespace the engine computes in (numpy, torch): see array-api-compat."""

U8: TypeAlias = npt.NDArray[np.uint8]
I64: TypeAlias = npt.NDArray[np.int64]
F32: TypeAlias = npt.NDArray[np.float32]
Bools: TypeAlias = npt.NDArray[np.bool_]
Named: TypeAlias = Mapping[str, npt.NDArray[Any]]


class EdgeclError(Exception):
    """A fault that the user can act on. Its text is one line; the command line prints it and exits."""

    exit_code = 1


class ConfigError(EdgeclError):
    """A wrong option, key or value; names it, and the nearest right one."""

    exit_code = 2


class DataError(EdgeclError):
    """Input data that can't be used; names the file, sample or class."""

    exit_code = 3


class StoreError(EdgeclError):
    """A file that can't be written or read back; names it."""

    exit_code = 4


class BudgetError(EdgeclError):
    """A budget that can't be met; names the nearest that can."""

    exit_code = 5


class NumericError(EdgeclError):
    """Training left the finite numbers; names the place, and the last good snapshot."""

    exit_code = 6


class Pixels(Protocol):
    """Samples' pixels [N, C, H, W], in memory or read from the disk when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""

    def __getitem__(self, index: Any) -> Any:
        """uint8 [n, C, H, W] at positions, a boolean mask or a slice."""


@dataclass(frozen=True)
class Samples:
    """One split, as stored: never augmented, never normalised."""

    x: U8 | Pixels  # [N, C, H, W]
    y: I64  # [N] class ids
    ids: I64  # [N] stable sample ids: a sample keeps its id in every subset

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: npt.NDArray[Any]) -> Samples:
        """The rows at `index` (positions or a boolean mask), in that order."""
        return Samples(self.x[index], self.y[index], self.ids[index])


@dataclass(frozen=True)
class Task:
    """One step of the stream: these classes, with these samples to learn from."""

    index: int
    classes: tuple[int, ...]
    train: Samples


@dataclass(frozen=True)
class Preprocess:
    """How a stored uint8 sample becomes a network's input: (x / 255 - mean) / std, after the augmentation."""

    mean: tuple[float, ...]  # per channel, of x / 255
    std: tuple[float, ...]
    pad: int = 0  # zero-pad by this many pixels and crop back at random (0: no crop)
    flip: bool = False  # mirror left to right at random


@dataclass(frozen=True)
class Stream:
    """A class-incremental stream: tasks in order, and one test split for each group of classes.

    `joint` streams have one task with all classes, but keep the groups for evaluation.
    """

    name: str
    class_names: tuple[str, ...]  # by class id
    groups: tuple[tuple[int, ...], ...]  # class ids of each evaluation group, in the stream's order
    tasks: tuple[Task, ...]
    tests: tuple[Samples, ...]  # one a group
    preprocess: Preprocess
    before: int = 0  # groups, the first ones, that the network knew before the first task: no task teaches them

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a sample."""
        c, h, w = self.tasks[0].train.x.shape[1:]
        return int(c), int(h), int(w)


class Part(NamedTuple):
    """One group of samples of a training step: the current batch, or one draw from the replay memory."""

    x: Array  # [N, C, H, W] uint8, un-augmented
    crop: Array  # [N, 3] int64: row and column of the crop in the padded image, and 1 to mirror
    y: Array  # [N] int64 class ids
    weight: Array  # [N] float32: 1, or 0 where a static shape holds no real sample
    logits: Array  # [N, K] float32: what the network said when the sample was stored (zeros for the current batch)


class Batch(NamedTuple):
    """Everything that one training step reads. Shapes never change within a run, so that it can be captured."""

    parts: tuple[Part, ...]  # the current batch first, then the replay draws
    task_mask: Array  # [K] float32: 1 for classes of the current task
    seen_mask: Array  # [K] float32: 1 for classes seen so far, the current ones among them
    rate: Array  # [] float32: learning rate


class Pass(NamedTuple):
    """One forward and backward through the network: its parts share their batch statistics."""

    parts: tuple[int, ...]  # indices into Batch.parts
