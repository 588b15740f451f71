"""F3: going on learning: a lesson is a run of one task that starts from another run's snapshot, with the same loop and method.

Weights, momentum, masks, replay memory and random numbers go on as they were. Classes are known by name: new ones get the ids
that follow, and where the classifier has no room left it grows by rows drawn at random (`nets.grown`). Stored logits of classes
that were not there yet are 0. A lesson of a single class is told from all classes seen (`method.class_mask` becomes `seen`):
among its own there is nothing to tell apart. Its rate falls to 0 and new classes' bias is corrected at its end, unless told
otherwise. Width, masks and memory stay; a budget may choose epochs, data removal, gradient share and storage.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgecl import config as configs
from edgecl import curate, files, plan, recipe, runfolder, schedule, session, state, store, taught
from edgecl.config import Config
from edgecl.forecast import method_of
from edgecl.ledger import Ledger
from edgecl.memory import Reservoir
from edgecl.model import Model, describe, net_entry, recorded_config
from edgecl.nets import ZOO, Net, grown, with_room
from edgecl.plan import Device, Plan
from edgecl.runfolder import Metrics
from edgecl.state import Setup, State
from edgecl.timing import Clock
from edgecl.types import I64, U8, ConfigError, DataError, Samples, StoreError, Stream, Task

KEPT = ("data.", "net.", "mask.", "memory.capacity", "method.name", "seed", "device", "budget")
"""Keys, or their beginnings, that a lesson takes from its base or sets itself."""

HELD_OUT, MEMORY, OWN = "held-out samples", "the replay memory, which is trained on", "the lesson's own samples"
"""What a group of classes is tested on."""


@dataclass(frozen=True)
class Labelled:
    """Samples as stored with the names of their classes."""

    x: U8  # [N, C, H, W]
    labels: Sequence[str]  # [N]
    ids: I64 | None = None  # [N]; None: those that follow the memory's


class Prepared(NamedTuple):
    """A lesson that is ready to begin."""

    plan: Plan
    stream: Stream
    base: dict[str, Any]  # for config.yaml


def prepare(
    base: Model,
    lesson: Labelled,
    *,
    budget: str = "",
    changes: Mapping[str, Any] | None = None,
    held_out: Labelled | None = None,
    clock: Clock | None = None,
) -> Prepared:
    """Plans a lesson. `changes` are nested keys of the configuration; `held_out` samples are tested on, before and after.

    Raises ConfigError where the base can't be gone on from, or a key is not a lesson's to change; DataError for samples of
    another form; BudgetError that names the nearest possible budget.
    """
    _check_base(base)
    stream, tested = _stream(base, lesson, held_out)
    net = base.net if len(stream.class_names) <= base.net.classes else with_room(base.net, len(stream.class_names))
    config = session.with_engine(_config(base, net, stream, budget, changes or {}))
    pinned = {
        "net.width",
        *recipe.KEYS,  # its momentum and memory go on as they were
        *configs.dotted(changes or {}),
        *(k for k in configs.dotted(config.to_dict()) if k.startswith("mask.")),
    }
    work = replace(session.workload(stream), net=None if config.net.name in ZOO else net)
    chosen = plan.make_plan(config, work, pinned, _without(base, session.device(config, clock)))
    if chosen.net != net:
        raise ConfigError(f"net {net.name}: a classifier for {net.classes} classes is built otherwise than it grows")
    return Prepared(chosen, stream, {"snapshot": base.card.snapshot, **tested})


def _without(base: Model, here: Device) -> Device:
    """What this process will hold once the base's arrays are let go of, which a caller does before the lesson is learned."""
    passing = sum(a.nbytes for a in base.weights.values()) + (base.memory.nbytes if base.memory else 0)
    return replace(here, resident=max(0, here.resident - passing))


def _check_base(base: Model) -> None:
    """Raises ConfigError where a lesson could only do harm."""
    method = method_of(base.config)
    if not method.draws:
        raise ConfigError(f"method {method.name} replays nothing: a lesson would unlearn what the network knows")
    if base.state["step"] or base.state["at"] % base.config.train.epochs or not base.state["at"]:
        raise ConfigError(f"{base.folder}: lies within a task; edgecl train --resume {base.folder.parent.parent} ends it first")


