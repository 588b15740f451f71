"""The dense baseline beside the run, in a process of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from cli_cases import TINY, Cli, environment

from edgecl.cli import compare
from edgecl.cli.errors import InterruptedRun
from edgecl.cli.signals import Stop


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])


def test_both_rows_and_what_is_alike(cli: Cli) -> None:
    ran = cli("train", *TINY, "--budget", "3x", "--compare", "dense", "--run", "r")
    assert (ran.code, ran.err) == (0, "")
    assert "derpp  task 5 after" in ran.out
    assert "dense  task 5 after" in ran.out
    header = next(line for line in ran.out.splitlines() if "dense / this" in line)
    assert header.split()[:3] == ["derpp", "3.00×", "dense"]
    sparse, dense = (yaml.safe_load(Path(p, "config.yaml").read_text())["config"] for p in ("r", "r/dense"))
    differ = {f"{k}.{j}" for k in sparse if isinstance(sparse[k], dict) for j in sparse[k] if sparse[k][j] != dense[k][j]}
    assert differ <= set(compare.CHANGED)
    assert sparse["seed"] == dense["seed"]

    shutil.rmtree("r/dense")  # as if it had been stopped before the baseline began
    shown = json.loads(cli("train", "--resume", "r", "--json").out)
    assert shown["dense"]["executed"] == shown["dense_executed"]
    assert shown["seconds_ratio"] == shown["dense"]["seconds"] / shown["seconds"]


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
