"""All that a run is: what never changes (Setup) and what does (State), and the way between State and a snapshot."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edgecl import curate, masks, store
from edgecl.config import Config, leaves
from edgecl.curate import Learning
from edgecl.engines import Engine
from edgecl.forecast import Meter, shares
from edgecl.layout import MaskedLayer
from edgecl.ledger import Ledger
from edgecl.memory import Reservoir
from edgecl.methods import Method
from edgecl.nets import starting, weights_file
from edgecl.plan import Plan
from edgecl.runfolder import CONFIG, Metrics
from edgecl.schedule import Epoch, saves, test_sizes
from edgecl.types import F32, I64, Array, Bools, StoreError, Stream

RESERVE = 0.04
"""Share of a time budget that is kept for what can't be skipped after an epoch's time is up."""


@dataclass(frozen=True)
class Setup:
    """Fixed for a run's whole life."""

    run: Path
    plan: Plan
    stream: Stream  # joint methods get theirs merged
    method: Method
    epochs: list[Epoch]
    layers: dict[str, MaskedLayer]
    meter: Meter

    @property
    def config(self) -> Config:
        return self.plan.config

    @cached_property
    def shares(self) -> list[float]:
        """By epoch of the schedule: the share of all training that should be done at its end."""
        return shares(self.config, self.plan.net, [len(t.train) for t in self.stream.tasks])

    @cached_property
    def tests(self) -> list[int]:
        """Samples of each test of the run."""
        return test_sizes([len(t) for t in self.stream.tests], joint=self.method.joint)

    @cached_property
    def saves(self) -> list[bool]:
        """By epoch of the schedule: whether a snapshot follows it."""
        return [saves(self.config, e) for e in self.epochs]

    @property
    def classes(self) -> int:
        """The classifier's capacity, K."""
        return self.plan.net.classes

    def task_mask(self, task: int) -> F32:
        """[K]: 1 for the task's classes."""
        return self._mask(self.stream.tasks[task].classes)

    def seen_mask(self, task: int) -> F32:
        """[K]: 1 for the classes known before the first task, and those of all tasks up to this one."""
        known = tuple(c for group in self.stream.groups[: self.stream.before] for c in group)
        return self._mask(known + tuple(c for t in self.stream.tasks[: task + 1] for c in t.classes))

    def _mask(self, classes: tuple[int, ...]) -> F32:
        mask = np.zeros(self.classes, np.float32)
        mask[list(classes)] = 1
        return mask


