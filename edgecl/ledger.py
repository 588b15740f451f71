"""What a run executed, layer by layer, in FLOPs; and what the dense baseline would have.

`executed` counts all that runs. `paper` is SparCL's convention: N·k·f, k = 3 for a current sample (forward, input and
weight gradient, the first layer's input gradient too) plus one forward for each replay draw, no replay backward.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgecl.cost import Count, LayerCost
from edgecl.types import I64

KINDS = (
    "forward",
    "input_gradient",
    "weight_gradient",
    "replay_forward",
    "replay_input_gradient",
    "replay_weight_gradient",
    "scoring",  # weight gradient taken only to score units or to choose gradient masks
    "upkeep",  # arithmetic and comparisons of a change of masks
)


class Ledger:
    """Counts; `add_step`, `add_forward` and `add_upkeep` are all that trains, `add_evaluation` stays outside the ratio."""

    def __init__(self, costs: tuple[LayerCost, ...]) -> None:
        self.costs = costs
        self.table: I64 = np.zeros((len(KINDS), len(costs)), np.int64)
        self.paper = 0
        self.evaluation = 0

    @property
    def executed(self) -> int:
        """FLOPs of training so far: summed as Python's integers, since those of a long run may not fit in 64 bits."""
        return sum(sum(row) for row in self.table.tolist())

    def add_step(self, table: I64, paper: int, times: int = 1) -> None:
        """`times` steps that cost `table` [KINDS, layers] each, as `step_table` makes it."""
        self.table += table * times
        self.paper += paper * times

    def add_upkeep(self, layer: int, flops: int) -> None:
        self.table[KINDS.index("upkeep"), layer] += flops

    def add_forward(self, samples: int, live: Count, times: int = 1) -> None:
        """Samples that go forward only, so that something is fitted to them."""
        flops = [times * samples * c.flops(live[c.name]) for c in self.costs]
        self.table[KINDS.index("replay_forward")] += np.array(flops, np.int64)
        self.paper += sum(flops)

    def add_evaluation(self, samples: int, live: Count) -> None:
        self.evaluation += samples * sum(c.flops(live[c.name]) for c in self.costs)

    def state(self) -> dict[str, Any]:
        """Plain values for a snapshot; `restore` takes them back."""
        return {"table": self.table.tolist(), "paper": self.paper, "evaluation": self.evaluation}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.table = np.array(state["table"], np.int64)
        self.paper, self.evaluation = int(state["paper"]), int(state["evaluation"])

    def report(self, dense: Ledger) -> dict[str, Any]:
        """What ledger.json holds, beside the baseline for the stream seen so far."""
        by_layer = {c.name: dict(zip(KINDS, map(int, self.table[:, i]), strict=True)) for i, c in enumerate(self.costs)}
        return {
            "executed": self.executed,
            "paper": self.paper,
            "dense_executed": dense.executed,
            "dense_paper": dense.paper,
            "ratio": dense.executed / self.executed if self.executed else None,
            "ratio_paper": dense.paper / self.paper if self.paper else None,
            "unit": "FLOPs (2 a multiply-add) of convolutions and linear layers",
            "by_kind": dict(zip(KINDS, map(sum, self.table.tolist()), strict=True)),
            "evaluation": self.evaluation,
            "by_layer": by_layer,
        }


def step_table(
    costs: tuple[LayerCost, ...],
    live: Count,
    updated: Count,
    gathered: Count | None,
    current: int,
    replay: int,
    again: int = 0,
) -> I64:
    """A step's FLOPs [KINDS, layers] with `current` and `replay` samples.

    `gathered`: weights whose gradient the step takes in all, where it gathers more than it updates. `again`: samples of
    passes that mix sources, which such a step sends back once for each source, since batch statistics tie them together.
    """
    rows = []
    for c in costs:
        forward, weight = c.flops(live[c.name]), 0 if c.frozen else c.flops(updated[c.name])
        back = forward if c.input_gradient else 0
        whole = c.flops(gathered[c.name]) if gathered and not c.frozen else 0
        scoring = (current + replay) * (whole - weight) + again * (back + whole) if gathered else 0
        rows.append([n * f for n in (current, replay) for f in (forward, back, weight)] + [scoring, 0])
    return np.array(rows, np.int64).T


def step_paper(costs: tuple[LayerCost, ...], live: Count, updated: Count, current: int, draws: int) -> int:
    """A step in SparCL's convention: every draw replays as many samples as are current.

    What a frozen prefix spares, its gradients and those of its own output, is not counted here either.
    """
    passes = {c.name: 1 + draws + (not c.spared) for c in costs}
    weights = {c.name: 0 if c.frozen else updated[c.name] for c in costs}
    return sum(current * (passes[c.name] * c.flops(live[c.name]) + c.flops(weights[c.name])) for c in costs)


def scoring_upkeep(weights: int, units: int) -> int:
    """Scoring `weights` (|w| + α|∂| + β|∂|, and its mean over units: 7 each) and sorting their units (n·log₂ n)."""
    return 7 * weights + _sort(units)


def gradient_mask_upkeep(weights: int, units: int) -> int:
    """Adding up |∂| over units (2 a weight) and sorting them."""
    return 2 * weights + _sort(units)


def _sort(units: int) -> int:
    return units * max(1, math.ceil(math.log2(max(units, 2))))
