"""Trains: makes or resumes a run, follows it, runs its dense baseline, and says how it ended."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from edgecl import runfolder, session
from edgecl.cli import compare, screen
from edgecl.cli.clocks import clock_for
from edgecl.cli.errors import InterruptedRun
from edgecl.cli.idle import warn, warn_if_slow
from edgecl.cli.options import choose
from edgecl.cli.outcome import Outcome, outcome
from edgecl.cli.plantext import introduce
from edgecl.cli.progress import follow
from edgecl.cli.signals import Stop
from edgecl.config import Config
from edgecl.forecast import method_of
from edgecl.model import recorded_config
from edgecl.profiles import load_profile
from edgecl.state import Setup, State
from edgecl.train import Stopped
from edgecl.types import BudgetError

HOST = "host"


def start(given: Mapping[str, Any], folder: str | None, baseline: bool, console: Console | None) -> Outcome:
    """A new run; without a console its events go to standard output as JSON lines."""
    config, pinned = choose(given)
    load_profile(config.device)  # an unknown one is an error now rather than at the end
    stream = session.read_stream(config)
    settled = session.with_engine(config)
    chosen = session.make(settled, stream, pinned, clock_for(settled, stream))
    if console is not None:
        warn(chosen.config, pinned)
        warn_if_slow(config)
    run = Path(folder) if folder else _default_folder(config)
    setup, state = session.begin(run, chosen, stream, {"compare": "dense"} if baseline else {})
    if console is not None:
        introduce(console, setup, pinned)
    with runfolder.lock_run(run), Stop() as stop:
        result = _train(setup, state, stop, console, label=config.method["name"] if baseline else "")
        return _finish(run, chosen.config, result, baseline, stop, console)


def resume(folder: str, baseline: bool, console: Console | None) -> Outcome:
    """Goes on with the run in `folder`, and with its baseline if it has one."""
    run = Path(folder)
    baseline = baseline or runfolder.read_config(run).get("compare") == "dense" or (run / compare.FOLDER).exists()
    with runfolder.lock_run(run), Stop() as stop:
        config = recorded_config(run)
        if baseline:
            (run / compare.FOLDER).mkdir(exist_ok=True)  # the next --resume sees by it that one was asked for
        result = compare.result(run)
        if result is not None:
            session.check(run)
        else:
            setup, state = session.resume(run)
            if console is not None:
                place = f"snapshot {state.snapshots:03d}" if state.snapshots else "the beginning"
                console.print(f"Resuming {run} from {place}", soft_wrap=True)
            result = _train(setup, state, stop, console, label=config.method["name"] if baseline else "")
        return _finish(run, config, result, baseline, stop, console)


def _default_folder(config: Config) -> Path:
    """runs/<time>-<data>-<method>; a number follows if two runs start in one second."""
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{Path(config.data.name).stem}-{config.method['name']}"
    folder, n = Path("runs") / stem, 1
    while folder.exists():
        n += 1
        folder = Path("runs") / f"{stem}-{n}"
    return folder


def _train(setup: Setup, state: State, stop: Stop, console: Console | None, label: str) -> dict[str, Any]:
    events = follow(setup, state, stop)
    try:
        if console is None:
            screen.emit(events)
        else:
            screen.show(console, label, events, joint=setup.method.joint)
    except Stopped as e:
        session.result(setup, state)  # its ledger so far
        raise InterruptedRun(str(e)) from None
    except BudgetError:
        session.result(setup, state)
        raise
    return session.result(setup, state)


def _finish(run: Path, config: Config, result: dict[str, Any], baseline: bool, stop: Stop, console: Console | None) -> Outcome:
    dense = None
    if baseline:
        dense = compare.result(run / compare.FOLDER) or _train_dense(run, config, stop, console)
    return outcome(result, dense, None if config.device == HOST else load_profile(config.device))


def _train_dense(run: Path, config: Config, stop: Stop, console: Console | None) -> dict[str, Any]:
    if stop.asked:
        raise InterruptedRun(f"stopped; edgecl train --resume {run} goes on with the dense baseline")
    events = compare.follow(run, config, stop)
    if console is None:
        screen.emit(events)
    else:
        joint = method_of(config).joint
        screen.show(console, compare.FOLDER, events, joint=joint)
    result = compare.result(run / compare.FOLDER)
    if result is None:
        raise compare.BaselineError(f"dense baseline: left no {run / compare.FOLDER / 'result.json'}", 1)
    return result
