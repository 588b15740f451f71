"""Runs the command line: in this process where that is the same, as a process of its own where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_cases import Cli, Ran, spawn


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds data sets, or leaves runs, where the others are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGECL_DATA", str(tmp_path / "no-data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("EDGECL_DEBUG", raising=False)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    from edgecl.cli import main

    def run(*args: str) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(args)
        return Ran(int(end.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def process() -> Cli:
    def run(*args: str) -> Ran:
        child = spawn(args)
        out, err = child.communicate(timeout=60)
        return Ran(child.returncode, out, err)

    return run
