"""Runs on a few digits, seconds long, for the tests of the loop."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgecl import config as configs
from edgecl import masks, session, store
from edgecl.config import Config
from edgecl.plan import Plan
from edgecl.state import Setup, State
from edgecl.train import Progress, Testing, train
from edgecl.types import Stream

SMALL = (
    "data={name: digits, samples_per_class: 20, classes_per_task: 5}",
    "net={name: small_cnn, width: 8}",
    "train={epochs: 4, batch: 16, rate: 0.05}",
    "memory.capacity=30",
    "tdm.steps=3",
    "engine.threads=1",
)
"""Two tasks of 100 samples, 6 steps an epoch."""

SPARCL = (
    "mask.sparsity=0.7",
    "tdm.expand=0.05",
    "tdm.swap=0.05",
    "tdm.every=0.25",
    "ddr.share=0.3",
    "dgm={share: 0.6, every: 4}",
)
"""All parts of SparCL on."""


TIMES = ("seconds", "cpu_seconds", "tested_seconds", "saved_seconds")
"""What no two runs have alike."""


@cache
def digits(classes_per_task: int, samples_per_class: int, tasks: int = 0) -> Stream:
    return session.read_stream(configs.resolve("digits", [{"data": locals()}]))


def configured(*sets: str) -> Config:
    return configs.resolve("digits", [configs.parse_set(s)[1] for s in (*SMALL, *sets)])


def planned(*sets: str) -> tuple[Plan, Stream]:
    config = configured(*sets)
    stream = digits(config.data.classes_per_task, config.data.samples_per_class, config.data.tasks)
    return session.make(config, stream, {configs.parse_set(s)[0] for s in sets}), stream


def begun(run: Path, *sets: str) -> tuple[Setup, State]:
    torch.set_num_threads(1)
    return session.begin(run, *planned(*sets))


def finished(run: Path, *sets: str) -> tuple[Setup, State]:
    setup, state = begun(run, *sets)
    to_end(setup, state)
    return setup, state


def to_end(setup: Setup, state: State, stopping: Callable[[], bool] = lambda: False) -> list[dict[str, Any]]:
    """Trains, and returns the events."""
    return [e for e in train(setup, state, stopping) if not isinstance(e, (Progress, Testing))]


def ticks(setup: Setup, state: State) -> Iterator[Progress]:
    """Trains, and yields after every step."""
    return (e for e in train(setup, state) if isinstance(e, Progress))


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    """From metrics.jsonl."""
    return [e for e in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if e["event"] == kind]


def live_weights(setup: Setup, state: State) -> dict[str, np.ndarray]:
    """Masks in their weights' shapes."""
    return {k: masks.expand(state.live[k], v.unit, v.weight_shape) for k, v in setup.layers.items()}


def remains(run: Path, setup: Setup, state: State) -> dict[str, Any]:
    """All that a finished run leaves, wall times aside."""
    session.result(setup, state)
    return left_in(run)


def left_in(run: Path) -> dict[str, Any]:
    """As bytes and plain values, from a folder that has its ledger.json."""
    folder = run / "snapshots" / f"{store.latest(run):03d}"
    plain = json.loads((folder / "state.json").read_text())["state"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        **{part: (folder / part).read_bytes() for part in store.PARTS},
        "state": {k: v for k, v in plain.items() if k not in (*TIMES, "metrics_offset")},
        "metrics": [{k: v for k, v in line.items() if k not in TIMES} for line in lines],
        "ledger": (run / "ledger.json").read_bytes(),
    }
