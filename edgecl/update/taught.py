"""How much was learned since a base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgecl import runfolder, schedule
from edgecl.model import Model


@dataclass(frozen=True)
class Taught:
    """Add those of several lessons up."""

    samples: Mapping[str, int] = field(default_factory=dict)  # by class name
    steps: int = 0
    executed: int = 0  # FLOPs
    seconds: float = 0.0

    def __add__(self, other: Taught) -> Taught:
        names = (*self.samples, *(k for k in other.samples if k not in self.samples))
        samples = {k: self.samples.get(k, 0) + other.samples.get(k, 0) for k in names}
        return Taught(samples, self.steps + other.steps, self.executed + other.executed, self.seconds + other.seconds)


def taught_since(base: Model, learned: Model) -> Taught:
    """What two snapshots tell: for a device that kept no count of its own.

    Samples: those of the newest lesson, shared out among classes as the slots of the replay memory are that changed since the
    base. Steps, FLOPs and seconds: of two snapshots of one run the difference, else those of the newest lesson.
    """
    same_run = base.folder.parent == learned.folder.parent
    was, now = base.state if same_run else {}, learned.state
    executed = _executed(now) - _executed(was)
    seconds = float(now["seconds"]) - float(was.get("seconds", 0.0))
    samples = sum(runfolder.read_config(learned.folder.parent.parent).get("data", {}).get("samples", []))
    return Taught(_shared(base, learned, samples), _steps(learned, was, samples), max(0, executed), max(0.0, seconds))


def _executed(state: Mapping[str, Any]) -> int:
    return sum(map(sum, state["ledger"]["table"])) if state else 0


def _shared(base: Model, learned: Model, samples: int) -> dict[str, int]:
    """Samples by class name. A reservoir's slots stay where they are until another sample takes their place; a class that is
    new was taught, though none of its samples may be left there, so each of those counts one more.
    """
    was, now = base.memory, learned.memory
    if was is None or now is None or was.x.shape != now.x.shape:
        return {}
    axes = tuple(range(1, now.x.ndim))
    came = (now.ids != was.ids) | (now.x != was.x).any(axis=axes)
    counts = np.bincount(now.y[came & (now.ids >= 0)], minlength=len(learned.card.classes))
    counts[[k for k in learned.card.seen if k not in base.card.seen]] += 1
    shares = np.rint(counts * (samples / max(1, counts.sum()))).astype(int).tolist()
    return {name: n for name, n in zip(learned.card.classes, shares, strict=True) if n}


def _steps(learned: Model, was: Mapping[str, Any], samples: int) -> int:
    each = schedule.steps(samples, learned.config.train.batch)
    return max(0, (int(learned.state["at"]) - int(was.get("at", 0))) * each + int(learned.state["step"]))
