"""What a run shows while it works: a live bar on a terminal, a line after each task anywhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from contextlib import nullcontext

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from edgecl.cli import look
from edgecl.cli.progress import Tick, as_line
from edgecl.cli.text import duration, percent, times
from edgecl.train import Event, Testing

QUIET_LINES = 60.0  # seconds between lines where no bar moves
SHOWN_GROUPS = 8  # a task's line names the accuracies of at most so many groups


def console_for(*, as_json: bool, quiet: bool) -> Console:
    """Standard output; with --json standard error, if somebody looks at it."""
    if quiet:
        return look.console(quiet=True)
    return look.console(stderr=True, quiet=not sys.stderr.isatty()) if as_json else look.console()


def show(console: Console, label: str, events: Iterable[Tick | Testing | Event], *, joint: bool = False) -> None:
    """Consumes a run's events. `label` names the run where two are compared; `joint` methods learn all groups at once."""
    bar = _Bar(console, label) if console.is_terminal and not console.quiet else None
    beat = time.monotonic()
    smooth = 0.0
    with bar.progress if bar else nullcontext():
        for event in events:
            if isinstance(event, dict):
                _tell(console, label, event, joint)
                beat = time.monotonic()
                continue
            if isinstance(event, Tick):
                smooth = event.loss if event.done == 1 or not smooth else 0.95 * smooth + 0.05 * event.loss
            if bar:
                bar.move(event, smooth)
            elif time.monotonic() - beat > QUIET_LINES:
                beat = time.monotonic()
                console.print(f"{_prefix(label)}{_where(event, smooth)}", soft_wrap=True)


def emit(events: Iterable[Tick | Testing | Event], every: float = 0.2) -> None:
    """One line of JSON an event on standard output, steps at most once in `every` seconds: for `--compare`."""
    last = 0.0
    for event in events:
        if not isinstance(event, Tick) or time.monotonic() - last >= every:
            last = time.monotonic() if isinstance(event, Tick) else last
            print(json.dumps(as_line(event)), flush=True)


class _Bar:
    def __init__(self, console: Console, label: str) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[where]}"),
        )
        self.progress = Progress(*columns, console=console, transient=True, expand=True, speed_estimate_period=120)
        # Without a total it only pulses: the untrained network is tested before the first step, which takes a while.
        self.id = self.progress.add_task(label or "train", total=None, where="starting")
        self.begun = False

    def move(self, at: Tick | Testing, loss: float) -> None:
        where = _where(at, loss)
        if isinstance(at, Testing):
            self.progress.update(self.id, where=where)
            return
        if not self.begun:  # the clock starts here, and a resumed run where it is: else its speed is misjudged
            self.progress.reset(self.id, total=at.total, completed=at.done, where=where)
            self.begun = True
        self.progress.update(self.id, completed=at.done, where=where)


def _where(at: Tick | Testing, loss: float) -> str:
    if isinstance(at, Testing):
        return f"testing group {at.group}/{at.groups}"
    return f"task {at.task}/{at.tasks} epoch {at.epoch}/{at.epochs} loss {loss:.3f} {times(at.ratio)}"


def _prefix(label: str) -> str:
    return f"{label}  " if label else ""


def _tell(console: Console, label: str, event: Event, joint: bool) -> None:
    if event["event"] == "task" and event["learned"]:
        console.print(f"{_prefix(label)}{task_line(event, joint)}", soft_wrap=True)
    if event["event"] == "warning":
        print(f"edgecl: warning: {event['message']}", file=sys.stderr)


def task_line(event: Event, joint: bool) -> str:
    """After a task, and so many seconds of training: the mean Class-IL accuracy of the groups learned so far, and each."""
    shares = [a for a in event["class_il"][: None if joint else event["learned"]] if a is not None]
    mean = percent(sum(shares) / len(shares)) if shares else "–"
    each = f" ({' '.join(map(percent, shares))})" if 1 < len(shares) <= SHOWN_GROUPS else ""
    return f"task {event['learned']} after {duration(event['seconds'])}  Class-IL {mean} %{each}"
