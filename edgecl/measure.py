"""F5: what this machine really does: whole training steps timed at a handful of widths and sparsities, and kept in a cache.

A calibration belongs to a processor, an instruction set, a number of threads, an engine, a net and a method's passes.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

import edgecl
from edgecl import environment, files, kernels, plan, schedule, session
from edgecl.config import Config
from edgecl.forecast import method_of
from edgecl.layout import live_weights, updated_weights
from edgecl.nets import full_width
from edgecl.profiles import usable_cores
from edgecl.state import Setup, State, save
from edgecl.step import train_step
from edgecl.timing import F64, Clock, Counter, as_plain, fit, from_plain, held_out, skips, snapshot_bytes
from edgecl.train import Progress, draw_batch, train
from edgecl.types import ConfigError, Samples, Stream, Task

POINTS: tuple[tuple[float, float, float, str], ...] = (
    (0.125, 0.0, 1.0, "fp32"),
    (0.125, 0.75, 1.0, "fp32"),
    (0.3125, 0.75, 0.5, "fp32"),
    (0.25, 0.0, 1.0, "fp32"),
    (0.25, 0.9, 1.0, "fp32"),
    (0.3125, 0.75, 0.5, "fp16"),
    (0.5, 0.9, 0.5, "fp32"),
    (1.0, 0.0, 0.5, "fp32"),
    (1.0, 0.95, 0.5, "fp32"),
    (0.3125, 0.75, 1.0, "fp32"),
    (0.5, 0.9, 0.5, "fp16"),
    (0.75, 0.9, 1.0, "fp32"),
    (0.5, 0.0, 0.5, "fp32"),
    (0.5, 0.75, 1.0, "fp32"),
)
"""(share of the full width, masked share, share of the batch, storage): what tells the prices apart comes first."""

LONGEST = 18.0  # seconds after which no further point is begun
ENOUGH = 6  # points that are measured however long they take
ROUNDS = 3  # of steps that gather, at points that are not slow: the middle one counts
QUICK = 3  # this point's step is small, and yet sparse and out of the nearest cache: the machine's pace is told by it
EVERY = 3  # steps between those that gather gradients

Now = Callable[[], float]


@dataclass(frozen=True)
class Timing:
    """Measured steps of one configuration: seconds, and the work that was counted for them."""

    config: Config
    gather: bool
    seconds: float
    work: F64


def calibrate(config: Config, stream: Stream, say: Callable[[int, int], None], now: Now | None = None) -> Clock:
    """Times steps of the configured net, method and engine on samples like `stream`'s; `say` hears (done, of) after each point.

    Begins no point after about `LONGEST` seconds. The clock's error is the median over steps, each predicted from all others.
    Seconds are of the processor where one thread computes, which other processes disturb least; else those on the wall.
    """
    now = now or (time.process_time if threads(config) == 1 else time.perf_counter)
    began, joules, timings, upkeep, found = time.perf_counter(), meter(), list[Timing](), list[float](), points(config)
    pace = Pace(found[min(QUICK, len(found)) - 1], stream, now)
    for i, point in enumerate(found):
        if i >= ENOUGH and time.perf_counter() - began > LONGEST:
            break
        slow = not point.mask.sparsity and i >= ENOUGH
        measured, change = time_steps(point, stream, now, 1 if slow else ROUNDS, pace)
        timings += measured
        upkeep += [change] if change is not None else []
        say(i + 1, len(found))
    best = pace.best()
    rows, seconds = [t.work for t in timings], [best * t.seconds for t in timings]
    error = statistics.median(map(abs, held_out(rows, seconds)))
    change = best * statistics.median(upkeep) if upkeep else 0.0
    drawn, took = meter(), time.perf_counter() - began
    watts = (drawn - joules) / took if joules is not None and drawn is not None and drawn > joules else None
    return Clock(fit(rows, seconds), lanes(config), change, pace.snapshot, watts, source(config), True, error)


class Pace:
    """How fast the machine is at a moment: one step, always the same, timed between all others.

    A processor that other jobs share is slower for minutes at a time, in its own seconds too. A step's time over that of
    this one just before and after it stays the same.
    """

    def __init__(self, config: Config, stream: Stream, now: Now) -> None:
        self.now, self.seen = now, list[float]()
        stream = _made_up(stream, config.train.batch)
        with tempfile.TemporaryDirectory() as folder:
            setup, state = session.begin(Path(folder) / "run", plan.frozen(config, session.workload(stream)), stream)
            batch = draw_batch(setup, state, setup.epochs[0], np.arange(config.train.batch))
            save(setup, state)  # the first one warms up
            state.saved_seconds = 0.0
            save(setup, state)
            self.snapshot = state.saved_seconds / snapshot_bytes(config, setup.plan.net)  # seconds a byte
            state.metrics.close()
        step = partial(train_step, state.engine, setup.method, stream.preprocess, False)
        self.step = partial(state.engine.compile(step), batch)
        self()
        self.seen.clear()  # the first one warms up

    def __call__(self) -> float:
        """Seconds of the step now."""
        began = self.now()
        self.step()
        self.seen.append(self.now() - began)
        return self.seen[-1]

    def best(self) -> float:
        """Seconds of the step on the machine undisturbed: a tenth were quicker."""
        return sorted(self.seen)[len(self.seen) // 10]


METER = Path("/sys/class/powercap")


def meter() -> float | None:
    """Joules that the processor packages have drawn since some moment (RAPL), None where that can't be read."""
    try:
        packages = [p for p in METER.iterdir() if re.fullmatch(r"intel-rapl:[0-9]+", p.name)]
        return sum(int((p / "energy_uj").read_text()) for p in packages) / 1e6 if packages else None
    except (OSError, ValueError):
        return None


