"""What the tests of the command line share."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
ONE_THREAD = ("--set", "engine.threads=1")  # many tests at a time, and nets that are too small for two
FEW_SNAPSHOTS = ("--set", "train.snapshot_every=5", *ONE_THREAD)
QUICK = ("--net", "mlp", "--method", "sgd", "--samples-per-class", "40", "--epochs", "20", *FEW_SNAPSHOTS)
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


def wait_for_epochs(metrics: Path, number: int) -> None:
    for _ in range(600):
        if metrics.exists() and metrics.read_text().count('"epoch"') >= number:
            return
        time.sleep(0.05)
    raise AssertionError("no epoch in half a minute")
