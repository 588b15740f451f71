"""The dense baseline beside the run, in a process of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from cli_cases import QUICK, TINY, Cli, environment, spawn, wait_for_epochs

from edgecl.cli import compare
from edgecl.cli.errors import InterruptedRun
from edgecl.cli.signals import Stop
from edgecl.config import Config, merge
from edgecl.runfolder import lock_run


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])


def test_both_rows_and_what_is_alike(cli: Cli) -> None:
    ran = cli("train", *TINY, "--budget", "3x", "--compare", "dense", "--run", "r")
    assert (ran.code, ran.err) == (0, "")
    assert "derpp  task 5 after" in ran.out
    assert "dense  task 5 after" in ran.out
    header = next(line for line in ran.out.splitlines() if line.rstrip().endswith("× fewer"))
    assert header.split()[:3] == ["derpp", "3.00×", "dense"]
    sparse, dense = (yaml.safe_load(Path(p, "config.yaml").read_text())["config"] for p in ("r", "r/dense"))
    differ = {f"{k}.{j}" for k in sparse if isinstance(sparse[k], dict) for j in sparse[k] if sparse[k][j] != dense[k][j]}
    assert differ == dict(compare.changes(*(merge(Config(), c) for c in (sparse, dense)))).keys() - {"budget"}
    assert {"mask.sparsity", "ddr.share", "method.draws", "memory.batch", "memory.dense_draws"} <= differ
    assert (dense["method"]["draws"], dense["memory"]["batch"] or dense["train"]["batch"]) == (2, dense["train"]["batch"])
    assert sparse["seed"] == dense["seed"]

    shutil.rmtree("r/dense")  # as if it had been stopped before the baseline began
    shown = json.loads(cli("train", "--resume", "r", "--json").out)
    assert shown["dense"]["executed"] == shown["dense_executed"]
    assert shown["seconds_ratio"] == shown["dense"]["seconds"] / shown["seconds"]


def test_a_baseline_that_was_asked_for_on_the_way_is_remembered(cli: Cli) -> None:
    assert json.loads(cli("train", *TINY, "--run", "r", "--json").out)["dense"] is None
    child = spawn(["train", "--resume", "r", "--compare", "dense"])
    while child.poll() is None and not Path("r/dense").exists():
        time.sleep(0.01)
    child.kill()
    child.communicate()
    shown = json.loads(cli("train", "--resume", "r", "--json").out)
    assert shown["dense"]["executed"] == shown["dense_executed"]


@pytest.mark.parametrize("epochs", [0, 2], ids=["while it is tested", "while it trains"])
def test_a_run_that_is_killed_takes_its_baseline_along(cli: Cli, epochs: int) -> None:
    child = spawn(["train", *QUICK, "--compare", "dense", "--run", "r"])
    wait_for_epochs(Path("r/dense/metrics.jsonl"), epochs)
    child.kill()
    child.communicate()
    ran = cli("train", "--resume", "r", "--json")
    assert (ran.code, ran.err) == (0, "")
    shown = json.loads(ran.out)
    assert shown["dense"]["executed"] == shown["dense_executed"]


def test_a_baseline_ends_with_its_input_and_not_with_its_next_line() -> None:
    command = [sys.executable, "-m", "edgecl", "train", "--events", *QUICK, "--epochs", "1000", "--run", "r"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
        wait_for_epochs(Path("r/metrics.jsonl"), 2)
        assert child.poll() is None
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(20) == 1
    with lock_run(Path("r")):
        pass


def test_a_baseline_in_use_is_waited_for(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool, lock_run(tmp_path):
        waiting = pool.submit(compare._wait_for_lock, tmp_path)
        time.sleep(0.3)
        assert not waiting.done()
    assert waiting.done()


def test_but_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "PATIENCE", 0.2)
    with lock_run(tmp_path):
        compare._wait_for_lock(tmp_path)


class Child:
    """A baseline that says what it is told to, and ends."""

    def __init__(self, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(compare, "command", lambda run, config: ["sh", "-c", script])

    def events(self, stop: Stop) -> list[object]:
        return list(compare.follow(Path("r"), None, stop))  # type: ignore[arg-type]


def test_a_childs_error_is_the_runs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    child = Child("echo Traceback... >&2; echo 'edgecl: error: r/dense: no space left on device' >&2; exit 4", monkeypatch)
    with pytest.raises(compare.BaselineError) as error:
        child.events(Stop())
    assert str(error.value) == "dense baseline: r/dense: no space left on device; edgecl train --resume r tries again"
    assert error.value.exit_code == 4


def test_a_killed_child_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    child = Child('printf \'{"event": "x"}\\n{"eve\'; kill -9 $$', monkeypatch)
    with pytest.raises(compare.BaselineError, match="dense baseline: ended by signal 9") as error:
        child.events(Stop())
    assert error.value.exit_code == 1


def test_a_stopped_child_is_an_interrupted_run(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = Stop()
    stop.asked = True
    with pytest.raises(InterruptedRun, match="--resume r"):
        Child("exec sleep 20", monkeypatch).events(stop)
    assert stop.child is None
