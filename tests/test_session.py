"""Putting a run together: what config.yaml records, what a result shows, and what can not be begun or resumed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from run_cases import SPARCL, begun, configured, digits, finished, planned, ticks, to_end

from edgecl import __version__, kernels, runfolder, session
from edgecl.model import recorded_config
from edgecl.types import ConfigError, DataError, StoreError

# ---- config.yaml ----


def recorded(run: Path) -> dict[str, Any]:
    return yaml.safe_load((run / "config.yaml").read_text())


def test_the_record(tmp_path: Path) -> None:
    setup, state = begun(tmp_path / "run", *SPARCL)
    said = recorded(tmp_path / "run")
    assert said["config"] == setup.config.to_dict()
    assert said["config"]["method"] == {
        "name": "derpp",
        "alpha": 0.1,
        "beta": 0.5,
        "class_mask": "task",
        "forward": "separate",
        "draws": 2,
    }
    assert said["config"]["engine"]["name"] == "native"  # never auto
    assert said["plan"]["executed"] == setup.plan.ledger.executed
    assert said["environment"]["edgecl"] == __version__
    place = {"threads": 1, "isa": kernels.load().isa, "accelerator": None}
    assert {k: said["environment"][k] for k in place} == place == state.engine.place()
    assert said["data"]["samples"] == [100, 100]


def test_the_plan_is_frozen(tmp_path: Path) -> None:
    setup, _ = begun(tmp_path / "run", "budget=9x", "seed=7")
    again, _ = session.resume(tmp_path / "run")
    assert again.config == setup.config
    assert (again.plan.limit, again.plan.net, again.epochs) == (setup.plan.limit, setup.plan.net, setup.epochs)
    assert again.plan.ledger.state() == setup.plan.ledger.state()
    assert recorded_config(tmp_path / "run") == setup.config


def test_more_can_be_recorded(tmp_path: Path) -> None:
    session.begin(tmp_path / "run", *planned(), {"compare": "dense"})
    assert recorded(tmp_path / "run")["compare"] == "dense"


def test_fingerprints_tell_samples_apart() -> None:
    same = [session.fingerprint(session.read_stream(configured())) for _ in range(2)]
    assert same[0] == same[1]
    assert same[0]["crc32"] != session.fingerprint(digits(5, 19))["crc32"]
    assert session.fingerprint(digits(2, 20))["samples"] == [40] * 5


# ---- what can not be ----


def test_a_folder_that_holds_a_run(tmp_path: Path) -> None:
    begun(tmp_path / "run")
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    with pytest.raises(StoreError, match="holds a run already; resume it, or name another folder"):
        begun(tmp_path / "run", "seed=1")
    assert (tmp_path / "run" / "config.yaml").read_bytes() == before


def test_an_engine_that_does_not_run_here_leaves_no_folder(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(ConfigError, match=r"engine\.device: cuda, but torch finds no GPU here"):
        begun(tmp_path / "run", "engine.device=cuda")
    with pytest.raises(ConfigError, match=r"engine\.name: unknown engine 'tensorflow'; known: torch"):
        begun(tmp_path / "run", "engine.name=tensorflow")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plan: {}\n", "config.yaml: holds no 'config'"),
        ("config: [1]\n", r"config.yaml: configuration: expected keys and values, got \[1\]"),
        ("config: {mask: {sparcity: 0.5}}\n", "config.yaml: unknown key 'mask.sparcity'; did you mean 'mask.sparsity'?"),
    ],
)
def test_a_record_that_no_run_wrote(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises((StoreError, ConfigError), match=said):
        session.resume(tmp_path)


def test_a_folder_that_holds_no_run(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"is no run folder \(no config.yaml\)"):
        session.resume(tmp_path)


def test_a_record_without_an_environment_is_no_fault(tmp_path: Path) -> None:
    setup, _ = begun(tmp_path / "run", "train.epochs=1")
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump({"config": setup.config.to_dict()}))
    assert session.resume(tmp_path / "run")[1].warnings == []


def test_other_versions_are_said(tmp_path: Path) -> None:
    run = tmp_path / "run"
    begun(run)
    changed = recorded(run)
    changed["environment"] |= {"cpu": "a slower one", "cores": 99, "python": "3.8", "commit": "0"}
    (run / "config.yaml").write_text(yaml.safe_dump(changed))
    (text,) = session.resume(run)[1].warnings
    assert text.startswith("the run goes on with cpu a slower one → ")
    assert "cores" not in text


# ---- the result ----

RESULT = {"run", "method", "net", "width", "sparsity", "accuracy", "seconds", "peak_rss_bytes", "memory_bytes"}
METRICS = {"class_il_accuracy", "task_il_accuracy", "class_il_forgetting", "class_il_bwt", "task_il_fwt"}


def test_a_finished_run(tmp_path: Path) -> None:
    setup, state = finished(tmp_path / "run", *SPARCL)
    shown = session.result(setup, state)
    assert set(shown) >= RESULT | METRICS
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == shown
    ledger = json.loads((tmp_path / "run" / "ledger.json").read_text())
    assert set(ledger) >= {"executed", "paper", "dense_executed", "dense_paper", "ratio"}
    assert ledger["executed"] == setup.plan.ledger.executed == shown["executed"]
    assert ledger["dense_executed"] == setup.plan.dense.executed
    assert ledger["ratio"] == setup.plan.ratio == shown["ratio"]
    assert shown["memory_bytes"] == 30 * (64 + 8 + 8 + 4 * 10)
    assert shown["peak_rss_bytes"] > 1e7
    assert runfolder.read_metrics(tmp_path / "run")[-1]["event"] == "end"


def test_the_dense_run_has_ratio_1(tmp_path: Path) -> None:
    assert session.result(*finished(tmp_path / "run", "train.epochs=1", "net.width=0"))["ratio"] == 1


@pytest.mark.parametrize("method", ["er", "joint"])
@pytest.mark.parametrize("step", [0, 1, 8, 24, 29, 40])
def test_a_run_that_stopped_is_compared_with_the_stream_so_far(tmp_path: Path, step: int, method: str) -> None:
    """The dense run that its ratio is taken of has come just as far: at any step the ratio is the same."""
    setup, state = begun(tmp_path / "run", "net.width=0", f"method={method}")
    steps = ticks(setup, state)
    for _ in range(step):
        next(steps)
    shown = session.result(setup, state)
    assert shown["ratio"] == (1 if step else None)
    learned = len(state.accuracy) - 1
    assert (shown["class_il_accuracy"] is None) == (learned < 1)
    if learned == 1:
        assert shown["class_il_accuracy"] == np.mean(state.accuracy[1]["class_il"][: None if method == "joint" else 1])
        assert shown["class_il_forgetting"] is None


def test_half_a_stream_counts_its_own_groups(tmp_path: Path) -> None:
    setup, state = begun(tmp_path / "run", "data={classes_per_task: 2, samples_per_class: 12}", "train.epochs=1", "method=sgd")
    steps = ticks(setup, state)
    while len(state.accuracy) < 4:
        next(steps)
    shown, last = session.result(setup, state), state.accuracy[3]
    assert shown["class_il_accuracy"] == pytest.approx(np.mean(last["class_il"][:3]))  # not the fourth, evaluated for transfer
    assert last["class_il"][3] == 0.0
    assert shown["class_il_forgetting"] > 0.5


def test_opening_a_snapshot_changes_nothing(tmp_path: Path) -> None:
    setup, state = begun(tmp_path / "run", *SPARCL)
    steps = ticks(setup, state)
    while state.snapshots < 5:
        next(steps)
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    opened = session.open_snapshot(tmp_path / "run")
    assert (opened.number, opened.seen_groups) == (5, 2)
    assert session.open_snapshot(tmp_path / "run", 4).seen_groups == 1
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before


def test_other_samples_are_seen(tmp_path: Path) -> None:
    run = tmp_path / "run"
    finished(run, "train.epochs=1")
    changed = recorded(run)
    changed["data"]["crc32"] = "00000000"
    (run / "config.yaml").write_text(yaml.safe_dump(changed))
    for look in (session.resume, session.open_snapshot, session.check):
        with pytest.raises(DataError, match=r"not the samples that .* began with \(crc32 00000000 → "):
            look(run)


def test_to_the_end_of_a_stream_of_one_task(tmp_path: Path) -> None:
    setup, state = begun(tmp_path / "run", "data={classes_per_task: 10, samples_per_class: 5}", *SPARCL)
    to_end(setup, state)
    shown = session.result(setup, state)
    assert shown["class_il_accuracy"] == shown["task_il_accuracy"] == state.accuracy[1]["class_il"][0]