@dataclass
class State:
    """Everything that training changes."""

    rng: np.random.Generator  # the one source of randomness
    engine: Engine
    ledger: Ledger
    metrics: Metrics
    live: dict[str, Bools]  # weight masks by layer, in unit shape
    memory: Reservoir | None  # None where the method replays nothing
    learning: Learning
    at: int = 0  # index of the current epoch in the schedule
    step: int = 0  # done in it
    order: I64 = field(default_factory=lambda: np.zeros(0, np.int64))  # its samples; empty between epochs
    loss: float = 0.0  # sums over the epoch's steps so far
    right: int = 0
    gathered: int = 0  # steps in the engine's gradient sums
    averaged: int = 0  # weights in the task's mean
    mean: dict[str, F32] = field(default_factory=dict)  # of the task's last weights and statistics, by name
    skipped: int = 0  # steps of the current epoch that a time budget left out
    seconds: float = 0.0  # of training: its steps, and the changes of masks and data between them
    cpu_seconds: float = 0.0  # the processor's in that time, all threads together
    tested_seconds: float = 0.0  # of tests, on the wall
    saved_seconds: float = 0.0  # of snapshots; one does not know its own
    latest: float = 0.0  # of the seconds on the wall, the last step's or change's; not stored
    snapshots: int = 0  # number of the newest
    saved: float = 0.0  # seconds of training at that one; not stored
    accuracy: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)  # for the loop to note before it goes on
    chosen: dict[str, Array] = field(default_factory=dict)  # gradient masks, on the engine; empty: all live units
    _prices: dict[tuple[bool, bool], tuple[I64, int]] = field(default_factory=dict)

    @property
    def spent(self) -> float:
        """Seconds of training, tests and snapshots."""
        return self.seconds + self.tested_seconds + self.saved_seconds

    def note(self, event: dict[str, Any]) -> dict[str, Any]:
        """Appends an event to metrics.jsonl, with the time so far, and returns it."""
        event = {**event, "seconds": round(self.seconds, 3), "cpu_seconds": round(self.cpu_seconds, 3)}
        self.metrics.write(event)
        return event

    def apply_masks(self, setup: Setup) -> None:
        """Hands changed weight masks to the engine; gradient masks start anew."""
        if setup.layers:
            self.engine.set_masks(self.live, {k: v.unit for k, v in setup.layers.items()})
        self.chosen, self._prices = {}, {}

    def live_weights(self, setup: Setup) -> dict[str, int]:
        """Layer → weights that take part, counted in the masks."""
        return {c.name: self._count(setup, c.name, c.weights, self.live) for c in setup.meter.costs}

    def _count(self, setup: Setup, name: str, dense: int, units: dict[str, Bools]) -> int:
        if name not in setup.layers:
            return dense
        layer = setup.layers[name]
        return int(np.count_nonzero(masks.expand(units[name], layer.unit, layer.weight_shape)))

    def price(self, setup: Setup, gather: bool) -> tuple[I64, int]:
        """(table, paper) of a step of the current epoch with the masks as they are."""
        frozen = setup.epochs[self.at].frozen
        if (gather, frozen) not in self._prices:
            live = self.live_weights(setup)
            share = setup.config.dgm.share
            updated = {
                k: setup.layers[k].weights(setup.layers[k].updated(int(self.live[k].sum()), share)) if k in setup.layers else v
                for k, v in live.items()
            }
            updated = {k: min(v, live[k]) for k, v in updated.items()}
            self._prices[gather, frozen] = setup.meter.step(live, updated, gather=gather, frozen=frozen)
        return self._prices[gather, frozen]

    def last_good(self, run: Path) -> str:
        """For an error message: where to go on from."""
        return f"last good snapshot: {run / 'snapshots' / f'{self.snapshots:03d}'}" if self.snapshots else "no snapshot yet"


def fresh(setup: Setup, engine: Engine) -> State:
    """The state before the first step."""
    rng = np.random.default_rng(setup.config.seed)
    momentum = {f"momentum.{k}": np.zeros(s, np.float32) for k, s in setup.plan.net.weights().items()}
    engine.load({**momentum, **starting(setup.config.net.name, setup.plan.net, rng)})
    shapes = {k: v.shape for k, v in setup.layers.items()}
    live = masks.start(rng, {k: v.live for k, v in setup.layers.items()}, shapes)
    if weights_file(setup.config.net.name):
        live = {k: _strongest(engine, layer) for k, layer in setup.layers.items()}
    memory = None
    if setup.method.draws:
        memory = Reservoir.empty(setup.config.memory.capacity, setup.stream.shape, setup.classes)
    ledger = Ledger(setup.meter.costs)
    state = State(rng, engine, ledger, Metrics.open(setup.run, 0), live, memory, curate.new(0))
    state.apply_masks(setup)
    return state


def _strongest(engine: Engine, layer: MaskedLayer) -> Bools:
    """The units of the largest mean |w|: where weights were learned before, a random mask would throw the best away."""
    score = engine.numpy(masks.unit_scores(abs(engine.weight(layer.name)), layer.unit))
    return masks.grow(np.zeros(layer.shape, np.bool_), layer.live, score=score)


def save(setup: Setup, state: State) -> Path:
    """Writes the next snapshot; returns its folder."""
    began = time.perf_counter()
    state.metrics.sync()
    learning = {f"learning.{k}": v for k, v in state.learning._asdict().items()}
    memory = {f"memory.{k}": v for k, v in _kept(setup, state).items()}
    live = {f"live.{k}": v for k, v in state.live.items()}
    chosen = {f"chosen.{k}": state.engine.numpy(v) for k, v in state.chosen.items()}
    mean = {f"mean.{k}": v for k, v in state.mean.items()}
    arrays = {**learning, **memory, **mean, "order": state.order}
    counters = {k: getattr(state, k) for k in (*COUNTERS, *LATER)}
    plain = {
        **counters,
        "rng": state.rng.bit_generator.state,
        "ledger": state.ledger.state(),
        "accuracy": state.accuracy,
        "metrics_offset": state.metrics.offset,
        "config": setup.config.to_dict(),
    }
    snapshot = store.Snapshot(dict(state.engine.held()), {**live, **chosen}, arrays, plain)
    path = store.save(setup.run, state.snapshots + 1, snapshot)
    state.snapshots, state.saved = state.snapshots + 1, state.seconds
    state.saved_seconds += time.perf_counter() - began
    return path


