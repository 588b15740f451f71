"""Networks, bundles and lessons of seconds, for the tests of a device's sync."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from run_cases import digits

from edgecl import bundle, lesson, session, slots
from edgecl import config as configs
from edgecl.bundle import Wish
from edgecl.lesson import Labelled
from edgecl.model import Model, open_model
from edgecl.runtime import lessons
from edgecl.runtime import place as places
from edgecl.train import train

SMALL = {
    "data": {"name": "digits", "samples_per_class": 60, "classes_per_task": 8, "tasks": 1},
    "net": {"name": "mlp", "width": 64},
    "train": {"epochs": 15, "batch": 16, "rate": 0.05, "snapshot_every": 15},
    "memory": {"capacity": 90},
    "mask": {"sparsity": 0.5},
    "engine": {"threads": 1},
}
"""Eight digits of ten: what a hub begins with."""


def learn_base(run: Path, **changes: Any) -> Path:
    config = configs.resolve("digits", [SMALL, changes])
    stream = session.read_stream(config)
    for _ in train(*session.begin(run, session.make(config, stream, set(configs.dotted(SMALL))), stream)):
        pass
    return run


def samples(classes: Sequence[int], n: int, first: int = 0, *, test: bool = False) -> Labelled:
    """`n` of each digit, from the `first` on."""
    stream = digits(10, 0)
    split = stream.tests[0] if test else stream.tasks[0].train
    at = np.concatenate([np.flatnonzero(split.y == k)[first : first + n] for k in classes])
    return Labelled(np.asarray(split.x[at]), [stream.class_names[k] for k in split.y[at]])


def teach(folder: Path, base: Path, given: Labelled, epochs: int = 6, number: int | None = None) -> Path:
    """A lesson to its end, in a folder of lessons."""
    number = 1 + max(lessons.numbers(folder), default=0) if number is None else number
    folder.mkdir(parents=True, exist_ok=True)
    run, model = lessons.at(folder, number), open_model(base)
    lesson.begin(run, model, lesson.prepare(model, given, changes={"train": {"epochs": epochs}}))
    setup, state = session.resume(run)
    for _ in train(setup, state):
        pass
    session.result(setup, state)
    state.metrics.close()
    lesson.forget_samples(run)
    return run


def newest(slot: Path) -> Path:
    place = places.find(slot)
    found = lessons.newest(place, place.lessons)
    assert found is not None
    return found


def install(run: Path, root: Path, key: Path) -> Path:
    """A bundle of the run, made and put into the idle slot below `root`; confirmed."""
    file = root.parent / f"{root.name}.edgecl"
    bundle.create(run, file, key, Wish("host"))
    slot = bundle.install(file, root, key.with_suffix(".pub")).slot
    slots.confirm(root)
    file.unlink()
    return slot


def unpacked(run: Path, key: Path, folder: Path) -> Path:
    """A slot's folder, without slots around it."""
    file = folder.with_suffix(".edgecl")
    bundle.create(run, file, key, Wish("host"))
    folder.mkdir(parents=True)
    bundle.unpack(file, folder, key.with_suffix(".pub"))
    return folder


def right(model: Model, given: Labelled) -> float:
    """Share predicted right among all classes seen."""
    from edgecl.engines import make_engine
    from edgecl.evaluate import logits_of

    engine = make_engine("numpy", model.net, threads=1)
    engine.load(model.weights)
    seen = np.array(model.card.seen)
    logits = logits_of(engine, np.asarray(given.x), model.card.preprocess)
    told = [model.card.classes[k] for k in seen[logits[:, seen].argmax(1)]]
    return float(np.mean([a == b for a, b in zip(told, given.labels, strict=True)]))


def copied(source: Path, target: Path) -> Path:
    shutil.copytree(source, target, symlinks=True)
    return target
