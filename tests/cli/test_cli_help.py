"""Help: complete, quick, and without heavy imports."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import click
import pytest
from cli_cases import Cli, environment

from edgecl.cli import COMMANDS, cli

LOADED = """
import sys
from edgecl.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print("LOADED", *(m for m in ("numpy", "torch", "rich", "yaml", "sklearn", "edgecl.session") if m in sys.modules))
"""


def commands() -> dict[str, click.Command]:
    top = {name: importlib.import_module(module).command for name, (module, _) in COMMANDS.items()}
    nested = {f"{n} {k}": sub for n, c in top.items() if isinstance(c, click.Group) for k, sub in c.commands.items()}
    return {"": cli, **top, **nested}


@pytest.mark.parametrize("name", commands())
def test_every_command_has_a_summary_an_example_and_help_for_each_option(name: str) -> None:
    command = commands()[name]
    assert command.help
    assert command.help.split("\n")[0].endswith(".")
    assert command.epilog
    assert "Example" in command.epilog
    assert f"edgecl {name}".strip() in command.epilog
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    assert [o.name for o in options if not (o.help or "").endswith((".", "]"))] == []


def test_the_overview_says_what_the_commands_say() -> None:
    for name, (module, about) in COMMANDS.items():
        assert importlib.import_module(module).command.help.split("\n")[0] == about, name


def loaded(*args: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", LOADED, *args], capture_output=True, text=True, env=environment(), timeout=60)
    assert done.stderr == ""
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["train", "--help"], ["plan", "-h"], ["data", "get", "--help"]])
def test_help_imports_nothing_heavy(args: list[str]) -> None:
    assert loaded(*args) == set()


@pytest.mark.parametrize("args", [["plan", "--budget", "5x"], ["data", "list"], ["methods"], ["doctor"]])
def test_no_torch_where_none_is_needed(args: list[str]) -> None:
    assert not loaded(*args) & {"torch", "sklearn"}


def test_help_answers_at_once() -> None:
    times = []
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-m", "edgecl", "--help"], stdout=subprocess.DEVNULL, env=environment())
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 0
        times.append(used.ru_utime + used.ru_stime)
    assert min(times) < 0.3


def test_wrong_names_meet_the_nearest(process: Cli) -> None:
    ran = process("trian")
    assert (ran.code, ran.out) == (2, "")
    assert "Did you mean 'train'?" in ran.err
    assert "--epochs" in process("train", "--epoch", "3").err


def test_a_reader_that_goes_is_no_error() -> None:
    script = f"{sys.executable} -m edgecl doctor --json | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment(), timeout=60)
    assert done.stderr == ""
    assert done.returncode in (0, 1)