def source(config: Config) -> str:
    """How a measured clock's prices are introduced."""
    return f"measured here ({environment.cpu_name()}, engine {config.engine.name}, threads {threads(config)})"


def threads(config: Config) -> int:
    """Threads that the engine takes."""
    return config.engine.threads or usable_cores()


def lanes(config: Config) -> int:
    """Samples that the engine always computes together."""
    return kernels.load().lanes if config.engine.name == "native" else 1


def points(config: Config) -> list[Config]:
    """Configurations to time: a net without a width of its own keeps it, and an engine that skips nothing masks nothing."""
    full, found = full_width(config.net.name), list[Config]()
    for key, value in PLAIN.items():
        config = config.set(key, value)
    for width, sparsity, share, storage in POINTS:
        one = config.set("net.width", max(4, round(full * width)) if full else 0)
        one = one.set("mask.sparsity", sparsity if skips(config) else 0.0)
        one = one.set("train.batch", max(2, round(config.train.batch * share)))
        one = one.set("memory.batch", round(config.memory.batch * share))
        one = one.set("engine.storage", storage if config.engine.name == "native" else "fp32")
        if one not in found:
            found.append(one)
    return found


PLAIN: dict[str, Any] = {
    "budget": "",
    "device": "host",
    "train.epochs": 1,
    "train.rate": 1e-4,
    "ddr.share": 0.0,
    "dgm.share": 0.8,
    "dgm.every": EVERY,
    "freeze.until": "",
    "tdm.enabled": True,
    "tdm.steps": 1,
}
"""What all points share: every third step gathers gradients, and the masks change after the last."""


