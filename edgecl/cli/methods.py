"""`edgecl methods`."""

from __future__ import annotations

from typing import Any

import click

PAPERS = {
    "sgd": "lower bound",
    "joint": "upper bound",
    "er": "Ratcliff 1990; Chaudhry et al. 2019",
    "derpp": "Buzzega et al. 2020",
    "er_ace": "Caccia et al. 2022",
}


@click.command(epilog="\b\nExample:\n  edgecl methods --json")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def command(as_json: bool) -> None:
    """List the continual-learning methods and their options.

    An option is set with --set, as in `edgecl train --method derpp --set method.alpha=0.2`.
    """
    from edgecl.methods import METHODS

    rows = [_row(name) for name in METHODS]
    if as_json:
        import json

        print(json.dumps({"methods": {r.pop("name"): r for r in rows}}))
        return
    _print(rows)


def _print(rows: list[dict[str, Any]]) -> None:
    from edgecl.cli.look import bold, console, table

    t = table("Methods", "name", "options, with defaults", "passes", "paper")
    for r in rows:
        options = "\n".join(f"{k} = {v}" for k, v in r["options"].items())
        passes = "\n".join(" with ".join(p) for p in r["passes"])
        t.add_row(bold(r["name"]), options, passes, r["paper"], end_section=True)
    console().print(t)


def _row(name: str) -> dict[str, Any]:
    from edgecl.methods import make_method, options

    method = make_method(name, {})
    passes = [["current" if i == 0 else f"replay {i}" for i in p.parts] for p in method.passes()]
    return {"name": name, "options": options(name), "passes": passes, "draws": method.draws, "paper": PAPERS.get(name, "")}
