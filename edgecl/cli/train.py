"""`edgecl train`."""

from __future__ import annotations

import json
from typing import Any

import click

from edgecl.cli.options import given_names, planning

EPILOG = """\b
Examples:
  edgecl train
  edgecl train --budget 5x --compare dense
  edgecl train --engine native --budget 10x,10min,256MB
  edgecl train --data cifar10 --device rpi --budget 23x --samples-per-class 500
  edgecl train --resume runs/20250131-142530-digits-derpp
"""


@click.command(epilog=EPILOG)
@planning
@click.option("--compare", type=click.Choice(["dense"]), help="Then train the dense baseline too, and show both.")
@click.option("--run", metavar="DIR", help="Run folder; made if absent. [runs/<time>-<data>-<method>]")
@click.option("--resume", metavar="DIR", help="Go on with the run in this folder, from its newest snapshot.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else on standard output.")
@click.option("--quiet", is_flag=True, help="Print only the tables at the end.")
@click.option("--events", is_flag=True, hidden=True, help="Print one line of JSON an event, till standard input ends.")
def command(
    compare: str | None, run: str | None, resume: str | None, as_json: bool, quiet: bool, events: bool, **given: Any
) -> None:
    """Train on a stream of classes, within a budget.

    What you give is kept; the planner chooses the rest (width, sparsity, data removal, gradient share) so that the budget
    holds. Ctrl-C stops with a snapshot, from which --resume goes on.
    """
    refused = [*given_names(given), *(["--run"] if run else [])]
    if resume is not None and refused:
        from edgecl.types import ConfigError

        raise ConfigError(f"--resume goes on with a run as it was planned: it can't take {', '.join(refused)}")
    if events:
        from edgecl.cli.signals import end_with_parent

        end_with_parent()
    from edgecl.cli import look, running, screen, tables

    console = None if events else screen.console_for(as_json=as_json, quiet=quiet)
    baseline = compare is not None
    shown = running.resume(resume, baseline, console) if resume is not None else running.start(given, run, baseline, console)
    if as_json:
        print(json.dumps(shown, allow_nan=False))
    elif not events:
        tables.print_outcome(look.console(), shown)
