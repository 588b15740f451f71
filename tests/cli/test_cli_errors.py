"""Whatever the user can get wrong is one line on standard error, and an exit code."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_cases import TINY, Cli

from edgecl.cli.errors import describe

WRONG = [
    (["--set", "trian.rate=1"], 2, "unknown key 'trian'; did you mean 'train'?"),
    (["--set", "train.rat=1"], 2, "'train.rate'"),
    (["--set", "sparsity=0.5"], 2, "'mask.sparsity'"),
    (["--set", "method.alpah=1"], 2, "derpp has alpha"),
    (["--set", "train.batch"], 2, "expected key.sub=value"),
    (["--set", "=3"], 2, "expected key.sub=value"),
    (["--set", "train.rate=["], 2, "can't read the value"),
    (["--set", "train.batch=many"], 2, "expected int, got 'many'"),
    (["--set", "train=3"], 2, "expected keys and values"),
    (["--set", "data=3"], 2, "expected keys and values"),
    (["--epochs", "-1"], 2, "train.epochs: -1"),
    (["--set", "train.batch=100000"], 2, "train.batch: 100000 is not between 1 and 4096"),
    (["--set", "engine.precision=tf32"], 2, "engine.precision: tf32 needs engine.device=cuda"),
    (["--epochs", "3", "--set", "train.epochs=4"], 2, "train.epochs is given twice: 3 by --epochs, 4 by --set"),
    (["--method", "derp"], 2, "did you mean 'derpp'?"),
    (["--net", "resnet"], 2, "resnet18"),
    (["--net", "none.yaml"], 2, "none.yaml"),
    (["--engine", "jax"], 2, "known: auto, torch"),
    (["--data", "cifr10"], 2, "did you mean 'cifar10'?"),
    (["--data", "none.npz"], 3, "none.npz: no such file"),
    (["--data", "cifar10"], 3, "edgecl data get cifar10"),
    (["--device", "rip"], 2, "nearest: 'rpi'"),
    (["--config", "none.yaml"], 2, "none.yaml: no such file"),
    (["--budget", "10minutes"], 5, "such as 23x"),
    (["--budget", "10mb"], 5, "did you mean MB?"),
    (["--budget", "5s,6s"], 5, "two limits of time"),
    (["--budget", "80MB", "--engine", "torch"], 5, "add --engine native"),
    (["--budget", "0.01s", "--device", "rpi", "--engine", "native"], 5, "the nearest possible is"),
    (["--budget", "2x,1MB", "--engine", "native"], 5, "the nearest possible is"),
    (["--budget", "lots"], 5, "such as 23x"),
    (["--budget", "100000x"], 5, "the nearest possible is"),
]


@pytest.mark.parametrize(("args", "code", "text"), WRONG, ids=lambda x: " ".join(x) if isinstance(x, list) else None)
@pytest.mark.parametrize("command", ["plan", "train"])
def test_one_line_and_a_code(cli: Cli, command: str, args: list[str], code: int, text: str) -> None:
    ran = cli(command, *args, "--json")
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith("edgecl: error: ")
    assert ran.err.count("\n") == 1
    assert text in ran.err
    assert not Path("runs").exists()


def test_the_same_as_a_process(process: Cli) -> None:
    ran = process("train", "--method", "derp")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "edgecl: error: method: unknown method 'derp'; did you mean 'derpp'?\n"


def test_debug_shows_the_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECL_DEBUG", "1")
    ran = cli("plan", "--method", "derp")
    assert ran.code == 2
    assert "Traceback" in ran.err
    assert ran.err.splitlines()[-1].startswith("edgecl: error: ")


def test_the_nearest_budget_can_be_met(cli: Cli) -> None:
    pinned = ("--set", "net.width=32")
    ran = cli("plan", "--budget", "1000x", *pinned)
    assert ran.code == 5
    assert "net.width pinned" in ran.err
    nearest = ran.err.split("nearest possible is ")[1].split()[0]
    assert cli("plan", "--budget", nearest, *pinned).code == 0


@pytest.mark.parametrize("text", ["net: [", "- 1", "", "data: {name: \xe9", "trian: {rate: 1}", "config: {seed: x}"])
def test_a_bad_config_file_is_named(cli: Cli, text: str) -> None:
    Path("wrong.yaml").write_text(text, encoding="latin-1")
    ran = cli("plan", "--config", "wrong.yaml")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("edgecl: error: wrong.yaml: ")
    assert ran.err.count("\n") == 1


def test_a_run_folder_is_not_used_twice(cli: Cli) -> None:
    Path("old").mkdir()
    Path("old/config.yaml").write_text("{}")
    ran = cli("train", *TINY, "--run", "old")
    assert (ran.code, ran.err) == (4, "edgecl: error: old: holds a run already; resume it, or name another folder\n")
    Path("mine").mkdir()
    Path("mine/thesis.txt").touch()
    assert "thesis.txt" in cli("train", *TINY, "--run", "mine").err


def test_resume_takes_no_new_options(cli: Cli) -> None:
    ran = cli("train", "--resume", "x", "--data", "digits", "--set", "seed=1", "--run", "y")
    said = "--resume goes on with a run as it was planned: it can't take --data, --set, --run"
    assert (ran.code, ran.err) == (2, f"edgecl: error: {said}\n")


@pytest.mark.parametrize("text", [None, "", "config: 3", "plan: {}", "config: {seed: x}"])
@pytest.mark.parametrize("command", [["train", "--resume"], ["eval"]])
def test_no_run_to_go_on_with(cli: Cli, command: list[str], text: str | None) -> None:
    if text is not None:
        Path("x").mkdir()
        Path("x/config.yaml").write_text(text)
    ran = cli(*command, "x")
    assert (ran.code in (2, 4), ran.out) == (True, "")
    assert ran.err.startswith("edgecl: error: ")
    assert ran.err.count("\n") == 1


def test_a_loss_that_is_not_finite_names_its_place(cli: Cli) -> None:
    ran = cli("train", *TINY, "--set", "train.rate=1000", "--set", "train.batch=4", "--json")
    assert (ran.code, ran.out) == (6, "")
    assert "at task 1, epoch 1, step" in ran.err
    assert ran.err.count("\n") == 1


def test_without_torch_only_its_engine_fails(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    monkeypatch.delitem(__import__("sys").modules, "edgecl.engines.torch", raising=False)
    ran = cli("train", *TINY, "--run", "x", "--engine", "torch")
    assert (ran.code, ran.out) == (2, "")
    assert 'pip install "edgecl[torch]"' in ran.err
    assert not Path("x").exists()
    assert cli("plan", *TINY).code == 0
    assert cli("train", *TINY, "--run", "x").code == 0
    assert "torch is not installed" in cli("doctor").out


def test_what_is_no_fault_of_the_user() -> None:
    assert describe(MemoryError()) == ("error: out of memory; a smaller train.batch or net.width needs less", 71)
    assert describe(RuntimeError("DefaultCPUAllocator: can't allocate memory"))[1] == 71
    assert describe(OSError(28, "No space left on device", "x/y")) == ("error: x/y: no space left on device", 74)
    assert describe(KeyboardInterrupt()) == ("interrupted", 130)
    line, code = describe(KeyError("a\nb"))
    assert code == 70
    assert "EDGECL_DEBUG=1" in line
    assert "\n" not in line
