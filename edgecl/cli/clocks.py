"""Which clock a plan is timed by: this machine's calibration, made first where a budget needs it, or a device's profile."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from edgecl import budget, measure
from edgecl.cli import again
from edgecl.config import Config
from edgecl.profiles import load_profile
from edgecl.timing import Clock, profile_clock, skips
from edgecl.types import BudgetError, Stream

HOST = "host"


def clock_for(config: Config, stream: Stream) -> Clock | None:
    """None where nothing is known and nothing asks. Raises BudgetError where the machine can't be timed."""
    limits = budget.parse(config.budget)
    timed = limits.timed or (limits.compute is not None and config.clock == "always")
    if timed and not skips(config):
        _say(f"engine {config.engine.name} lays masks over dense tensors: time is planned as if there were none")
    if config.device != HOST:
        return profile_clock(load_profile(config.device))
    kept = measure.recall(config, stream)
    if kept is not None or not timed:
        return kept
    _say("no calibration of this machine yet: timing training steps for some seconds (edgecl measure calibrate)")
    _calibrate(config)
    kept = measure.recall(config, stream)
    if kept is None:
        raise BudgetError(f"budget {config.budget}: the calibration of this machine could not be kept or read back")
    return kept


def _calibrate(config: Config) -> None:
    """In a process of its own: what it takes does not count in the memory of the run. Its progress goes to standard error."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(yaml.safe_dump({"config": config.set("budget", "").to_dict()}), encoding="utf-8")
        ran = subprocess.run(
            again.command("measure", "calibrate", "--config", str(path), "--json"),
            stdout=subprocess.DEVNULL,
            check=False,
        )
    if ran.returncode:
        raise BudgetError(f"budget {config.budget}: this machine could not be timed; the line above says why")


def _say(text: str) -> None:
    print(f"edgecl: {text}", file=sys.stderr)
