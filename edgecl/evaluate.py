"""Accuracy on every group of classes, with and without being told the task (Class-IL, Task-IL)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edgecl.data.augment import center_crops, prepare
from edgecl.engines import Engine
from edgecl.schedule import TESTED
from edgecl.types import F32, U8, Pixels, Preprocess, Samples, Stream


class Accuracy(NamedTuple):
    """Shares of a group's test samples predicted right."""

    class_il: float  # among all classes seen so far
    task_il: float  # among the group's own classes


def evaluate(engine: Engine, stream: Stream, group: int, seen: int) -> Accuracy:
    """One group's accuracy when the first `seen` groups have been learned; Class-IL is 0 for a group not seen."""
    test, logits = stream.tests[group], predict(engine, stream, stream.tests[group])
    known = sorted(c for g in stream.groups[:seen] for c in g)
    class_il = _share(logits, test, known) if group < seen else 0.0
    return Accuracy(class_il, _share(logits, test, sorted(stream.groups[group])))


def predict(engine: Engine, stream: Stream, samples: Samples) -> F32:
    """Logits [N, K] of stored samples, without augmentation."""
    return logits_of(engine, samples.x, stream.preprocess)


def logits_of(engine: Engine, x: U8 | Pixels, pre: Preprocess) -> F32:
    """Logits [N, K] of samples as stored, uint8 [N, C, H, W], read a batch at a time."""
    rows = []
    for start in range(0, x.shape[0], TESTED):
        part = engine.asarray(x[start : start + TESTED])
        crop = engine.asarray(center_crops(len(part), pre))
        rows.append(engine.numpy(engine.predict(prepare(engine.xp, part, crop, pre))))
    return np.concatenate(rows)


def _share(logits: F32, test: Samples, classes: list[int]) -> float:
    """Share of samples whose best class among `classes` is theirs."""
    best = np.array(classes)[logits[:, classes].argmax(1)]
    return float((best == test.y).mean())
