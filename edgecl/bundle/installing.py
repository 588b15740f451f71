"""A bundle put into the slot that is not in use, tested there, and switched to (see slots.py)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from edgecl import slots
from edgecl.bundle import selftest
from edgecl.bundle.contents import WHEELS
from edgecl.bundle.reading import Head, unpack
from edgecl.types import ConfigError, StoreError

VENV = "venv"
SECONDS = 1800  # for the wheels on a slow card, and for a self-test


class Installed(NamedTuple):
    """What is in use now."""

    slot: Path
    head: Head
    tested: str  # what the self-test did


def install(
    path: Path, root: Path, public: Path, *, machine: str = "", venv: bool = False, command: Sequence[str] = ()
) -> Installed:
    """Checks the bundle file, unpacks it into the idle slot below `root`, tests it there and makes it `root/current`.

    `venv` makes a virtual environment in the slot from the bundle's wheels alone; the self-test then runs in it. `command` is
    run besides, with the slot's folder behind it, and has to exit with 0. Raises StoreError or ConfigError; the slot that was
    in use then stays.
    """
    heads: list[Head] = []
    said: list[str] = []

    def fill(folder: Path) -> None:
        heads.append(unpack(path, folder, public, machine))
        if venv:
            _make_venv(folder)

    def test(folder: Path) -> None:
        said.append(_test_in_venv(folder) if venv else selftest.check(folder, heads[0].manifest))
        if command:
            _run("the self-test command", [*command, str(folder)])

    slot = slots.install(root, fill, test)
    return Installed(slot, heads[0], said[0])


def _make_venv(folder: Path) -> None:
    """Nothing is asked of a network. Its programs' own paths go wrong with the slot's name: start them by `python -m`."""
    wheels = sorted((folder / WHEELS).glob("*.whl"))
    if not wheels:
        raise ConfigError(f"{folder}: --venv: the bundle has no wheels (create it with --wheels DIR)")
    _run("python -m venv", [sys.executable, "-m", "venv", str(folder / VENV)])
    pip = [*_python(folder), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-cache-dir", "--no-index"]
    _run("pip install", [*pip, "--find-links", str(folder / WHEELS), *map(str, wheels)])


def _test_in_venv(folder: Path) -> str:
    return _run("the self-test", [*_python(folder), "-m", "edgecl", "bundle", "selftest", str(folder)]).strip()


def _python(folder: Path) -> list[str]:
    """Isolated: what lies in the working folder, or PYTHONPATH, is not of this bundle."""
    return [str(folder / VENV / "bin" / "python"), "-I"]


def _run(what: str, args: Sequence[str]) -> str:
    """Standard output. Raises StoreError with the last line of standard error where it fails."""
    try:
        done = subprocess.run(args, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise StoreError(f"{what}: took more than {SECONDS} s") from None
    except OSError as e:
        raise StoreError(f"{what}: {args[0]}: {(e.strerror or str(e)).lower()}") from None
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise StoreError(f"{what} failed with exit code {done.returncode}: {last[:300]}")
    return done.stdout