def _config(base: Model, net: Net, stream: Stream, budget: str, changes: Mapping[str, Any]) -> Config:
    wrong = [key for key in sorted(configs.dotted(changes)) if key.startswith(KEPT)]
    if wrong:
        raise ConfigError(f"{wrong[0]}: a lesson keeps what its base has")
    learned = int(base.state["at"]) // base.config.train.epochs
    own: dict[str, Any] = {
        "data": {
            "name": schedule.LESSON,
            "root": "",
            "classes_per_task": len(stream.tasks[0].classes),
            "samples_per_class": 0,
            "tasks": 0,
        },
        "train": _schedule(net, stream),
        "freeze": {"after": max(0, base.config.freeze.after - learned)},
        "engine": {"name": "auto", "device": "cpu", "precision": "fp32", "storage": "fp32"},
        "memory": {"compress": True},
        "device": "host",
        "budget": budget,
    }
    if base.config.net.name in ZOO:
        own["net"] = {"capacity": net.classes}
    if len(stream.tasks[0].classes) == 1:
        own["method"] = _against_the_rest(base.config)
    config = configs.merge(configs.merge(base.config, own), changes)
    configs.check(config)
    return config


def _schedule(net: Net, stream: Stream) -> dict[str, Any]:
    """How a lesson is trained where nobody says: with a rate that falls to 0, and with new classes set right against old ones.

    docs/device.md has what this gains. Nothing is set right where no class is new, or where no bias can hold it.
    """
    return {"schedule": "cosine", "bias_correction": len(stream.groups) > stream.before and net.bias is not None}


def _against_the_rest(config: Config) -> dict[str, Any]:
    """The method for a lesson of one class: among the lesson's own classes there would be nothing to tell apart, and no gradient.

    Raises ConfigError for a method that can't do otherwise.
    """
    name = config.method["name"]
    if "class_mask" not in config.method:
        raise ConfigError(f"method {name} learns nothing from a lesson of one class; teach two at a time")
    return {"name": name, **({"class_mask": "seen"} if config.method["class_mask"] == "task" else {})}


# samples


def _stream(base: Model, lesson: Labelled, held_out: Labelled | None) -> tuple[Stream, dict[str, str]]:
    """The lesson's stream, and what its groups are tested on."""
    names = list(dict.fromkeys([*base.card.classes, *lesson.labels]))
    first = 1 + max([-1, *(int(i) for i in base.memory.ids)]) if base.memory else 0
    train = _samples(base, lesson, names, first)
    old = base.card.seen
    new = tuple(k for k in np.unique(train.y).tolist() if k not in old)
    groups = (old, new) if new else (old,)
    shown = None if held_out is None else _samples(base, held_out, names, int(train.ids.max()) + 1)
    tests, why = zip(*(_test(base, train, shown, group, old=group is old) for group in groups), strict=True)
    task = Task(0, tuple(np.unique(train.y).tolist()), train)
    stream = Stream(base.stream["name"], tuple(names), groups, (task,), tests, base.card.preprocess, before=1)
    return stream, {"old_tests": why[0], **({"new_tests": why[1]} if new else {})}


def _samples(base: Model, given: Labelled, names: list[str], first: int) -> Samples:
    """Raises DataError for samples that are none of the base's."""
    x, n = np.asarray(given.x), len(given.labels)
    if not n or x.dtype != np.uint8 or x.shape != (n, *base.card.input):
        raise DataError(f"a lesson has {n} labels and samples {x.dtype} {list(x.shape)}, not uint8 [{n}, {_by(base.card.input)}]")
    strange = [label for label in given.labels if label not in names]
    if strange:
        raise DataError(f"held-out samples are of class {strange[0]!r}, which is neither known nor taught")
    at = {name: k for k, name in enumerate(names)}
    ids = np.arange(first, first + n) if given.ids is None else np.asarray(given.ids, np.int64)
    return Samples(x, np.array([at[label] for label in given.labels], np.int64), ids)


def _by(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))


def _test(base: Model, train: Samples, held_out: Samples | None, group: tuple[int, ...], *, old: bool) -> tuple[Samples, str]:
    """A group's test split: held-out samples if there are any of it, else what there is, and the words for that."""
    if held_out is not None and np.isin(held_out.y, group).any():
        return held_out.take(np.isin(held_out.y, group)), HELD_OUT
    if not old:
        return train.take(np.isin(train.y, group)), OWN
    memory = base.memory
    if memory is None or not memory.size:
        raise ConfigError(f"{base.folder}: its replay memory is empty: a lesson would unlearn what the network knows")
    slots = np.flatnonzero(np.isin(memory.y[: memory.size], group))
    return Samples(memory.x[slots].copy(), memory.y[slots].copy(), memory.ids[slots].copy()), MEMORY


