"""The tables that a run ends with, in the terminal's own colours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgecl.cli.look import bold, table
from edgecl.cli.outcome import Outcome
from edgecl.cli.text import duration, energy, flops, percent, size, three, times
from edgecl.methods import METHODS

SIMULATED = ("torch", "numpy")
"""Engines that multiply by the zeros of a mask."""

MASKS_SAVE_NO_TIME = (
    "With the {} engine masks lie over dense tensors and save no time: "
    "less time here comes from a narrower net, from removed samples or from chance."
)


def print_outcome(console: Console, shown: Outcome) -> None:
    """Accuracy after each task, then what it cost; then what a profile predicts, apart."""
    runs = {name_of(shown): shown} | ({"dense": shown["dense"]} if shown["dense"] else {})
    console.print("", accuracy_table(runs, console.width), "", summary_table(shown), "", sep="\n")
    console.print(Text.assemble(("Run folder  ", "bold"), shown["run"]), soft_wrap=True)
    if shown["sparsity"] and shown["engine"] in SIMULATED:
        console.print(MASKS_SAVE_NO_TIME.format(shown["engine"]))
    if shown["prediction"]:
        console.print(prediction_block(shown["prediction"]))


def name_of(result: dict[str, Any]) -> str:
    """A run's column: its method, and what it is where it saves anything."""
    saves = result["ratio"] and result["ratio"] > 1.005
    return f"{result['method']} {three(result['ratio'])}×" if saves else str(result["method"])


# accuracy


def accuracy_table(runs: dict[str, dict[str, Any]], width: int) -> Table:
    """A row a task, a column a group; where the groups don't fit, only their means."""
    groups = max(len(r["accuracy"][0]["class_il"]) for r in runs.values())
    wide = 30 + 9 * groups <= width
    numbers = [*((f"group {g + 1}" for g in range(groups)) if wide else ()), "Class-IL", "Task-IL"]
    t = table("Accuracy after each task, %", "", *numbers, right=numbers)
    for name, result in runs.items():
        if len(runs) > 1:
            t.add_row(bold(name))
        for row in _rows(result, groups if wide else 0):
            t.add_row(*row)
        t.add_section()
    return t


def _rows(result: dict[str, Any], groups: int) -> Iterator[list[str]]:
    joint = METHODS[result["method"]].joint
    for learned, row in enumerate(result["accuracy"][1:], 1):
        seen = len(row["class_il"]) if joint else learned
        cells = [percent(a) if g < seen else "" for g, a in enumerate(row["class_il"][:groups])]
        means = [percent(_mean(row[k][:seen])) for k in ("class_il", "task_il")]
        yield ["all tasks" if joint else f"task {learned}", *cells, *means]


def _mean(shares: list[float | None]) -> float | None:
    known = [a for a in shares if a is not None]
    return sum(known) / len(known) if known else None


# cost


def summary_table(shown: Outcome) -> Table:
    """The run beside the dense baseline, which was run or only counted."""
    dense = shown["dense"]
    columns = (name_of(shown), "dense" if dense else "dense, not run", "× fewer")
    t = table("What it learned and what it cost", "", *columns, right=columns)
    for title, key, form in LEARNED:
        if shown[key] is not None:
            t.add_row(title, form(shown[key]), form(dense[key]) if dense else "", "")
    t.add_section()
    for row in _costs(shown, dense):
        t.add_row(*row)
    return t


def _signed(share: float | None) -> str:
    return "–" if share is None else f"{round(100 * share, 1) + 0:+.1f} %"  # + 0: no -0.0


def _share(share: float | None) -> str:
    return "–" if share is None else f"{percent(share)} %"


LEARNED = (
    ("Class-IL accuracy", "class_il_accuracy", _share),
    ("Class-IL forgetting", "class_il_forgetting", _share),
    ("Class-IL backward transfer", "class_il_bwt", _signed),
    ("Task-IL accuracy", "task_il_accuracy", _share),
    ("Task-IL forgetting", "task_il_forgetting", _share),
    ("Task-IL backward transfer", "task_il_bwt", _signed),
    ("Task-IL forward transfer", "task_il_fwt", _signed),
)


def _costs(shown: Outcome, dense: dict[str, Any] | None) -> Iterator[tuple[str, str, str, str]]:
    def both(key: str, form: Any) -> tuple[str, str]:
        return form(shown[key]), form(dense[key]) if dense else ""

    yield "FLOPs executed", flops(shown["executed"]), flops(shown["dense_executed"]), times(shown["ratio"])
    yield "FLOPs, the paper's count", flops(shown["paper"]), flops(shown["dense_paper"]), times(shown["ratio_paper"])
    yield "training time, measured", *both("seconds", duration), times(shown.get("seconds_ratio")) if dense else ""
    if shown["dense_seconds_predicted"] and not dense:
        yield _beside_predicted(shown["dense_seconds_predicted"], shown["seconds"], shown["cpu_seconds"])
    if shown["energy"]:
        yield "energy, estimated", *both("energy", lambda e: energy(e["joules"])), ""
    yield "peak memory, measured", *both("peak_rss_bytes", size), ""
    yield "replay memory", *both("memory_bytes", size), ""


def _beside_predicted(dense: float, wall: float, cpu: float) -> tuple[str, str, str, str]:
    """One thread is calibrated in the processor's seconds, and compared in them; several take more of them than on the wall."""
    title, own = ("  the processor's, dense predicted", cpu) if cpu < wall else ("  dense predicted", wall)
    return title, duration(own), duration(dense), times(dense / own) if own else ""


# prediction


def prediction_block(said: dict[str, Any]) -> RenderableType:
    """Apart from all that was measured."""
    took, used = said["dense_seconds"], said["dense_joules"]
    lines = [
        bold(f"Predicted for {said['device']} ({said['title']}) by its profile; nothing of this was measured"),
        Text(
            f"dense training  at best {duration(took) if took else 'time unknown'}, {energy(used) if used else 'energy unknown'}"
        ),
        Text(f"by its figures  {_figures(said['figures'])}"),
        Text("Its share of the peak was measured on ResNet-18 at 224×224 pixels: smaller nets and pictures reach less."),
        Text("What masks save on the clock is reckoned from FLOPs: the kernels have not been timed on this device."),
    ]
    return Group(Text(), *lines)


def _figures(figures: dict[str, dict[str, Any]]) -> str:
    """What the prediction is made of; `edgecl plan --device` prints where each figure is from."""
    shown = {
        k: f"{f['value']:g}" + "*" * f["source"].startswith("estimate") for k, f in figures.items() if f["value"] is not None
    }
    forms = {
        "core_count": "{} cores",
        "peak_gflops_fp32": "{} GFLOP/s a core at most",
        "training_efficiency": "{} of that in training",
        "power_load_w": "{} W under load",
    }
    note = " (* an estimate)" if any(v.endswith("*") for v in shown.values()) else ""
    return ", ".join(forms[k].format(v) for k, v in shown.items()) + note
