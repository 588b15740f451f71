#!/usr/bin/env python3
"""Tables and a picture from bench/records: one row a setting, over its seeds.

    python bench/tables.py [--records DIR] [--out docs/results.md] [--picture docs/pictures/accuracy.svg] [--quick]

A setting is a record's name without its seed (`c10-derpp-23x-s1` → `c10-derpp-23x`). Every figure is the mean over seeds with
its 95 % interval (Student's t). The picture needs matplotlib (`pip install 'edgecl[report]'`). Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parent.parent
SEED = re.compile(r"-s(\d+)$")
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
"""Two-sided 95 % points of Student's t for 1 to 15 degrees of freedom; above that 1.96 is within 9 %."""

PUBLISHED = 72.70
"""Class-IL % of DER++ with a memory of 500 (Buzzega et al. 2020, table 2)."""


class Mean(NamedTuple):
    """Over n seeds; `half` is half of the 95 % interval, None of one seed."""

    value: float
    std: float | None
    half: float | None
    n: int

    def __str__(self) -> str:
        return f"{self.value:.2f}" if self.half is None else f"{self.value:.2f} ± {self.half:.2f}"


def mean(values: Sequence[float]) -> Mean:
    """Mean, sample standard deviation and half of the 95 % interval."""
    n = len(values)
    if n < 2:
        return Mean(values[0], None, None, n)
    std = statistics.stdev(values)
    t = T95[n - 2] if n - 2 < len(T95) else 1.96
    return Mean(statistics.fmean(values), std, t * std / math.sqrt(n), n)


@dataclass(frozen=True)
class Row:
    """One setting."""

    name: str
    memory: int  # samples
    epochs: int
    seeds: tuple[int, ...]
    what: str
    executed: float  # FLOPs
    paper: float
    ratio: float
    ratio_paper: float
    class_il: Mean
    task_il: Mean
    forgetting: Mean


def read(records: Path) -> list[Row]:
    """A row for each setting that has a record, sorted by memory and epochs, then by cost, dearest first."""
    groups: dict[str, list[tuple[int, dict[str, Any], dict[str, Any]]]] = {}
    for folder in sorted(records.iterdir()):
        found = SEED.search(folder.name)
        if found and (folder / "result.json").exists():
            result = json.loads((folder / "result.json").read_text())
            config = yaml.safe_load((folder / "config.yaml").read_text())["config"]
            groups.setdefault(SEED.sub("", folder.name), []).append((int(found[1]), result, config))
    return sorted((_row(name, runs) for name, runs in groups.items()), key=lambda r: (-r.memory, -r.epochs, -r.executed, r.name))


MEANS = {"class_il": "class_il_accuracy", "task_il": "task_il_accuracy", "forgetting": "class_il_forgetting"}
"""Fields of a row, and what a result calls them."""


def _row(name: str, runs: list[tuple[int, dict[str, Any], dict[str, Any]]]) -> Row:
    results, config = [r for _, r, _ in runs], runs[0][2]
    figures: dict[str, Any] = {field: mean([100 * r[key] for r in results]) for field, key in MEANS.items()}
    figures |= {k: statistics.fmean(r[k] for r in results) for k in ("executed", "paper", "ratio", "ratio_paper")}
    seeds = tuple(sorted(seed for seed, _, _ in runs))
    return Row(name, config["memory"]["capacity"], config["train"]["epochs"], seeds, describe(config), **figures)


def describe(config: dict[str, Any]) -> str:
    """What is not usual in a configuration, in few words."""
    words = [config["method"]["name"], f"w{config['net']['width'] or 64}"]
    return ", ".join([*words, *_pruning(config), *_training(config), *_replay(config)])


def _pruning(config: dict[str, Any]) -> list[str]:
    mask, tdm, words = config["mask"], config["tdm"], list[str]()
    if mask["sparsity"]:
        words = [f"{100 * mask['sparsity']:.1f} % of {'kernels' if mask['unit'] == 'auto' else mask['unit'] + 's'} masked"]
        words += ["mask fixed"] * (not tdm["enabled"]) + ["ERK"] * (mask["start"] == "erk")
        words += ["pruned by magnitude"] * (tdm["alpha"] == tdm["beta"] == 0 and tdm["enabled"])
        words += ["grown by gradient"] * (tdm["grow"] == "gradient" and tdm["enabled"])
        words += [f"{config['dgm']['share']:.0%} updated"] * (config["dgm"]["share"] < 1)
    return words + [f"data removal {config['ddr']['share']:.0%}"] * bool(config["ddr"]["share"])


def _training(config: dict[str, Any]) -> list[str]:
    train = config["train"]
    words = [f"{train['schedule']} rate"] * (train["schedule"] != "constant")
    words += [f"momentum {train['momentum']}, rate {train['rate']}"] * bool(train["momentum"])
    share = train.get("average", 0.0)  # not in older records
    words += [f"mean of the last {share:.0%}"] * bool(share)
    frozen = config.get("freeze", {}).get("until")
    return words + [f"frozen up to {frozen} after the first task"] * bool(frozen)


