"""What the tests of the command line share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
ONE_THREAD = ("--set", "engine.threads=1")  # many tests at a time, and nets that are too small for two
TINY = ("--epochs", "1", "--samples-per-class", "20", "--set", "train.batch=32", *ONE_THREAD)


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Ran]


def environment() -> dict[str, str]:
    """A process finds this checkout from any folder."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


def spawn(args: Sequence[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edgecl", *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
