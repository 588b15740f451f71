"""plan, eval, data, methods, doctor; and the numbers that all of them print."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml
from cli_cases import TINY, Cli

from edgecl import kernels
from edgecl.cli import text
from edgecl.data import DATASETS, fetch
from edgecl.methods import METHODS


def test_a_plan_by_layer_and_by_part(cli: Cli) -> None:
    out = cli("plan", "--budget", "23x", "--device", "rpi").out
    for part in ("classifier", "kernel", "width", "masks", "data removal", "gradient mask", "replay  ", "replay memory"):
        assert part in out
    assert "1 draw of 8 samples a step, dense 2 draws of 16 samples" in " ".join(out.split())
    assert "Predicted for rpi" in out
    assert "power_load_w" in out


def test_the_chain_multiplies_up_and_the_layers_add_up(cli: Cli) -> None:
    plan = json.loads(cli("plan", "--budget", "23x", "--device", "rpi", "--json").out)
    assert math.prod(plan["chain"].values()) == pytest.approx(plan["ratio"]) == pytest.approx(23, rel=0.01)
    assert sum(r["forward"] + r["backward"] + r["upkeep"] for r in plan["layers"]) == plan["executed"] <= plan["limit"]
    assert plan["prediction"]["dense_seconds"] > 0


@pytest.mark.parametrize("method", ["joint", "sgd"])
def test_a_plan_without_replay(cli: Cli, method: str) -> None:
    plan = json.loads(cli("plan", "--method", method, "--json").out)
    assert (plan["memory_bytes"], plan["ratio"]) == (0, 1)
    assert set(plan["chain"].values()) == {1}


def test_the_plan_is_what_train_executes(cli: Cli) -> None:
    args = (*TINY, "--budget", "4x", "--json")
    plan, run = json.loads(cli("plan", *args).out), json.loads(cli("train", *args).out)
    for key in ("executed", "paper", "dense_executed", "dense_paper", "memory_bytes"):
        assert plan[key] == run[key]


def test_eval_says_what_train_said_and_changes_nothing(cli: Cli) -> None:
    run = json.loads(cli("train", *TINY, "--run", "r", "--json").out)
    files = {p: p.read_bytes() for p in Path("r").rglob("*") if p.is_file()}
    shown = json.loads(cli("eval", "r", "--json").out)
    for key in ("class_il", "task_il"):
        assert [g[key] for g in shown["groups"]] == run["accuracy"][-1][key]
        assert shown[key] == pytest.approx(run[f"{key}_accuracy"])
    assert files == {p: p.read_bytes() for p in Path("r").rglob("*") if p.is_file()}
    early = json.loads(cli("eval", "r", "--snapshot", "4", "--json").out)
    assert early["groups_seen"] == 4
    assert [g["class_il"] is None for g in early["groups"]] == [False] * 4 + [True]
    assert "4 of 5 groups seen" in cli("eval", "r", "--snapshot", "4").out
    assert "no snapshot 001; it has 004, 005" in cli("eval", "r", "--snapshot", "1").err


def test_the_data_sets_are_listed(cli: Cli) -> None:
    out = " ".join(cli("data", "list").out.split())
    for name, entry in DATASETS.items():
        assert name in out
        assert entry.licence in out
        assert all(alias in out for alias in entry.aliases)
    assert "no; to have it: edgecl data get cifar10" in out
    listed = json.loads(cli("data", "list", "--json").out)["data"]
    assert listed["cifar10"]["where"] is None
    assert listed["digits"]["classes"] == 10


def test_getting_what_is_here(cli: Cli) -> None:
    ran = cli("data", "get", "seq-digits")
    assert ran.code == 0
    assert "digits.csv.gz" in ran.out
    ran = cli("data", "get", "cifar10", "--url", "file:///x")
    assert (ran.code, ran.out) == (2, "")


def test_a_download_is_followed_to_its_end(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [("download", 5), ("wait", 5), ("download", 9), ("check", 3), ("check", 9), ("unpack", 9), ("done", 9)]
    told = [fetch.Progress(step, done, 9, Path("sets/x")) for step, done in steps]
    monkeypatch.setattr(fetch, "get", lambda name, root, url: iter(told))
    assert cli("data", "get", "cifar10") == (0, "cifar10 lies in sets/x\n", "")


def test_the_methods_are_listed(cli: Cli) -> None:
    listed = json.loads(cli("methods", "--json").out)["methods"]
    assert list(listed) == list(METHODS)
    assert listed["derpp"]["passes"] == [["current"], ["replay 1"], ["replay 2"]]
    assert listed["er"]["passes"] == [["current", "replay 1"]]
    assert all(row["paper"] for row in listed.values())
    out = cli("methods").out
    assert "alpha = 0.1" in out


def test_the_doctor_knows_this_machine(cli: Cli) -> None:
    found = json.loads(cli("doctor", "--json").out)
    assert found["engines"]["torch"] == "ready"
    assert found["engines"]["native"].startswith("ready (")
    assert found["usable_cores"] >= 1
    assert {"host", "rpi"} <= set(found["profiles"])
    out = cli("doctor").out
    assert "torch: ready" in out
    assert "edgecl data get cifar10" in out


def test_the_doctor_names_the_engine_and_its_kernels(cli: Cli) -> None:
    found, used = json.loads(cli("doctor", "--json").out), kernels.load()
    assert found["engine"] == {"name": "native", "why": f"its kernels run here ({used.isa})", "slow": ""}
    assert (found["kernels"]["isa"], found["kernels"]["lanes"], found["kernels"]["isas"]) == (
        used.isa,
        used.lanes,
        kernels.isas(),
    )
    out = " ".join(cli("doctor").out.split())
    assert f"default engine native: its kernels run here ({used.isa})" in out
    assert f"kernels {used.isa}, {used.lanes} samples a vector" in out


def test_without_kernels_numpy_runs_and_it_says_so(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kernels, "path", lambda: tmp_path / "none.so")
    kernels._library.cache_clear()
    try:
        ran = cli("train", *TINY[:-2], "--set", "mask.sparsity=0.5", "--run", "r")
        assert ran.code == 0
        assert ran.err.startswith("edgecl: warning: native engine: its kernels were not built; with a C++17 compiler")
        assert ran.err.endswith("; until then the slow numpy engine runs\n")
        assert ran.err.count("\n") == 1
        assert "With the numpy engine masks lie over dense tensors and save no time" in " ".join(ran.out.split())
        assert yaml.safe_load(Path("r/config.yaml").read_text())["config"]["engine"]["name"] == "numpy"
        found = json.loads(cli("doctor", "--json").out)
        assert (found["engine"]["name"], found["kernels"]) == ("numpy", None)
        assert cli("train", *TINY, "--engine", "native").err.startswith(
            "edgecl: error: engine native: its kernels were not built"
        )
    finally:
        kernels._library.cache_clear()
    assert cli("eval", "r").code == 0  # by the engine that was recorded


def test_numbers() -> None:
    assert [text.three(x) for x in (0, 0.5, 9.994, 9.996, 99.94, 99.96, 999)] == [
        "0",
        "0.50",
        "9.99",
        "10.0",
        "99.9",
        "100",
        "999",
    ]
    assert [text.flops(x) for x in (5, 999.6, 1.234e9, 2.49e16)] == ["5.00 FLOP", "1.00 kFLOP", "1.23 GFLOP", "24.9 PFLOP"]
    assert [text.size(x) for x in (0, 12, 12_000, 3.2e8)] == ["0 B", "12 B", "12.0 kB", "320 MB"]
    assert [text.duration(x) for x in (0.04, 59.9, 59.97, 723, 3599.7, 7800, 86399.9, 3e5)] == [
        *("0.0 s", "59.9 s", "1 min 0 s", "12 min 3 s", "1 h 0 min", "2 h 10 min", "1 d 0 h", "3 d 11 h")
    ]
    assert [text.energy(x) for x in (1.61, 3600)] == ["1.61 J", "3.60 kJ (1.00 Wh)"]
    assert [text.percent(x) for x in (None, 0.7184, -0.0001)] == ["–", "71.8", "0.0"]
    assert [text.times(x) for x in (None, 22.97, 100.2)] == ["–", "22.97×", "100×"]
    assert [text.count(n, "class", "classes") for n in (1, 1000)] == ["1 class", "1,000 classes"]
