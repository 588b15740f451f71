"""F6: the command line. Only click is imported here; a command's module, and all that it needs, loads when it runs."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from edgecl import __version__

COMMANDS: dict[str, tuple[str, str]] = {
    "train": ("edgecl.cli.train", "Train on a stream of classes, within a budget."),
    "plan": ("edgecl.cli.plan", "Print what train would do and cost, layer by layer."),
    "eval": ("edgecl.cli.evaluate", "Test a run's newest snapshot, by group and by class."),
    "export": ("edgecl.cli.export", "Write a snapshot's network as a model file for another runtime."),
    "run": ("edgecl.cli.run", "Predict what a camera, files or standard input show, as lines of JSON."),
    "learn": ("edgecl.cli.learn", "Go on learning from labelled samples, new classes too, and keep predicting meanwhile."),
    "data": ("edgecl.cli.data", "List the data sets, and download them."),
    "methods": ("edgecl.cli.methods", "List the continual-learning methods and their options."),
    "bundle": ("edgecl.cli.bundle", "Make signed bundles for devices, check them, and install them."),
    "hub": ("edgecl.cli.hub", "Gather what devices learned, merge it, and give a better model to all."),
    "sync": ("edgecl.cli.sync", "Send what this device learned to its hub, and fetch better models."),
    "measure": ("edgecl.cli.measure", "Time this machine, so that budgets of time and energy can be planned."),
    "doctor": ("edgecl.cli.doctor", "Tell what this machine has, and which engines run on it."),
}
"""Name → module, whose `command` it is, and the sentence that `edgecl --help` shows without loading it."""


class LazyGroup(click.Group):
    """The commands above, each loaded when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[name][0]).command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            guess = f" Did you mean {near[0]!r}?" if near else f" Known: {', '.join(COMMANDS)}."
            raise click.UsageError(f"No such command {args[0]!r}.{guess}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExample:\n  edgecl train --budget 5x --compare dense",
)
@click.version_option(__version__, prog_name="edgecl")
def cli() -> None:
    """Continual learning on small devices: sparse training under a budget.

    Set EDGECL_DEBUG=1 to see the traceback behind an error.
    """


def main(args: Sequence[str] | None = None) -> None:
    """The entry point. Exits with 0, or with one line on standard error and the error's code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without × or α shows a question mark, and no traceback
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy loads: two threads on small products only wait
    try:
        code: Any = cli.main(args=list(sys.argv[1:] if args is None else args), prog_name="edgecl", standalone_mode=False)
        sys.stdout.flush()  # here, so that a reader who has gone is noticed
    except BaseException as error:
        from edgecl.cli.errors import report

        code = report(error)
    sys.exit(code if isinstance(code, int) else 0)
