"""The one look of all that is printed: the terminal's own colours, and no markup in anybody's file names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def console(**options: Any) -> Console:
    """Standard output, unless `options` say otherwise."""
    return Console(highlight=False, markup=False, emoji=False, **options)


def table(title: str, *columns: str, right: Iterable[str] = ()) -> Table:
    """A table with these columns; those of `right` hold numbers."""
    t = Table(
        title=title,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    for column in columns:
        t.add_column(column, justify="right" if column in set(right) else "left")
    return t


def grid(rows: Iterable[tuple[str, str]]) -> Table:
    """Names in bold, what they are beside them."""
    t = Table.grid(padding=(0, 2))
    t.add_column(style="bold", no_wrap=True)
    t.add_column(overflow="fold")
    for name, text in rows:
        t.add_row(name, text)
    return t


def bold(text: str) -> Text:
    return Text(text, style="bold")
