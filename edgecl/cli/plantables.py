"""What `edgecl plan` prints: the plan, its cost by layer and by part, and what a profile makes of it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from rich.table import Table

from edgecl.cli.look import bold, console, grid, table
from edgecl.cli.outcome import prediction
from edgecl.cli.plantext import chain, choices, headline, layers, limits, scale
from edgecl.cli.tables import prediction_block
from edgecl.cli.text import flops, percent, si, size, three, times
from edgecl.forecast import Workload, method_of
from edgecl.memory import Reservoir
from edgecl.plan import Plan
from edgecl.profiles import load_profile
from edgecl.timing import as_plain
from edgecl.types import Stream

PARTS = ("forward", "backward", "upkeep")


def plain(plan: Plan, work: Workload) -> dict[str, Any]:
    """For --json."""
    return {
        "net": plan.net.name,
        "ratio": plan.ratio,
        "ratio_paper": plan.dense.paper / plan.ledger.paper,
        "chain": chain(plan, work),
        "executed": plan.ledger.executed,
        "paper": plan.ledger.paper,
        "dense_executed": plan.dense.executed,
        "dense_paper": plan.dense.paper,
        "limit": plan.limit,
        "seconds": plan.seconds,
        "aside_seconds": plan.aside_seconds,
        "dense_seconds": plan.dense_seconds,
        "clock_ratio": plan.clock_ratio,
        "clock_held": plan.clocked,
        "clock": as_plain(plan.device.clock) if plan.device.clock and plan.device.clock.measured else None,
        "peak_bytes": plan.bytes,
        "parts_bytes": plan.parts,
        "joules": plan.joules,
        "limits": {k: None if v is None else float(v) for k, v in vars(plan.budget).items()},
        "memory_bytes": replay_bytes(plan),
        "layers": list(layers(plan)),
        "prediction": predicted(plan),
        "config": plan.config.to_dict(),
    }


def replay_bytes(plan: Plan) -> int:
    """Of the replay memory's arrays; 0 for a method that replays nothing."""
    if not method_of(plan.config).draws:
        return 0
    return Reservoir.empty(plan.config.memory.capacity, plan.net.input, plan.net.classes).nbytes


def predicted(plan: Plan) -> dict[str, Any] | None:
    device = plan.config.device
    return None if device == "host" else prediction(load_profile(device), plan.dense.executed)


def print_plan(plan: Plan, work: Workload, stream: Stream, pinned: Collection[str]) -> None:
    screen, said = console(), predicted(plan)
    screen.print(bold(headline(plan.config, stream)), soft_wrap=True)
    screen.print(grid([*choices(plan, work.sizes, pinned), *limits(plan)]))
    screen.print("", layer_table(plan), "", chain_table(plan, work), "", sep="\n")
    paper = f"{flops(plan.ledger.paper)}, {times(plan.dense.paper / plan.ledger.paper)} fewer than {flops(plan.dense.paper)}"
    screen.print(grid([("FLOPs, the paper's count", paper), ("replay memory", size(replay_bytes(plan)))]))
    if said:
        screen.print(prediction_block(said))
        screen.print(grid((f"  {k}", f["source"]) for k, f in said["figures"].items()))


def layer_table(plan: Plan) -> Table:
    rows = list(layers(plan))
    divisor, unit = scale(max(r["forward"] + r["backward"] for r in rows))
    timed = ("seconds",) if plan.layer_seconds is not None else ()
    columns = ("layer", "weights", "unit", "live %", *PARTS, "share %", *timed)
    t = table(f"The whole run by layer, {unit}", *columns, right=[c for c in columns if c not in ("layer", "unit")])
    for r in rows:
        costs = [f"{r[k] / divisor:,.2f}" for k in PARTS]
        t.add_row(
            r["layer"],
            si(r["weights"], ""),
            r["unit"] or "–",
            percent(r["density"]),
            *costs,
            percent(r["share"]),
            *_seconds(timed, r["seconds"]),
        )
    t.add_section()
    sums = [f"{sum(r[k] for r in rows) / divisor:,.2f}" for k in PARTS]
    t.add_row("all", si(sum(r["weights"] for r in rows), ""), "", "", *sums, "100.0", *_seconds(timed, plan.seconds))
    return t


def _seconds(timed: tuple[str, ...], value: float | None) -> list[str]:
    return [three(value or 0.0)] if timed else []


def chain_table(plan: Plan, work: Workload) -> Table:
    """How the parts multiply up to the plan's ratio."""
    t = table("What divides the cost", "", "fewer FLOPs", "leaves", right=("fewer FLOPs", "leaves"))
    left = float(plan.dense.executed)
    t.add_row("dense", "", flops(left))
    for name, factor in chain(plan, work).items():
        left /= factor
        t.add_row(name, times(factor), flops(left))
    t.add_section()
    t.add_row("all, multiplied", times(plan.ratio), flops(plan.ledger.executed))
    return t
