"""Probabilities by hand, and the lines and summary of `edgecl run`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from device_cases import held_out
from run_cases import events

from edgecl.card import Card
from edgecl.cli import main
from edgecl.runtime.answers import Latency, answer
from edgecl.types import DataError, Preprocess

CARD = Card("n", (1, 8, 8), ("a", "b", "c"), (0, 2), Preprocess((0.5,), (0.5,)), "a" * 64, "0.1")


def test_probabilities_are_among_the_classes_learned() -> None:
    said = answer(CARD, np.array([0.0, -np.inf, np.log(3)], np.float32))
    assert (said.name, said.id) == ("c", 2)
    assert said.probability == pytest.approx(0.75)
    assert [(c.name, round(c.probability, 6)) for c in said.top] == [("c", 0.75), ("a", 0.25)]
    assert len(answer(CARD, np.zeros(3, np.float32), top=1).top) == 1


def test_nothing_is_said_of_nothing() -> None:
    with pytest.raises(DataError, match="no class yet"):
        answer(replace(CARD, seen=()), np.zeros(3, np.float32))
    with pytest.raises(DataError, match="not finite"):
        answer(CARD, np.array([0, 0, np.nan], np.float32))


def test_percentiles_and_shares() -> None:
    latency = Latency()
    for i in range(100):
        latency.add((i + 1) / 1000, "a" if i % 2 else None, "a" if i % 4 else "b")
    said = latency.summary("native")
    assert (said["frames"], said["labelled"], said["accuracy"]) == (100, 50, 1.0)
    assert (said["p50_ms"], said["p95_ms"], said["p99_ms"]) == (50.5, 95.05, 99.01)
    assert Latency().summary("native")["p50_ms"] is None


def ran(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(args)
    return int(end.value.code or 0), *capsys.readouterr()


def test_edgecl_run(tmp_path: Path, learned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x, y = held_out()
    np.savez(tmp_path / "t.npz", x=x, y=y)
    code, out, err = ran(capsys, "run", str(learned), "--input", str(tmp_path / "t.npz"), "--limit", "3", "--top", "2")
    rows = [json.loads(row) for row in out.splitlines()]
    assert (code, len(rows), [r["label"] for r in rows]) == (0, 3, [str(k) for k in y[:3]])
    assert all(len(r["top"]) == 2 and r["class"] == r["top"][0]["class"] and r["ms"] > 0 for r in rows)
    assert "3 frames" in err
    assert "p50/p95/p99" in err
    code, out, _ = ran(capsys, "run", str(learned), "--input", str(tmp_path / "t.npz"), "--json")
    said = json.loads(out)
    assert (code, said["frames"], said["labelled"], said["backend"]) == (0, len(x), len(x), "native")
    assert said["accuracy"] == pytest.approx(events(learned, "task")[-1]["class_il"][0])


def test_edgecl_run_says_what_is_wrong(tmp_path: Path, learned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for args, code, says in (
        ((str(tmp_path), "--input", "-"), 4, "no run folder"),
        ((str(learned), "--input", "x.gif"), 3, "no folder, picture"),
        ((str(learned), "--input", "-", "--runtime", "tvm"), 2, "--runtime 'tvm' is not one of"),
    ):
        got, out, err = ran(capsys, "run", *args)
        assert (got, out, len(err.splitlines())) == (code, "", 1)
        assert says in err
