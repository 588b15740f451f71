"""`edgecl data`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgecl.data import Row


@click.group(epilog="\b\nExample:\n  edgecl data list")
def command() -> None:
    """List the data sets, and download them."""


ROOT = click.option(
    "--data-root", metavar="DIR", default="", help="Folder of the data sets. [$EDGECL_DATA, else ~/.cache/edgecl]"
)


@command.command("list", epilog="\b\nExample:\n  edgecl data list --data-root ~/sets")
@ROOT
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def list_(data_root: str, as_json: bool) -> None:
    """List the data sets that are known by name, and whether they are on this machine."""
    import json

    from edgecl.data import catalog

    rows = catalog(data_root)
    if as_json:
        sets = {r.name: {**_plain(r.entry), "where": str(r.where) if r.where else None} for r in rows}
        print(json.dumps({"data": sets}))
        return
    from edgecl.cli.look import bold, console, grid

    for r in rows:
        console().print(bold(r.name))
        console().print(grid(_lines(r)))


def _lines(row: Row) -> Iterator[tuple[str, str]]:
    e = row.entry
    yield "  what", f"{e.title}: {e.classes} classes, {e.train:,} training and {e.test:,} test samples"
    yield "  aliases", ", ".join(e.aliases)
    yield "  licence", e.licence
    yield "  here", str(row.where) if row.where else f"no; to have it: {e.hint}"


def _plain(entry: object) -> dict[str, object]:
    return {k: v for k, v in vars(entry).items() if not callable(v)}


@command.command("get", epilog="\b\nExample:\n  edgecl data get cifar10")
@click.argument("name")
@ROOT
@click.option("--url", metavar="URL", help="Another address of the same archive. [the authors' own]")
def get(name: str, data_root: str, url: str | None) -> None:
    """Download a data set from its authors' address, check it and unpack it; what was cut off goes on."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from edgecl.cli.look import console as make_console
    from edgecl.data import fetch

    console = make_console()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    path = None
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks: dict[str, TaskID] = {}
        for at in fetch.get(name, data_root, url=url):
            path = at.path
            step = "download" if at.step == "wait" else at.step
            if at.total and step not in tasks:
                tasks[step] = bar.add_task(step, total=at.total, completed=at.done)
            elif step in tasks:
                bar.update(tasks[step], completed=at.done, description="waiting" if at.step == "wait" else step)
    console.print(f"{name} lies in {path}", soft_wrap=True)
