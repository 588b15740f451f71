"""From a data set to a class-incremental stream: tasks of a few classes each, in the order of the class ids."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgecl.data.source import OnDisk, Source, Split, rank_in_class
from edgecl.types import I64, U8, ConfigError, DataError, Samples, Stream, Task


def build(source: Source, classes_per_task: int = 2, samples_per_class: int = 0, tasks: int = 0, *, lazy: bool = False) -> Stream:
    """Tasks of `classes_per_task` classes; the last is smaller where the classes don't divide.

    `samples_per_class` > 0 keeps the first so many training samples of each class in file order (all of a class that has
    fewer); ids stay those of the full set and tests are whole.
    `tasks` > 0 ends the stream after so many: the classes of later ones do not exist for it.
    `lazy` leaves pixels on the disk until they are read. Raises ConfigError for a share out of range, and DataError that
    names the class for one without a training or a test sample.
    """
    count = len(source.classes)
    if not 1 <= classes_per_task <= count:
        raise ConfigError(f"classes_per_task is {classes_per_task}; {source.name} has {count} classes: take 1 to {count}")
    if samples_per_class < 0:
        raise ConfigError(f"samples_per_class is {samples_per_class}: take 0 for all, or the number to keep of each class")
    _check_classes(source)
    groups = tuple(tuple(range(k, min(k + classes_per_task, count))) for k in range(0, count, classes_per_task))
    if not 0 <= tasks <= len(groups):
        raise ConfigError(f"data.tasks is {tasks}; {source.name} has {len(groups)} tasks: take 0 for all, or 1 to {len(groups)}")
    groups = groups[: tasks or None]
    kept = [_positions(source.train, g, samples_per_class) for g in groups]
    taught = tuple(Task(i, g, source.train.take(k, lazy=lazy)) for i, (g, k) in enumerate(zip(groups, kept, strict=True)))
    tests = tuple(source.test.take(_positions(source.test, g), lazy=lazy) for g in groups)
    return Stream(source.name, source.classes[: groups[-1][-1] + 1], groups, taught, tests, source.preprocess)


def joint(stream: Stream) -> Stream:
    """The same samples as one task, in the order of their ids; groups and tests stay. What an offline learner would see."""
    parts = [task.train for task in stream.tasks]
    ids = np.concatenate([p.ids for p in parts])
    order = np.argsort(ids)
    where = np.empty_like(order)
    where[order] = np.arange(len(order))
    ends = np.cumsum([len(p) for p in parts])
    if all(isinstance(p.x, OnDisk) for p in parts):
        stored = [p.x for p in parts if isinstance(p.x, OnDisk)]
        x: U8 | OnDisk = OnDisk(stored[0].read, np.concatenate([s.positions for s in stored])[order], stored[0].sample)
    else:
        x = np.empty((len(ids), *stream.shape), dtype=np.uint8)
        for part, rows in zip(parts, np.split(where, ends[:-1]), strict=True):
            x[rows] = part.x[:]  # straight to its place: the pixels are the bulk, and are copied once
    y = np.concatenate([p.y for p in parts])
    classes = tuple(k for task in stream.tasks for k in task.classes)
    return replace(stream, tasks=(Task(0, classes, Samples(x, y[order], ids[order])),))


def _positions(split: Split, classes: tuple[int, ...], first: int = 0) -> I64:
    """Positions of these classes' samples in file order; of each class the `first` so many, if not 0."""
    keep = np.isin(split.y, classes)
    if first:
        keep &= rank_in_class(split.y) < first
    return np.flatnonzero(keep)


def _check_classes(source: Source) -> None:
    for kind, split in (("training", source.train), ("test", source.test)):
        missing = np.flatnonzero(np.bincount(split.y, minlength=len(source.classes)) == 0)
        if len(missing):
            k = int(missing[0])
            raise DataError(f"{source.where}: class {k} ({source.classes[k]}) has no {kind} sample")
