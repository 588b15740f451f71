"""When things happen in a run: how many samples an epoch sees, and when masks and data change.

The plan counts its cost from these epochs and the loop walks the same ones, so that both agree to the last FLOP.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgecl.config import Config

LESSON = "lesson"
"""`data.name` of a run that goes on from another: classes were known before its first task."""

FITTED = 512
"""Samples that the correction of a task's new classes reads of each side, old and new, at most."""

TESTED = 32
"""Samples that a test reads at a time: what their floats take counts in a memory budget."""


@dataclass(frozen=True)
class Epoch:
    """One epoch of one task, and what follows it."""

    task: int
    epoch: int
    samples: int  # kept by data removal
    steps: int
    expanded: bool  # the mask holds its extra units
    swap: bool  # after the epoch: prune units and regrow as many
    settle: bool  # after the epoch: shrink the mask to its size
    drop: int  # after the epoch: remove this many samples
    last: bool  # the task's last
    frozen: bool = False  # the net's prefix does not learn
    corrects: bool = False  # after the epoch: the new classes' bias is corrected

    @property
    def scores(self) -> bool:
        """The epoch's last steps gather gradients for a change of masks."""
        return self.swap or self.settle


def epochs(config: Config, sizes: Sequence[int]) -> list[Epoch]:
    """All epochs of a run over tasks of these `sizes`."""
    return [e for task, size in enumerate(sizes) for e in _task(config, task, size)]


def _task(config: Config, task: int, size: int) -> list[Epoch]:
    total, kept, drops = config.train.epochs, size, _drops(config, size)
    settle, every = _settle(config), max(1, round(config.tdm.every * config.train.epochs))
    dynamic = config.tdm.enabled and config.mask.sparsity > 0
    frozen = bool(config.freeze.until) and task >= config.freeze.after
    corrects = config.train.bias_correction and (task > 0 or config.data.name == LESSON)
    rows = []
    for done in range(1, total + 1):
        before = dynamic and done < settle
        drop = min(drops.get(done, 0), kept - 1)
        swap = before and done % every == 0
        expanded, settles = dynamic and done <= settle, dynamic and done == settle
        n = steps(kept, config.train.batch)
        last = done == total
        rows.append(Epoch(task, done - 1, kept, n, expanded, swap, settles, drop, last, frozen, last and corrects))
        kept -= drop
    return rows


def _settle(config: Config) -> int:
    """Epochs after which the mask shrinks: the last of a short task at the latest."""
    return min(max(1, round(config.tdm.settle * config.train.epochs)), config.train.epochs)


def _drops(config: Config, size: int) -> dict[int, int]:
    """Epochs done → samples to drop then: `times` removals, equal but for rounding, evenly up to `until`."""
    ddr, drops, gone = config.ddr, dict[int, int](), 0
    for i in range(1, ddr.times + 1 if ddr.share else 1):
        at = max(1, round(config.train.epochs * ddr.until * i / ddr.times))
        before, gone = gone, math.floor(size * ddr.share * i / ddr.times)
        drops[at] = drops.get(at, 0) + gone - before
    return {at: n for at, n in drops.items() if n and at < config.train.epochs}


def tested(groups: int, learned: int, *, joint: bool) -> int:
    """How many groups of classes are tested once so many tasks are learned: theirs and the next; all at first, and by `joint`."""
    return groups if joint or not learned else min(learned + 1, groups)


def test_sizes(tests: Sequence[int], *, joint: bool) -> list[int]:
    """Samples of each test of a run, before the first task and at every task's end, where the groups have so many."""
    return [sum(tests[: tested(len(tests), k, joint=joint)]) for k in range(2 if joint else len(tests) + 1)]


def fitted(config: Config) -> int:
    """Samples that a correction reads: as many of old classes as of new ones."""
    return 2 * min(config.memory.capacity, FITTED)


def saves(config: Config, epoch: Epoch) -> bool:
    """Whether a snapshot follows the epoch."""
    return epoch.last or (epoch.epoch + 1) % config.train.snapshot_every == 0


def steps(samples: int, batch: int) -> int:
    """Full batches only, so that shapes stay the same; fewer samples than a batch make one step of repeats."""
    return max(1, samples // batch)


def gathers(config: Config, epoch: Epoch, step: int) -> bool:
    """Whether a step gathers the gradients of all live weights: to score units, or to choose which are updated."""
    return scoring(config, epoch, step) or refreshes(config, step)


def scoring(config: Config, epoch: Epoch, step: int) -> bool:
    """Whether a step is one of the last before the masks change."""
    return epoch.scores and step >= epoch.steps - config.tdm.steps


def refreshes(config: Config, step: int) -> bool:
    """Whether the gradient masks are chosen anew from this step's gradients."""
    return config.dgm.share < 1 and config.mask.sparsity > 0 and step % config.dgm.every == 0


def gathering_steps(config: Config, epoch: Epoch) -> int:
    """How many of an epoch's steps `gathers` is true for."""
    scored = min(config.tdm.steps, epoch.steps) if epoch.scores else 0
    return scored + refreshing_steps(config, epoch.steps - scored)


def refreshing_steps(config: Config, steps: int) -> int:
    """How many of an epoch's first `steps` `refreshes` is true for."""
    return -(-steps // config.dgm.every) if refreshes(config, 0) else 0


AVERAGED = 20
"""Steps between weights that enter a task's mean: neighbours are too alike to be worth reading all."""


def averages(config: Config, epoch: Epoch, done: int) -> bool:
    """Whether the weights after an epoch's first `done` steps enter the task's mean."""
    first = config.train.epochs - round(config.train.average * config.train.epochs)
    return epoch.epoch >= first and (done % AVERAGED == 0 or done == epoch.steps)


def rate(config: Config, epoch: Epoch, step: int) -> float:
    """Learning rate of a step."""
    if config.train.schedule == "constant":
        return config.train.rate
    done = (epoch.epoch + step / epoch.steps) / config.train.epochs
    return config.train.rate * 0.5 * (1 + math.cos(math.pi * done))