USUAL: dict[str, dict[str, Any]] = {
    "derpp": {"alpha": 0.1, "beta": 0.5, "forward": "separate"},
    "er_ace": {"forward": "separate"},
}
"""Options of methods as published, where they are worth a word if they differ."""


def _replay(config: dict[str, Any]) -> list[str]:
    method, memory = config["method"], config["memory"]
    usual = USUAL.get(method["name"], {})
    words = ["one replay draw"] * (method.get("draws") == 1)
    words += [f"draws of {memory['batch']}"] * bool(memory["batch"])
    words += [f"{key} {method[key]}" for key in ("alpha", "beta") if method.get(key) != usual.get(key)]
    words += ["one pass"] * (method.get("forward") == "concat" and "forward" in usual)
    return words + ["no class mask"] * (method.get("class_mask") == "none")


STEP = 9 * 2 * 555_422_720 - 3 * 2 * 64 * 3 * 9 * 32 * 32
"""FLOPs that dense DER++, two draws of 32, executes a current sample (docs/sparcl.md, two counts of FLOPs)."""

SAMPLES = 312 * 32 * 5
"""Current samples of an epoch of all five tasks: full batches only."""


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    costs = ("PFLOP executed", "against DER++", "fewer, executed", "paper")
    heads = ("setting", "what", *costs, "Class-IL %", "std", "Task-IL %", "forgetting", "seeds")
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for r in rows:
        std = "–" if r.class_il.std is None else f"{r.class_il.std:.2f}"
        ratios = [f"{v:.1f}×" for v in (STEP * SAMPLES * r.epochs / r.executed, r.ratio, r.ratio_paper)]
        cells = (r.name, r.what, f"{r.executed / 1e15:.3g}", *ratios, r.class_il, std, r.task_il, r.forgetting, len(r.seeds))
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def page(rows: Sequence[Row]) -> str:
    """The whole of docs/results.md: a table a size of memory and length of training."""
    parts = ["# Results", "", INTRO]
    for memory, epochs in sorted({(r.memory, r.epochs) for r in rows}, reverse=True):
        title = f"## Memory of {memory}, {epochs} epochs a task"
        parts += ["", title, "", table([r for r in rows if (r.memory, r.epochs) == (memory, epochs)])]
    return "\n".join(parts) + "\n"


INTRO = """Made by `python bench/tables.py` from [bench/records](../bench/records); nothing here is written by hand.
Split CIFAR-10, 5 tasks of 2 classes, ResNet-18, batch 32. A figure with ± is the mean over seeds and its 95 % interval
(Student's t); one without has a single seed and is a hint. Compare rows of the same table only. "Against DER++" is how many
times fewer FLOPs run than dense DER++ with its two draws of 32 takes for as many epochs; "fewer" is against the dense net with
the row's own method, which one replay draw, or a smaller one, makes cheaper too.

![Class-IL accuracy over FLOPs executed, memory of 500, 50 epochs a task](pictures/accuracy.svg)"""


def label_of(name: str) -> str:
    """A setting's name, as short as the picture needs it."""
    return name.removeprefix("c10-derpp-").replace("-momentum-average", " *").replace("w64-onedraw", "onedraw")


def draw(rows: Sequence[Row], path: Path) -> None:
    """Class-IL accuracy over FLOPs executed, a point a setting: a memory of 500, longest training."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "edgecl"  # the same bytes every time
    import matplotlib.pyplot as plt

    longest = [r for r in rows if (r.memory, r.epochs) == (500, max(r.epochs for r in rows))]
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for dense, color, label in ((True, "#555555", "dense"), (False, "#0a7d5a", "edgecl, sparse")):
        chosen = [r for r in longest if (r.ratio < 1.5) == dense]
        y, e = [r.class_il.value for r in chosen], [r.class_il.std or 0 for r in chosen]
        axes.errorbar([r.executed for r in chosen], y, e, fmt="o", color=color, capsize=3, label=label)
        for r in chosen:
            where = (r.executed, r.class_il.value)
            to_left = dense or r.executed == min(c.executed for c in chosen)
            side = {"xytext": (-7, 4), "ha": "right"} if to_left else {"xytext": (7, 4)}
            axes.annotate(label_of(r.name), where, textcoords="offset points", size=8, **side)
    axes.axhline(PUBLISHED, color="#b06000", lw=1, ls="--", label="DER++ as published (no class mask)")
    axes.set(xscale="log", xlabel="FLOPs executed in training", ylabel="Class-IL accuracy, %")
    axes.set_title("Split CIFAR-10, DER++, 500 kept; bars: standard deviation; * momentum and mean", size=10)
    axes.margins(x=0.3)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=ROOT / "bench/records")
    parser.add_argument("--out", type=Path, help="Markdown page to write; default: print the tables")
    parser.add_argument("--picture", type=Path, help="SVG to write")
    parser.add_argument("--quick", action="store_true", help="read and print, write nothing")
    args = parser.parse_args()
    rows = read(args.records)
    if args.out and not args.quick:
        args.out.write_text(page(rows))
    else:
        print(page(rows))
    if args.picture and not args.quick:
        draw(rows, args.picture)
    print(json.dumps({"settings": len(rows), "runs": sum(len(r.seeds) for r in rows)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
