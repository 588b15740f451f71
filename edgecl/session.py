"""Puts a run together: from a resolved configuration, or from a run folder, to what the loop takes."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgecl import environment, kernels, plan, runfolder, schedule, store, taught
from edgecl import state as states
from edgecl.budget import parse
from edgecl.config import Config
from edgecl.data import joint
from edgecl.engines import Engine, check_storage, make_engine, pick
from edgecl.forecast import Workload, meter_of, method_of, simulate
from edgecl.ledger import Ledger
from edgecl.metrics import summary
from edgecl.model import NET, begun_tasks, describe, net_entry, read_data, recorded_config
from edgecl.nets import Net, beside
from edgecl.plan import Device, Plan
from edgecl.profiles import Figure
from edgecl.state import Setup, State, fresh, restore
from edgecl.timing import Clock
from edgecl.types import ConfigError, DataError, StoreError, Stream


def workload(stream: Stream) -> Workload:
    """What a plan must know of a stream."""
    sizes, tests = tuple(len(t.train) for t in stream.tasks), tuple(map(len, stream.tests))
    return Workload(stream.shape, len(stream.class_names), sizes, tests=tests)


def read_stream(config: Config) -> Stream:
    """The configured stream, in tasks. Under a memory budget its pixels stay on the disk, as far as the data set can."""
    return read_data(config, lazy=parse(config.budget).memory is not None)


def make(config: Config, stream: Stream, pinned: Collection[str], clock: Clock | None = None) -> Plan:
    """The plan for a stream, with the engine's name settled, so that what is recorded says it; see plan.make_plan.

    Memory is reckoned from what this process holds now, the stream included.
    """
    config = with_engine(config)
    return plan.make_plan(config, workload(stream), pinned, device(config, clock))


def with_engine(config: Config) -> Config:
    """A copy in which `engine.name` is no longer auto. Raises ConfigError where that engine cannot store as it is told to."""
    name = pick(config.engine.name, config.engine.device, config.engine.precision).name
    check_storage(name, config.engine.storage)
    return config.set("engine.name", name)


def device(config: Config, clock: Clock | None) -> Device:
    """What a plan's time and memory are predicted from."""
    return Device(clock, _lanes() if config.engine.name == "native" else 0, environment.resident(), environment.peak_rss())


def _lanes() -> int:
    """Of the native kernels; 0 where they were not built."""
    try:
        return kernels.load().lanes
    except ConfigError:
        return 0


def begin(run: Path, chosen: Plan, stream: Stream, extra: Mapping[str, Any] | None = None) -> tuple[Setup, State]:
    """A new run in the folder `run`, which must hold no other; config.yaml holds `extra` too."""
    engine = engine_of(chosen)
    beside(chosen.config.net.name, chosen.net)  # weights that do not fit must leave no folder
    known = {"data": fingerprint(stream), "stream": describe(stream), **net_entry(chosen.config, chosen.net)}
    runfolder.create_run(run, {**record(chosen, engine), **known, **(extra or {})})
    setup = setup_of(run, chosen, stream)
    return setup, fresh(setup, engine)


def resume(run: Path) -> tuple[Setup, State]:
    """The run in `run`, from its newest snapshot.

    Raises DataError if the samples are not those that it began with, StoreError if the configuration is not. Where the
    machine or the versions differ, `train` yields a warning first: results then differ in the last bits from those of an
    unbroken run.
    """
    setup = _recorded(run)
    engine = engine_of(setup.plan)
    state = restore(setup, engine)
    state.warnings += _moved(runfolder.read_config(run).get("environment") or {}, _environment(engine))
    return setup, state


def check(run: Path) -> None:
    """Raises what `resume` does if it finds other samples or another configuration; nothing is changed."""
    setup, number = _recorded(run), store.latest(run)
    if number is not None:
        states.load(setup, number)


def _recorded(run: Path) -> Setup:
    """As config.yaml has it, on the samples that the run began with."""
    recorded = runfolder.read_config(run)
    config = recorded_config(run, recorded)
    stream = taught.read(run, recorded["stream"]) if taught.BASE in recorded else read_stream(config)
    _check_data(run, recorded.get("data"), stream)
    known = Device(power=_power(recorded), dense_seconds=(recorded.get("plan") or {}).get("dense_seconds"))
    work = workload(stream)
    if taught.BASE in recorded and NET in recorded:
        work = replace(work, net=Net.from_dict(recorded[NET]))
    return setup_of(run, plan.frozen(config, work, known), stream)


