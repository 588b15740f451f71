"""`edgecl eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgecl.session import Opened

EPILOG = """\b
Example:
  edgecl eval runs/20250131-142530-digits-derpp
"""


@click.command(epilog=EPILOG)
@click.argument("run")
@click.option("--snapshot", type=int, metavar="N", help="Number of the snapshot. [the newest]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def command(run: str, snapshot: int | None, as_json: bool) -> None:
    """Test a run's newest snapshot, by group and by class.

    Class-IL chooses among all classes seen so far, Task-IL among those of the sample's own group. Changes nothing in RUN.
    """
    from edgecl import session

    shown = measure(session.open_snapshot(Path(run), snapshot))
    if as_json:
        print(json.dumps({"run": run, **shown}, allow_nan=False))
    else:
        _print(shown)


def measure(opened: Opened) -> dict[str, Any]:
    """Accuracy of every group and class of the whole stream; Class-IL is None for a group not seen yet."""
    stream, seen = opened.setup.stream, opened.seen_groups
    groups = [_group(opened, g) for g in range(len(stream.groups))]
    known = [g["class_il"] for g in groups[:seen]]
    return {
        "snapshot": opened.number,
        "groups_seen": seen,
        "class_il": sum(known) / seen if seen else None,
        "task_il": sum(g["task_il"] for g in groups[:seen]) / seen if seen else None,
        "groups": groups,
    }


def _group(opened: Opened, g: int) -> dict[str, Any]:
    import numpy as np

    from edgecl.evaluate import predict

    stream, test = opened.setup.stream, opened.setup.stream.tests[g]
    logits = predict(opened.engine, stream, test)
    own, seen = sorted(stream.groups[g]), sorted(c for x in stream.groups[: opened.seen_groups] for c in x)
    right = {"task_il": np.array(own)[logits[:, own].argmax(1)] == test.y}
    if g < opened.seen_groups:
        right["class_il"] = np.array(seen)[logits[:, seen].argmax(1)] == test.y

    def shares(rows: Any) -> dict[str, Any]:
        return {k: float(right[k][rows].mean()) if k in right else None for k in ("class_il", "task_il")}

    classes = [{"id": c, "name": stream.class_names[c], "samples": int((test.y == c).sum()), **shares(test.y == c)} for c in own]
    return {"group": g + 1, "samples": len(test), **shares(slice(None)), "classes": classes}


def _print(shown: dict[str, Any]) -> None:
    from edgecl.cli.look import console, table
    from edgecl.cli.text import percent

    title = f"Snapshot {shown['snapshot']:03d}, {shown['groups_seen']} of {len(shown['groups'])} groups seen; accuracy in %"
    numbers = ("samples", "Class-IL", "Task-IL")
    t = table(title, "group", "class", *numbers, right=numbers)
    for group in shown["groups"]:
        t.add_section()
        t.add_row(str(group["group"]), "", f"{group['samples']:,}", *_shares(group), style="bold")
        for c in group["classes"]:
            t.add_row("", c["name"], f"{c['samples']:,}", *_shares(c))
    t.add_section()
    t.add_row("seen", "mean of groups", "", percent(shown["class_il"]), percent(shown["task_il"]), style="bold")
    console().print(t)


def _shares(row: dict[str, Any]) -> tuple[str, str]:
    from edgecl.cli.text import percent

    return percent(row["class_il"]), percent(row["task_il"])