def _kept(setup: Setup, state: State) -> dict[str, Any]:
    """The replay memory's arrays; none where the method has no memory."""
    return state.memory.arrays(compress=setup.config.memory.compress) if state.memory else {}


PLAIN = ("rng", "ledger", "accuracy", "metrics_offset")
ELSEWHERE = ("device", "data.name", "data.root")  # may change: predictions, and where samples lie (a fingerprint checks them)
LATER = ("skipped", "averaged", "cpu_seconds", "tested_seconds", "saved_seconds")  # absent in older snapshots: 0
COUNTERS = ("at", "step", "loss", "right", "gathered", "seconds")


def restore(setup: Setup, engine: Engine) -> State:
    """The state of the newest snapshot, or the fresh one where there is none."""
    number = store.latest(setup.run)
    if number is None:
        return fresh(setup, engine)
    snapshot = load(setup, number, engine)
    plain = snapshot.state
    state = State(
        random_from(plain["rng"]),
        engine,
        Ledger(setup.meter.costs),
        Metrics.open(setup.run, plain["metrics_offset"]),
        _under("live.", snapshot.masks),
        Reservoir.from_arrays(_under("memory.", snapshot.memory)) if setup.method.draws else None,
        Learning(**_under("learning.", snapshot.memory)),
        order=snapshot.memory["order"],
        snapshots=number,
        accuracy=plain["accuracy"],
        mean=_under("mean.", snapshot.memory),
        **{k: plain.get(k, 0) for k in LATER},
        **{k: plain[k] for k in COUNTERS},
    )
    state.saved = state.seconds
    state.ledger.restore(plain["ledger"])
    state.apply_masks(setup)
    state.chosen = {k: engine.asarray(v) for k, v in _under("chosen.", snapshot.masks).items()}
    engine.set_gradient_masks(state.chosen)
    return state


def load(setup: Setup, number: int, engine: Engine | None = None) -> store.Snapshot:
    """A snapshot that belongs to this run, its weights handed to the engine. Raises StoreError."""
    snapshot, where = store.load(setup.run, number), f"{setup.run}/snapshots/{number:03d}"
    _check_config(setup, where, snapshot.state.get("config", {}))
    _check(setup, where, snapshot)
    try:
        if engine is not None:
            engine.load(snapshot.weights)
    except StoreError as e:
        raise StoreError(f"{where}: {e}") from None
    return snapshot


def _check_config(setup: Setup, where: str, was: Mapping[str, Any]) -> None:
    """Raises StoreError that names the first key in which the run's configuration is no longer the snapshot's."""
    now = dict(leaves(setup.config.to_dict()))
    for key, value in leaves(was):
        if now.get(key) != value and key not in ELSEWHERE:
            raise StoreError(f"{setup.run / CONFIG}: {key} is {now.get(key)!r}, but {where} was trained with {value!r}")


def _check(setup: Setup, where: str, snapshot: store.Snapshot) -> None:
    """Raises StoreError that names what in a whole snapshot does not belong to this run."""
    live = _under("live.", snapshot.masks)
    for name in {**setup.layers, **live}:
        shape = live[name].shape if name in live else "missing"
        wanted = setup.layers[name].shape if name in setup.layers else "not masked"
        if shape != wanted:
            raise StoreError(f"{where}: mask of layer {name} is {shape}, but the configuration has it {wanted}")
    names = set(snapshot.memory) | set(snapshot.state)
    memory = [f"memory.{k}" for k in ("y", "ids", "logits", "seen")] if setup.method.draws else []
    for key in (*memory, *(f"learning.{k}" for k in Learning._fields), "order", *COUNTERS, *PLAIN):
        if key not in names:
            raise StoreError(f"{where}: no {key!r}, which method {setup.method.name} goes on with")


def _under(prefix: str, arrays: dict[str, Any]) -> dict[str, Any]:
    return {k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)}


def random_from(state: dict[str, Any]) -> np.random.Generator:
    """A generator that goes on where a snapshot's `rng` was."""
    rng = np.random.default_rng()
    rng.bit_generator.state = state
    return rng