def _power(recorded: Mapping[str, Any]) -> Figure | None:
    """The watts that the run's energy is reckoned with, from its start to its end."""
    planned = recorded.get("plan") or {}
    watts = planned.get("watts")
    return None if watts is None else Figure(float(watts), "W", str(planned.get("watts_source", "")))


@dataclass(frozen=True)
class Opened:
    """A snapshot to look at: the run's files are only read."""

    setup: Setup
    engine: Engine
    number: int
    seen_groups: int  # groups of classes that training has begun with


def open_snapshot(run: Path, number: int | None = None) -> Opened:
    """The network of a snapshot, the newest if none is named. Raises as `resume` does, and StoreError where there is none."""
    setup = _recorded(run)
    number = store.latest(run) if number is None else number
    if number is None:
        raise StoreError(f"{run}: has no snapshot yet")
    engine = engine_of(setup.plan)
    snapshot = states.load(setup, number, engine)
    return Opened(setup, engine, number, _seen_groups(setup, snapshot.state["at"], snapshot.state["step"]))


def _seen_groups(setup: Setup, at: int, step: int) -> int:
    """Groups of classes whose training has begun, `step` steps into epoch `at` of the schedule."""
    begun = begun_tasks(setup.epochs, at, step)
    return len(setup.stream.groups) if setup.method.joint and begun else begun


def record(chosen: Plan, engine: Engine) -> dict[str, Any]:
    """What config.yaml holds: the configuration, what was planned and where."""
    return {
        "config": chosen.config.to_dict(),
        "plan": {
            "executed": chosen.ledger.executed,
            "dense_executed": chosen.dense.executed,
            "ratio": chosen.ratio,
            "seconds": chosen.seconds,
            "aside_seconds": chosen.aside_seconds,
            "dense_seconds": chosen.dense_seconds,
            "clock_held": chosen.clocked,
            "watts": chosen.power.value,
            "watts_source": chosen.power.source,
        },
        "environment": _environment(engine),
    }


def _environment(engine: Engine) -> dict[str, Any]:
    return {**environment.describe(), **engine.place()}


DECISIVE = ("threads", "isa", "accelerator", "cpu", "packages")
"""Parts of the environment that decide the last bits of a result."""