def time_steps(
    config: Config, stream: Stream, now: Now = time.perf_counter, rounds: int = 1, pace: Callable[[], float] = lambda: 1.0
) -> tuple[list[Timing], float | None]:
    """The middle plain and gathering step of one configuration, and the seconds of a change of masks, a masked weight.

    All in multiples of what `pace` was before and after. A real run of one epoch, on made-up pixels, in a folder that is
    removed again: all that a step takes is in it.
    """
    stream = _made_up(stream, (rounds * EVERY + 1) * config.train.batch)
    with tempfile.TemporaryDirectory() as folder:
        setup, state = session.begin(Path(folder) / "run", plan.frozen(config, session.workload(stream)), stream)
        took, change = _watched(setup, state, now, pace)
        state.metrics.close()
    counter, layers = Counter(config, setup.plan.net, lanes(config)), setup.layers
    live = live_weights(counter.costs, layers, True)  # the only epoch has its masks expanded
    updated = updated_weights(counter.costs, layers, True, config.dgm.share)
    found = [Timing(config, g, statistics.median(s), counter.step(live, updated, gather=g)) for g, s in took.items() if s]
    return found, change / sum(prod(v.weight_shape) for v in layers.values()) if layers else None


def _watched(setup: Setup, state: State, now: Now, pace: Callable[[], float]) -> tuple[dict[bool, list[float]], float]:
    """Seconds of the first epoch's steps, whether they gather → each but the first, which warms up; and of the change after."""
    took: dict[bool, list[float]] = {False: [], True: []}
    events, step, ended, before = train(setup, state), 0, False, pace()
    while True:
        began = now()
        event = next(events)
        seconds, after = now() - began, pace()
        seconds, before = seconds / ((before + after) / 2), after
        if ended:
            return took, seconds
        if isinstance(event, Progress):
            if step:
                took[bool(setup.layers) and schedule.gathers(setup.config, setup.epochs[0], step)].append(seconds)
            step += 1
        ended = isinstance(event, dict) and event["event"] == "epoch"


def _made_up(like: Stream, samples: int) -> Stream:
    """One task of all classes; a sample of each class for the test."""
    rng, count = np.random.default_rng(0), len(like.class_names)

    def split(n: int) -> Samples:
        x = rng.integers(0, 256, (n, *like.shape), dtype=np.uint8)
        return Samples(x, np.arange(n, dtype=np.int64) % count, np.arange(n, dtype=np.int64))

    classes = tuple(range(count))
    return replace(like, groups=(classes,), tasks=(Task(0, classes, split(samples)),), tests=(split(count),))


# the cache


def key(config: Config, stream: Stream) -> dict[str, Any]:
    """What a calibration belongs to."""
    dense = plan.baseline(config)
    base = plan.build(dense, session.workload(stream))
    return {
        "cpu": environment.cpu_name(),
        "isa": _isa(config),
        "threads": threads(config),
        "edgecl": edgecl.__version__,
        "engine": {k: v for k, v in vars(config.engine).items() if k not in ("threads", "storage")},
        "net": f"{config.net.name} {zlib.crc32(repr(base).encode()):08x}",
        "passes": [list(p.parts) for p in method_of(dense).passes()],
        "format": 3,
    }


def _isa(config: Config) -> str:
    """Of the engine's kernels; the machine's where it has none, or they were not built."""
    try:
        return kernels.load().isa if config.engine.name == "native" else platform.machine()
    except ConfigError:
        return platform.machine()


def cache_file(wanted: Mapping[str, Any]) -> Path:
    """Below $XDG_CACHE_HOME, else ~/.cache."""
    name = f"{zlib.crc32(json.dumps(wanted, sort_keys=True).encode()):08x}.json"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "edgecl" / "calibrations" / name


def recall(config: Config, stream: Stream) -> Clock | None:
    """The calibration kept for this configuration on this machine; None where there is none, or it can't be read."""
    wanted = key(config, stream)
    try:
        kept = json.loads(cache_file(wanted).read_text(encoding="utf-8"))
        return from_plain(kept["clock"]) if kept["key"] == wanted else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(config: Config, stream: Stream, clock: Clock) -> Path:
    """Writes a calibration for `recall`, whole or not at all. Raises StoreError."""
    wanted = key(config, stream)
    path = cache_file(wanted)
    kept = {"key": wanted, "date": time.strftime("%Y-%m-%d", time.gmtime()), "clock": as_plain(clock)}
    with files.naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomic(path, (json.dumps(kept, indent=1) + "\n").encode())
    return path
