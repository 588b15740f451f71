"""`edgecl measure`."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from edgecl.cli.options import planning


@click.group(epilog="\b\nExample:\n  edgecl measure calibrate --data cifar10 --engine native")
def command() -> None:
    """Time this machine, so that budgets of time and energy can be planned."""


@command.command("calibrate", epilog="\b\nExample:\n  edgecl measure calibrate --data cifar10 --method derpp --engine native")
@planning
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def calibrate(as_json: bool, **given: Any) -> None:
    """Time training steps of the net and method on this machine, so that budgets of time and energy can be planned.

    Takes the options of train, and some seconds. The result is kept for this processor, instruction set, number of threads,
    engine, net and method, below $XDG_CACHE_HOME or ~/.cache.
    """
    from edgecl import measure, session
    from edgecl.cli.options import choose

    config = session.with_engine(choose(given)[0])
    stream = session.read_stream(config.set("budget", ""))
    clock = measure.calibrate(config, stream, _progress)
    path = measure.keep(config, stream, clock)
    if as_json:
        from edgecl.timing import as_plain

        print(json.dumps({"file": str(path), **as_plain(clock)}, allow_nan=False))
        return
    _print(clock, str(path))


def _progress(done: int, of: int) -> None:
    if sys.stderr.isatty() or done == of:
        print(f"\redgecl: timed {done} of {of} settings", end="\n" if done == of else "", file=sys.stderr, flush=True)


def _print(clock: Any, path: str) -> None:
    from edgecl.cli.look import console, grid
    from edgecl.cli.text import percent

    watts = "no meter here (RAPL): energy will be an estimate" if clock.watts is None else f"{clock.watts:.1f} W, measured (RAPL)"
    rows = [
        ("clock", clock.source),
        ("error", f"{percent(clock.error)} % (median, each step predicted from all the others)"),
        ("power", watts),
        ("kept in", path),
    ]
    console().print(grid(rows))
