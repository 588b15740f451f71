"""edgecl train on the embedded data, in every way of asking for it."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest
import yaml
from cli_cases import ONE_THREAD, QUICK, TINY, Cli, spawn, wait_for_epochs

from edgecl import train
from edgecl.cli import look, screen

LEDGER = ("executed", "paper", "dense_executed", "dense_paper", "ratio")


def test_a_run_ends_with_a_table_and_a_ledger(cli: Cli) -> None:
    ran = cli("train", *TINY, "--budget", "3x", "--run", "r", "--device", "rpi")
    assert (ran.code, ran.err) == (0, "")
    for text in ("small_cnn, full width (32)", "masked in 3 layers, unit kernel", "all samples", "updated", "3.00× fewer"):
        assert text in ran.out
    for text in ("task 5", "Class-IL", "Task-IL", "forgetting", "backward", "forward", "FLOPs executed", "paper"):
        assert text in ran.out
    words = " ".join(ran.out.split())  # lines break where the screen ends
    for text in ("training time", "peak memory", "replay memory", "Run folder r", "Predicted for rpi"):
        assert text in words
    assert len(re.findall(r"^task \d after", ran.out, re.M)) == 5
    assert "\x1b" not in ran.out
    ledger = json.loads(Path("r/ledger.json").read_text())
    assert ledger["ratio"] == ledger["dense_executed"] / ledger["executed"] > 3
    assert set(LEDGER) <= set(ledger)
    assert {p.name for p in Path("r").iterdir()} >= {"config.yaml", "metrics.jsonl", "ledger.json", "snapshots"}


def test_json_is_one_object(cli: Cli) -> None:
    ran = cli("train", *TINY, "--json", "--run", "r")
    assert (ran.code, ran.err) == (0, "")
    shown = json.loads(ran.out)
    assert ran.out.count("\n") == 1
    assert set(LEDGER) <= set(shown)
    assert shown["run"] == "r"
    assert shown["ratio"] == 1
    assert len(shown["accuracy"]) == 6
    assert (shown["dense"], shown["prediction"]) == (None, None)


def test_quiet_prints_only_the_tables(cli: Cli) -> None:
    out = cli("train", *TINY, "--quiet", "--method", "joint").out
    assert out.startswith("\nAccuracy after each task, %")
    assert "all tasks" in out
    folder = out.split("Run folder  ")[1].split()[0]
    assert re.fullmatch(r"runs/\d{8}-\d{6}-digits-joint", folder)
    assert Path(folder, "ledger.json").exists()


def test_what_is_given_is_kept(cli: Cli) -> None:
    Path("mine.yaml").write_text("train: {epochs: 1, batch: 32}\nmethod: {name: derpp, alpha: 0.2}\nseed: 3\n")
    args = ("--config", "mine.yaml", "--seed", "4", "--set", "mask.sparsity=0.7", "--set", "mask.sparsity=0.5")
    small = ("--samples-per-class", "20", *ONE_THREAD, "--run", "r")
    assert cli("train", *args, *small, "--budget", "1.5x", "--quiet").code == 0
    config = yaml.safe_load(Path("r/config.yaml").read_text())["config"]
    assert (config["seed"], config["train"]["epochs"], config["method"]["alpha"]) == (4, 1, 0.2)
    assert config["mask"]["sparsity"] == 0.5


def test_a_runs_config_makes_the_same_run(cli: Cli) -> None:
    first = json.loads(cli("train", *TINY, "--budget", "3x", "--run", "a", "--json").out)
    again = json.loads(cli("train", "--config", "a/config.yaml", "--run", "b", "--json").out)
    changing = ("run", "seconds", "cpu_seconds", "test_seconds", "snapshot_seconds", "energy", "peak_rss_bytes")
    assert {k: v for k, v in first.items() if k not in changing} == {k: v for k, v in again.items() if k not in changing}


def test_a_planner_that_narrows_says_so(cli: Cli) -> None:
    out = " ".join(cli("train", *TINY, "--budget", "40x").out.split())
    assert re.search(r"width \d+ of 32, narrowed for the budget; --set net.width=32 keeps it wide", out)


def test_a_finished_run_is_shown_again(cli: Cli) -> None:
    cli("train", *TINY, "--run", "r")
    metrics = Path("r/metrics.jsonl").read_bytes()
    ran = cli("train", "--resume", "r")
    assert ran.code == 0
    assert "Class-IL accuracy" in ran.out
    assert Path("r/metrics.jsonl").read_bytes() == metrics


def test_a_finished_run_whose_samples_have_changed_is_not_shown(cli: Cli) -> None:
    cli("train", *TINY, "--run", "r")
    config = Path("r/config.yaml")
    config.write_text(re.sub("crc32: .*", "crc32: '00000000'", config.read_text()))
    for command in (("train", "--resume", "r"), ("eval", "r")):
        ran = cli(*command)
        assert (ran.code, ran.out) == (3, "")
        assert "these are not the samples that r began with (crc32 00000000 → " in ran.err


def test_a_finished_run_whose_configuration_was_edited_is_not_shown(cli: Cli) -> None:
    cli("train", *TINY, "--run", "r")
    config = Path("r/config.yaml")
    config.write_text(config.read_text().replace("rate: 0.05", "rate: 0.06"))
    for command in (("train", "--resume", "r"), ("eval", "r")):
        said = "edgecl: error: r/config.yaml: train.rate is 0.06, but r/snapshots/005 was trained with 0.05\n"
        assert cli(*command) == (4, "", said)


def test_no_epochs_and_no_net_are_the_usual_ones(cli: Cli) -> None:
    config = json.loads(cli("plan", "--epochs", "0", "--set", "net.name=", "--json").out)["config"]
    assert (config["train"]["epochs"], config["net"]["name"]) == (20, "small_cnn")


def test_what_is_removed_is_what_the_schedule_removes(cli: Cli) -> None:
    share = ("--set", "ddr.share=0.5", "--samples-per-class", "20")
    assert "data       50.0 % of each task's" in cli("plan", "--epochs", "20", *share).out
    assert "data       37.5 % of each task's" in cli("plan", "--epochs", "2", *share, "--set", "ddr.until=0.8").out
    ran = cli("plan", "--epochs", "1", *share)
    assert "data       all samples" in ran.out
    assert ran.err == "edgecl: warning: ddr.share changes nothing here: no epoch follows a removal\n"


@pytest.mark.parametrize(
    ("sets", "why"),
    [
        (["dgm.share=0.5"], "dgm.share changes nothing here: mask.sparsity is 0"),
        (["tdm.swap=0.5"], "tdm.swap changes nothing here: mask.sparsity is 0"),
        (["tdm.swap=0.5", "tdm.enabled=false", "mask.sparsity=0.5"], "tdm.swap changes nothing here: tdm.enabled is false"),
        (["mask.start=erk"], "mask.start changes nothing here: mask.sparsity is 0"),
        (["dgm.every=5", "mask.sparsity=0.5"], "dgm.every changes nothing here: dgm.share is 1"),
        (["ddr.times=2"], "ddr.times changes nothing here: ddr.share is 0"),
        (["memory.batch=7", "method=sgd"], "memory.batch changes nothing here: the method replays nothing"),
        (["memory.batch=7", "mask={sparsity: 0.5, unit: weight}", "tdm.swap=0.5", "dgm={share: 0.5, every: 3}"], ""),
        (["mask.start=uniform", "dgm.every=30"], ""),  # as they are anyway
    ],
)
def test_what_changes_nothing_is_said_before_training(cli: Cli, sets: list[str], why: str) -> None:
    said = f"edgecl: warning: {why}\n" if why else ""
    args = [part for key in sets for part in ("--set", key)]
    assert cli("plan", *TINY, *args).err == said


def test_a_run_says_it_too(cli: Cli) -> None:
    ran = cli("train", *TINY, "--json", "--set", "dgm.share=0.5")
    assert (ran.code, ran.err) == (0, "edgecl: warning: dgm.share changes nothing here: mask.sparsity is 0\n")


def test_a_long_test_is_not_silent(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    screen.show(look.console(), "dense", [train.Testing(1, 5)])
    monkeypatch.setattr(screen, "QUIET_LINES", -1)
    screen.show(look.console(), "dense", [train.Testing(2, 5)])
    assert capsys.readouterr().out == "dense  testing group 2/5\n"


def interrupt(number: signal.Signals) -> tuple[int, str, str]:
    child = spawn(["train", *QUICK, "--run", "r"])
    wait_for_epochs(Path("r/metrics.jsonl"), 2)
    child.send_signal(number)
    out, err = child.communicate(timeout=30)
    return child.returncode, out, err


def test_ctrl_c_leaves_a_snapshot_that_goes_on(cli: Cli) -> None:
    code, out, err = interrupt(signal.SIGINT)
    assert code == 130
    assert err.startswith("edgecl: stopped; edgecl train --resume r goes on from ")
    assert json.loads(Path("r/ledger.json").read_text())["ratio"] == 1
    assert "Accuracy" not in out
    resumed, whole = cli("train", "--resume", "r", "--json"), cli("train", *QUICK, "--json", "--run", "w")
    assert (resumed.code, whole.code) == (0, 0)
    for key in ("accuracy", "executed", "ratio"):
        assert json.loads(resumed.out)[key] == json.loads(whole.out)[key]


def test_sigterm_stops_as_cleanly() -> None:
    code, _, err = interrupt(signal.SIGTERM)
    assert code == 130
    assert "--resume r goes on from" in err
    assert list(Path("r/snapshots").iterdir())


def test_a_second_process_keeps_out(cli: Cli) -> None:
    child = spawn(["train", *QUICK, "--run", "r"])
    wait_for_epochs(Path("r/metrics.jsonl"), 1)
    ran = cli("train", "--resume", "r")
    assert (ran.code, ran.err) == (4, f"edgecl: error: r: is in use by process {child.pid}\n")
    child.kill()
    child.communicate()


def test_the_end_shows_measured_time_beside_the_dense_one_as_predicted() -> None:
    from edgecl.cli.tables import _beside_predicted

    assert _beside_predicted(60.0, 20.0, 10.0) == ("  the processor's, dense predicted", "10.0 s", "1 min 0 s", "6.00×")
    assert _beside_predicted(60.0, 20.0, 35.0) == ("  dense predicted", "20.0 s", "1 min 0 s", "3.00×")


def test_once_calibrated_a_ratio_is_held_on_the_clock_and_the_run_says_so(cli: Cli) -> None:
    args = (*TINY, "--engine", "native")
    before = cli("plan", *args, "--budget", "2x").out
    assert "2x holds for FLOPs only: edgecl measure calibrate" in " ".join(before.split())
    assert cli("measure", "calibrate", *args).code == 0
    planned = json.loads(cli("plan", *args, "--budget", "2x", "--json").out)
    assert planned["seconds"] > 0
    assert planned["clock_ratio"] == planned["dense_seconds"] / planned["seconds"]
    assert not planned["clock_held"] or planned["clock_ratio"] >= 2
    off = json.loads(cli("plan", *args, "--budget", "2x", "--set", "clock=never", "--json").out)
    assert not off["clock_held"]
    out = " ".join(cli("train", *args, "--budget", "2x", "--run", "r").out.split())
    assert "2x holds for FLOPs" in out
    assert "dense predicted" in out
    recorded = yaml.safe_load(Path("r/config.yaml").read_text())["plan"]
    shown = json.loads(Path("r/result.json").read_text())
    assert shown["dense_seconds_predicted"] == recorded["dense_seconds"]
    assert shown["cpu_seconds"] > 0
    assert shown["test_seconds"] > 0