# the run


def begin(run: Path, base: Model, prepared: Prepared) -> int:
    """Makes the run folder `run`: config.yaml, the lesson's samples, and a snapshot from which `session.resume` learns it.

    The folder is whole or absent. Returns the bytes written. Raises StoreError where it exists or the disk fails.
    """
    if run.exists():
        raise StoreError(f"{run}: exists already; a lesson needs a folder of its own")
    made = run.with_name(f".{run.name}.new")
    shutil.rmtree(made, ignore_errors=True)  # of a process that was killed
    try:
        _make(made, base, prepared)
        files.replace_dir(made, run)
    finally:
        shutil.rmtree(made, ignore_errors=True)  # a full disk needs the room back
    return size_of(run)


def _make(made: Path, base: Model, prepared: Prepared) -> None:
    """The lesson's run folder under a passing name."""
    engine = session.engine_of(prepared.plan)
    known = {
        "data": session.fingerprint(prepared.stream),
        "stream": describe(prepared.stream),
        **net_entry(prepared.plan.config, prepared.plan.net),
        taught.BASE: prepared.base,
    }
    runfolder.create_run(made, {**session.record(prepared.plan, engine), **known})
    taught.write(made, prepared.stream)
    setup = session.setup_of(made, prepared.plan, prepared.stream)
    first = _first(setup, base, engine)
    state.save(setup, first)
    first.metrics.close()


def _first(setup: Setup, base: Model, engine: Any) -> State:
    """The base's state, made to fit: the lesson's own before its first step."""
    net, memory, arrays = setup.plan.net, base.memory, dict(base.weights)
    assert memory is not None
    if net.classes > base.net.classes:
        arrays = dict(grown(net, arrays, np.random.default_rng([setup.config.seed, net.classes])))
        more = net.classes - base.net.classes
        memory = replace(memory, logits=np.pad(memory.logits, ((0, 0), (0, more))))
    still = {f"momentum.{k}": np.zeros(s, np.float32) for k, s in net.weights().items()}
    engine.load({**still, **arrays})
    kept = Reservoir.from_arrays(memory.arrays())
    own = State(
        state.random_from(base.state["rng"]), engine, Ledger(setup.meter.costs), Metrics.open(setup.run, 0),
        {k: v.copy() for k, v in base.live.items()}, kept, curate.new(0),
    )  # fmt: skip
    for name, layer in setup.layers.items():
        if name not in own.live or own.live[name].shape != layer.shape:
            raise ConfigError(f"net {net.name}: layer {name} is masked, and can't grow with the classifier")
    own.apply_masks(setup)
    return own


def finished(run: Path) -> bool:
    """Whether a lesson's newest snapshot is that of its end. Raises StoreError."""
    number = store.latest(run)
    if number is None:
        return False
    return bool(store.load(run, number).state["at"] >= len(schedule.epochs(recorded_config(run), [1])))


def forget_samples(run: Path) -> None:
    """Removes the samples of a lesson that is learned; it can then be opened, but not resumed or tested. Raises StoreError."""
    with files.naming(run / taught.FILE):
        (run / taught.FILE).unlink(missing_ok=True)
        files.sync(run)


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


ROOM = 64
"""A calibration is for a classifier of a multiple of so many classes, which takes next to no time: new ones need no other."""


def timed_like(base: Model) -> tuple[Config, Stream]:
    """What a calibration of this machine for lessons on `base` belongs to: measure.calibrate and measure.recall take it."""
    engine = {"name": "auto", "device": "cpu", "precision": "fp32", "storage": "fp32"}
    config = configs.merge(base.config, {"engine": engine, "device": "host", "budget": ""})
    if config.net.name in ZOO:
        config = config.set("net.capacity", ROOM * ceil(base.net.classes / ROOM))
    one = Samples(np.zeros((1, *base.card.input), np.uint8), np.zeros(1, np.int64), np.zeros(1, np.int64))
    groups = (tuple(range(len(base.card.classes))),)
    stream = Stream(base.stream["name"], base.card.classes, groups, (Task(0, groups[0], one),), (one,), base.card.preprocess)
    return session.with_engine(config), stream
