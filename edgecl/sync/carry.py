"""Carries what a device had learned into the slot of a new base, before the switch to it.

Written is a folder of lessons as `runtime` opens it: one finished lesson, made of the new base (rebase.py), and as waiting
samples those that no lesson had been made of yet.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edgecl import files, lesson, runfolder, session, store, taught
from edgecl import state as states
from edgecl.engines import AUTO, make_engine, pick
from edgecl.evaluate import logits_of
from edgecl.lesson import Labelled
from edgecl.model import Model, open_model
from edgecl.runtime import lessons
from edgecl.runtime import place as places
from edgecl.runtime.lessons import Pending, Sample
from edgecl.state import State
from edgecl.sync import rebase
from edgecl.sync.packing import REBASED
from edgecl.train import train
from edgecl.types import DataError, StoreError


class Carried(NamedTuple):
    """What was taken along."""

    samples: int  # of the device's own, in the new memory
    classes: tuple[str, ...]  # personal ones
    waiting: int  # samples for the next lesson
    accuracy: float | None  # on the new memory


NOTHING = Carried(0, (), 0, None)


def carry(old: Path, old_lessons: Path, slot: Path, folder: Path, relearn: int = 0) -> Carried:
    """From the slot `old` to the unpacked bundle `slot`. Raises ConfigError, StoreError or DataError where that can't be."""
    before, after = places.find(old), places.find(slot)
    if before.learner is None or after.learner is None:
        return NOTHING
    newest = lessons.newest(before, old_lessons) or before.learner
    first, was, new = open_model(before.learner), open_model(newest), open_model(after.learner)
    waiting = _waiting(old_lessons, was)
    own, mine = rebase.own_samples(first.memory, was.memory), rebase.personal(new, was)
    learned = bool(len(own) or mine)  # of a short lesson the memory may have kept nothing
    if not learned and not waiting:
        return NOTHING
    made, right = new, None
    with files.naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
        files.sync(folder.parent)
    if learned:
        made = rebase.rebased(new, was)
        right = _accuracy(made)
        _write(folder, made, relearn if mine and _remembered(made, mine) else 0)
    _keep_waiting(folder, made, waiting)
    kept = len(rebase.own_samples(first.memory, made.memory)) if len(own) else 0
    return Carried(kept, mine, len(waiting), right)


def _remembered(made: Model, classes: tuple[str, ...]) -> bool:
    """Whether the memory has samples of all of them: a lesson without would unlearn them."""
    assert made.memory is not None
    held = set(made.memory.y[: made.memory.size].tolist())
    return all(made.card.classes.index(name) in held for name in classes)


def _accuracy(made: Model) -> float:
    """On its own memory. Raises StoreError where a logit is not finite."""
    memory = made.memory
    assert memory is not None
    engine = make_engine(pick(AUTO).name, made.net, threads=1)
    engine.load(made.weights)
    logits = logits_of(engine, memory.x[: memory.size], made.card.preprocess)
    if not np.isfinite(logits).all():
        raise StoreError(f"{made.folder}: with what was carried over a logit is not a finite number")
    seen = np.array(made.card.seen)
    return float((seen[logits[:, seen].argmax(1)] == memory.y[: memory.size]).mean())


# the lesson


def _write(folder: Path, made: Model, relearn: int) -> None:
    """The rebased network as the folder's newest lesson, whole or absent."""
    number = 1 + max(lessons.numbers(folder), default=0)
    run = lessons.at(folder, number)
    tmp = run.with_name(f".{run.name}.rebased")
    shutil.rmtree(tmp, ignore_errors=True)
    _begin(tmp, made, relearn)
    _learn(tmp) if relearn else _finish(tmp)
    model = open_model(tmp)
    assert model.memory is not None
    said = {"snapshot": model.card.snapshot, "last_id": int(model.memory.ids.max()), "base": made.card.snapshot}
    files.write_atomic(folder / REBASED, json.dumps(said).encode() + b"\n")  # names the lesson by its hash, so it may come first
    with files.naming(run):
        (tmp / runfolder.LOCK).unlink(missing_ok=True)
    files.replace_dir(tmp, run)


def _begin(tmp: Path, made: Model, relearn: int) -> None:
    """A lesson over the memory, which is not learned yet."""
    memory = made.memory
    assert memory is not None
    x, y = memory.x[: memory.size], memory.y[: memory.size]
    given = Labelled(x.copy(), [made.card.classes[k] for k in y])
    changes = {"train": {"epochs": relearn}} if relearn else {}
    lesson.begin(tmp, made, lesson.prepare(made, given, changes=changes))


def _finish(tmp: Path) -> None:
    """As if it were learned: nothing is trained."""
    setup, state = session.resume(tmp)
    state.at = len(setup.epochs)
    states.save(setup, state)
    _end(tmp, state)


def _learn(tmp: Path) -> None:
    """A short lesson over the memory, so that the rows that came along fit the new features."""
    setup, state = session.resume(tmp)
    for _ in train(setup, state, lambda: False):
        pass
    session.result(setup, state)
    _end(tmp, state)


def _end(tmp: Path, state: State) -> None:
    """Only the newest snapshot stays."""
    state.metrics.close()
    lesson.forget_samples(tmp)
    for number in range(state.snapshots):
        shutil.rmtree(store.place(tmp, number), ignore_errors=True)


# samples that wait


def _waiting(folder: Path, was: Model) -> list[Sample]:
    """Those that no learned lesson has: of a lesson that is not at its end, and of the journal."""
    if not folder.is_dir():
        return []
    found = []
    run = lessons.unfinished(folder)
    if run is not None:
        try:
            stream = taught.read(run, runfolder.read_config(run)["stream"])
        except DataError:
            stream = None  # it is learned after all
        if stream is not None:
            train = stream.tasks[0].train
            found = [Sample(np.asarray(train.x[i]), stream.class_names[k]) for i, k in enumerate(train.y.tolist())]
    return found + Pending(folder, was.card).recover()


def _keep_waiting(folder: Path, made: Model, waiting: list[Sample]) -> None:
    """In the new journal, synced; what an earlier try, which the power cut off, has put there is not put there twice."""
    pending = Pending(folder, made.card)
    there = {(s.label, s.x.tobytes()) for s in pending.recover()}
    for sample in waiting:
        if (sample.label, sample.x.tobytes()) not in there:
            pending.add(sample)
    pending.close()