def _moved(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A warning, if the run goes on elsewhere than it began."""
    changes = [f"{key} {was[key]} → {now[key]}" for key in DECISIVE if key in was and was[key] != now[key]]
    text = f"the run goes on with {'; '.join(changes)}: it will not be bit-identical to an unbroken one"
    return [text] if changes else []


CHUNK = 256  # samples read at a time


def fingerprint(stream: Stream) -> dict[str, Any]:
    """What a resumed run checks its samples by."""
    splits = [*(task.train for task in stream.tasks), *stream.tests]
    crc = 0
    for split in splits:
        for start in range(0, len(split), CHUNK):  # pixels may lie on the disk
            crc = zlib.crc32(np.ascontiguousarray(split.x[start : start + CHUNK]).data, crc)
        for a in (split.y, split.ids):
            crc = zlib.crc32(np.ascontiguousarray(a).data, crc)
    return {"samples": [len(t.train) for t in stream.tasks], "tests": [len(t) for t in stream.tests], "crc32": f"{crc:08x}"}


def _check_data(run: Path, was: Mapping[str, Any] | None, stream: Stream) -> None:
    now = fingerprint(stream)
    changes = [f"{key} {was[key]} → {now[key]}" for key in now if was and was.get(key) != now[key]]
    if changes:
        raise DataError(f"{stream.name}: these are not the samples that {run} began with ({'; '.join(changes)})")


def setup_of(run: Path, chosen: Plan, stream: Stream) -> Setup:
    """What never changes in the run in `run`."""
    method = method_of(chosen.config)
    if method.joint:
        stream = joint(stream)
    epochs = schedule.epochs(chosen.config, [len(t.train) for t in stream.tasks])
    meter = meter_of(chosen.config, chosen.net)
    return Setup(run, chosen, stream, method, epochs, meter.layers, meter)


def engine_of(chosen: Plan) -> Engine:
    """The planned engine, its weights still zeros."""
    c = chosen.config
    name = with_engine(c).engine.name  # auto, where a recorded configuration has no name
    only_torch = {"deterministic": c.engine.deterministic} if name == "torch" else {}
    engine = make_engine(
        name,
        chosen.net,
        **only_torch,
        device=c.engine.device,
        threads=c.engine.threads,
        precision=c.engine.precision,
        storage=c.engine.storage,
        momentum=c.train.momentum,
        weight_decay=c.train.weight_decay,
    )
    engine.scores_dead = c.tdm.grow == "gradient"
    return engine


def result(setup: Setup, state: State) -> dict[str, Any]:
    """What a finished run, or one that stopped, has to show; also written as ledger.json and result.json."""
    dense = _dense_so_far(setup, state)
    ledger = state.ledger.report(dense)
    runfolder.write_json(setup.run, "ledger.json", ledger)
    shown = {
        "run": str(setup.run),
        "method": setup.method.name,
        "net": setup.plan.net.name,
        "width": setup.config.net.width,
        "sparsity": setup.config.mask.sparsity,
        "engine": setup.config.engine.name,
        "accuracy": state.accuracy,
        **_metrics(setup, state.accuracy),
        **{k: ledger[k] for k in ("executed", "paper", "dense_executed", "dense_paper", "ratio", "ratio_paper")},
        "seconds": state.seconds,
        "cpu_seconds": state.cpu_seconds,
        "test_seconds": state.tested_seconds,
        "snapshot_seconds": state.saved_seconds,
        "dense_seconds_predicted": _dense_seconds(setup, dense),
        "energy": _energy(setup, state),
        "peak_rss_bytes": environment.peak_rss(),
        "memory_bytes": state.memory.nbytes if state.memory else 0,
    }
    runfolder.write_json(setup.run, "result.json", shown)
    return shown


def _dense_seconds(setup: Setup, so_far: Ledger) -> float | None:
    """Of the baseline's training for the stream seen so far, as predicted for this machine where the run began."""
    whole, known = setup.plan.dense, setup.plan.dense_seconds is not None and setup.config.device == "host"
    return setup.plan.dense_seconds * so_far.executed / whole.executed if known and setup.plan.dense_seconds else None


def _energy(setup: Setup, state: State) -> dict[str, Any] | None:
    """Joules of the run on this machine: seconds times watts, an estimate; None where the run is for another device."""
    power = setup.plan.power
    if setup.config.device != "host" or power.value is None:
        return None
    of = "an estimate: time of training, tests and snapshots × watts"
    return {"joules": state.spent * power.value, "watts": power.value, "of": of, "source": power.source}


def _dense_so_far(setup: Setup, state: State) -> Ledger:
    """The baseline's ledger for the stream seen so far: all epochs that are done, and as large a share of the one begun."""
    base, work = plan.baseline(setup.config), setup.plan.work
    net = plan.build(base, work)
    dense = simulate(base, net, work, state.at)
    if state.step:
        begun, steps = simulate(base, net, work, state.at + 1), setup.epochs[state.at].steps
        table, paper = begun.table - dense.table, begun.paper - dense.paper
        dense.add_step(table * state.step // steps, paper * state.step // steps)
    return dense


def _metrics(setup: Setup, accuracy: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of the groups learned so far; all None before the first task's end."""
    learned = len(accuracy) - 1
    if learned < 1:
        return dict.fromkeys(summary([[0.0]] * 2, [[0.0]] * 2))
    before = setup.stream.before
    if before and len(setup.stream.groups) > before:  # what came before counts as a task: its best is that of the first row
        nothing = {k: [None] * len(setup.stream.groups) for k in ("class_il", "task_il")}
        accuracy = [*[nothing] * before, *accuracy]
    groups = None if setup.method.joint else learned + before
    return dict(summary(*([row[k][:groups] for row in accuracy] for k in ("class_il", "task_il"))))
