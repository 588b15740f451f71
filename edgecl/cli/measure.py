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
@click.option("--like", metavar="PLACE", help="Time what `edgecl learn PLACE` would train, in place of all options above.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def calibrate(as_json: bool, like: str | None, **given: Any) -> None:
    """Time training steps of the net and method on this machine, so that budgets of time and energy can be planned.

    Takes the options of train, and some seconds. The result is kept for this processor, instruction set, number of threads,
    engine, net and method, below $XDG_CACHE_HOME or ~/.cache.
    """
    from edgecl import measure

    config, stream = _wanted(given) if like is None else _as_lessons(like, given)
    clock = measure.calibrate(config, stream, _progress)
    path = measure.keep(config, stream, clock)
    if as_json:
        from edgecl.timing import as_plain

        print(json.dumps({"file": str(path), **as_plain(clock)}, allow_nan=False))
        return
    _print(clock, str(path))


def _wanted(given: dict[str, Any]) -> Any:
    from edgecl import session
    from edgecl.cli.options import choose

    config = session.with_engine(choose(given)[0])
    return config, session.read_stream(config.set("budget", ""))


def _as_lessons(place: str, given: dict[str, Any]) -> Any:
    """What lessons in a place need to know. Raises ConfigError beside other options, StoreError where there is no learner."""
    from pathlib import Path

    from edgecl import lesson
    from edgecl.cli.options import given_names
    from edgecl.model import open_model
    from edgecl.runtime import lessons
    from edgecl.runtime.place import find
    from edgecl.types import ConfigError, StoreError

    if given_names(given):
        raise ConfigError(f"--like times what that place would train: it can't take {', '.join(given_names(given))}")
    found = find(Path(place))
    run = lessons.newest(found, found.lessons)
    if run is None:
        raise StoreError(f"{place}: holds no learner")
    return lesson.timed_like(open_model(run))


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
