"""Time and memory budgets hold while a run runs: late epochs end early, every task keeps its share, a snapshot is left."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from run_cases import SPARCL, begun, events, planned, to_end

from edgecl import environment, holding, session
from edgecl.state import Setup, State
from edgecl.train import Stopped
from edgecl.types import BudgetError

NATIVE = "engine.name=native"


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves on by a second at every look: each step, and each change between epochs, takes one."""
    ticks = count()
    monkeypatch.setattr(holding.time, "perf_counter", lambda: float(next(ticks)))


def within(run: Path, seconds: float, *sets: str) -> tuple[Setup, State]:
    chosen, stream = planned(*sets)
    return session.begin(run, replace(chosen, config=chosen.config.set("budget", f"{seconds}s")), stream)


def whole(run: Path, *sets: str) -> float:
    """Seconds of the run without a budget."""
    setup, state = begun(run, *sets)
    to_end(setup, state)
    assert state.snapshots == len(setup.epochs)
    return state.spent


@pytest.mark.usefixtures("ticking")
@pytest.mark.parametrize("share", [0.95, 0.8, 0.7])
@pytest.mark.parametrize("sets", [(NATIVE,), (NATIVE, *SPARCL), (NATIVE, *SPARCL, "train.bias_correction=true")])
def test_a_late_run_ends_in_time_with_every_task_learned(tmp_path: Path, share: float, sets: tuple[str, ...]) -> None:
    limit = share * whole(tmp_path / "whole", *sets)
    setup, state = within(tmp_path / "run", limit, *sets)
    to_end(setup, state)
    assert state.spent <= limit
    assert state.spent > 0.6 * limit
    epochs = events(tmp_path / "run", "epoch")
    assert len(epochs) == len(setup.epochs)
    assert sum(e.get("skipped", 0) for e in epochs) > 0
    assert all(0 < e["loss"] < 5 and 0 <= e["right"] <= 1 for e in epochs)
    steps = [sum(setup.epochs[4 * t + i].steps - epochs[4 * t + i].get("skipped", 0) for i in range(4)) for t in (0, 1)]
    assert abs(steps[0] - steps[1]) <= 0.4 * max(steps)  # no task pays for the other
    assert len(state.accuracy) == 3


@pytest.mark.usefixtures("ticking")
def test_enough_time_changes_nothing(tmp_path: Path) -> None:
    took = whole(tmp_path / "whole", NATIVE)
    setup, state = within(tmp_path / "run", 2 * took, NATIVE)
    to_end(setup, state)
    left_out = len(setup.epochs) - state.snapshots
    assert state.spent == took - left_out
    assert 0 < left_out < len(setup.epochs) - 2  # a snapshot takes a second too, and each task's end has one
    assert state.saved_seconds <= 2 + 1 + holding.SAVING * state.spent
    assert not any("skipped" in e for e in events(tmp_path / "run", "epoch"))


@pytest.mark.usefixtures("ticking")
def test_far_too_little_time_stops_with_a_snapshot_and_stays_used_up(tmp_path: Path) -> None:
    setup, state = within(tmp_path / "run", 6, NATIVE)
    with pytest.raises(
        BudgetError,
        match=r"budget 6s is used up after 3\.00 s of training and 3\.00 s of tests and snapshots, "
        r"since the next step may take 1\.00 s; snapshot .* is whole",
    ):
        to_end(setup, state)
    assert state.seconds <= 6
    assert session.store.load(tmp_path / "run", state.snapshots).state["seconds"] == state.seconds


@pytest.mark.usefixtures("ticking")
def test_a_resumed_run_has_used_its_seconds(tmp_path: Path) -> None:
    limit = 0.7 * whole(tmp_path / "whole", NATIVE)
    setup, state = within(tmp_path / "run", limit, NATIVE)
    asked = iter([False] * 15 + [True])
    with pytest.raises(Stopped):
        to_end(setup, state, lambda: next(asked))
    before = state.seconds
    setup, state = session.resume(tmp_path / "run")
    assert state.seconds == before > 10
    assert state.tested_seconds > 0
    to_end(setup, state)
    assert before < state.seconds < state.spent <= limit


def test_memory_that_was_passed_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, stream = planned(NATIVE)
    config = chosen.config.set("budget", f"{environment.peak_rss() // 10**6 + 500}MB")
    setup, state = session.begin(tmp_path / "run", replace(chosen, config=config), stream)
    monkeypatch.setattr(environment, "peak_rss", lambda: 10**12 if state.ledger.executed else 0)
    with pytest.raises(BudgetError, match=r"this process has come to 1000000\.0 MB; snapshot .* is whole"):
        to_end(setup, state)
    assert (state.at, state.step) == (0, 1)


# ---- a whole process ----


def own_data(path: Path, per_class: int) -> Path:
    """Noise in the shape of CIFAR-10."""
    rng = np.random.default_rng(0)
    x = {k: rng.integers(0, 256, (2 * n, 3, 32, 32), dtype=np.uint8) for k, n in (("train", per_class), ("test", 8))}
    np.savez(path, **{f"x_{k}": v for k, v in x.items()}, **{f"y_{k}": np.arange(len(v)) % 2 for k, v in x.items()})
    return path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's VmHWM")
@pytest.mark.parametrize("extra", [(), ("--set", "mask.sparsity=0.8")])
def test_a_memory_budget_is_never_passed_by_the_process(tmp_path: Path, extra: tuple[str, ...]) -> None:
    data = own_data(tmp_path / "d.npz", 64)
    run = (sys.executable, "-m", "edgecl")
    args = ("--data", str(data), "--engine", "native", "--net", "resnet18", "--epochs", "1", "--set", "engine.threads=1", *extra)
    command = [*run, "train", *args, "--budget", "170MB", "--run", str(tmp_path / "run"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    shown = json.loads(done.stdout)
    assert shown["width"] > 0  # narrowed: the full net would not fit
    assert 0.5 * 170e6 < shown["peak_rss_bytes"] <= 170e6
    refused = subprocess.run([*run, "plan", *args, "--budget", "40MB"], capture_output=True, text=True, check=False, timeout=60)
    assert refused.returncode == 5
    assert "the nearest possible is" in refused.stderr
