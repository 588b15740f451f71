"""The dense baseline of a run, as a process of its own, so that its seconds and peak memory are its own."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from edgecl import plan
from edgecl.cli import again
from edgecl.cli.errors import INTERRUPTED, InterruptedRun
from edgecl.cli.progress import Tick, from_line
from edgecl.cli.signals import Stop
from edgecl.config import Config, get, leaves
from edgecl.runfolder import CONFIG, lock_run, read_metrics
from edgecl.train import Event, Testing
from edgecl.types import EdgeclError, StoreError

FOLDER = "dense"  # within the run folder of what it is compared with
PATIENCE = 5.0  # seconds for an earlier baseline to end, whose parent was killed


class BaselineError(EdgeclError):
    """The baseline's process failed; carries its exit code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.exit_code = code


def command(run: Path, config: Config) -> list[str]:
    """What trains the baseline of the run in `run`, or goes on with it, while its standard input is open."""
    start = again.command("train", "--events")
    if (run / FOLDER / CONFIG).exists():
        return [*start, "--resume", str(run / FOLDER)]
    dense = plan.baseline(config)
    sets = [part for key, value in changes(config, dense) for part in ("--set", f"{key}={json.dumps(value)}")]
    return [*start, "--config", str(run / CONFIG), *sets, "--run", str(run / FOLDER)]


def changes(config: Config, dense: Config) -> list[tuple[str, Any]]:
    """The dotted keys in which the baseline differs from the run, with its values."""
    return [(key, value) for key, value in leaves(dense.to_dict()) if get(config, key) != value]


def follow(run: Path, config: Config, stop: Stop) -> Iterator[Tick | Testing | Event]:
    """Runs the baseline and yields what it tells. Raises BaselineError, or InterruptedRun if it was asked to stop."""
    _wait_for_lock(run / FOLDER)
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        child = _spawn(command(run, config), said)
        stop.child = child
        if stop.asked:  # just before the line above
            child.terminate()
        try:
            yield from _events(child)
        except BaseException:  # a second Ctrl-C, or whoever listens has failed: the child must not outlive this
            child.kill()
            raise
        finally:
            child.wait()
            stop.child = None
            if child.stdin is not None:
                child.stdin.close()
        _check(run, child.returncode, said, stop)


def _spawn(command: list[str], said: IO[str]) -> subprocess.Popen[str]:
    """In a session of its own: Ctrl-C comes once, by way of Stop. Its input ends with this process, and it with that."""
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=said, text=True, start_new_session=True)


def _wait_for_lock(folder: Path) -> None:
    """Until no process is in the folder; the child says so if one still is after PATIENCE."""
    end = time.monotonic() + PATIENCE
    while folder.exists() and time.monotonic() < end:
        with suppress(StoreError), lock_run(folder):
            return
        time.sleep(0.1)


def _events(child: subprocess.Popen[str]) -> Iterator[Tick | Testing | Event]:
    assert child.stdout is not None
    with child.stdout as lines:
        for line in lines:
            if line.endswith("\n"):  # else torn: the child was killed while it wrote, and its exit code says so
                yield from_line(json.loads(line))


def _check(run: Path, code: int, said: IO[str], stop: Stop) -> None:
    if code == 0:
        return
    if code == INTERRUPTED or stop.asked:
        raise InterruptedRun(f"stopped; edgecl train --resume {run} goes on")
    said.seek(0)
    last = next((line for line in reversed(said.read().splitlines()) if line.strip()), "")
    reason = last.removeprefix("edgecl: error: ") or (f"ended by signal {-code}" if code < 0 else f"exit code {code}")
    raise BaselineError(f"dense baseline: {reason}; edgecl train --resume {run} tries again", max(code, 1))


def result(run: Path) -> dict[str, Any] | None:
    """What a run in `run` left in result.json, if it went on to its end; else None."""
    try:
        shown = json.loads((run / "result.json").read_text(encoding="utf-8"))
        last = read_metrics(run)[-1]
    except (OSError, ValueError, IndexError, StoreError):
        return None
    ended = isinstance(shown, dict) and last.get("event") == "end" and last.get("executed") == shown.get("executed")
    return shown if ended else None
