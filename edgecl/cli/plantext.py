"""A plan for people: what was chosen, by whom, and what it costs, part by part and layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from fractions import Fraction
from typing import Any

from rich.console import Console

from edgecl import recipe, schedule
from edgecl.budget import Budget
from edgecl.cli.look import bold, grid
from edgecl.cli.text import PREFIXES, count, duration, energy, flops, percent, size, times
from edgecl.config import Config, get
from edgecl.forecast import Workload, simulate
from edgecl.layout import frozen_nodes, masked_layers
from edgecl.ledger import KINDS
from edgecl.nets import full_width, weights_file
from edgecl.plan import Plan, baseline, build
from edgecl.state import Setup
from edgecl.timing import skips
from edgecl.types import Stream

FORWARD = ("forward", "replay_forward")
BACKWARD = ("input_gradient", "weight_gradient", "replay_input_gradient", "replay_weight_gradient")
UPKEEP = ("scoring", "upkeep")

CHAIN = (
    ("replay", recipe.REPLAY),
    ("width", ("net.width",)),
    ("masks", ("mask.sparsity",)),
    ("data removal", ("ddr.share",)),
    ("gradient mask", ("dgm.share",)),
    ("frozen prefix", ("freeze.until",)),
)
"""The parts of a budget, in the order in which they are laid over the dense baseline."""

SELDOM = {"replay": recipe.DENSE, "frozen prefix": ("freeze.until",)}
"""Parts that are left out where these keys are not set."""


def introduce(console: Console, setup: Setup, pinned: Collection[str]) -> None:
    """Before the first step: what the plan is, and where the run folder lies."""
    console.print(bold(headline(setup.config, setup.stream)), soft_wrap=True)
    sizes = [len(t.train) for t in setup.stream.tasks]
    plan = setup.plan
    said = limits(plan) if plan.budget != Budget(plan.budget.compute) else on_the_clock(plan)
    console.print(grid([*choices(setup.plan, sizes, pinned), *said, ("run folder", str(setup.run))]))
    console.print()


def headline(config: Config, stream: Stream) -> str:
    samples, classes = sum(len(t.train) for t in stream.tasks), len(stream.class_names)
    groups = f"{count(classes, 'class', 'classes')} in {count(len(stream.groups), 'group')}, {samples:,} samples"
    return f"{config.method['name']} on {stream.name}: {groups}, {count(config.train.epochs, 'epoch')} a task, seed {config.seed}"


def choices(plan: Plan, sizes: Sequence[int], pinned: Collection[str]) -> list[tuple[str, str]]:
    """What the plan is made of, for tasks of these `sizes`; a narrowed net is said, and how to keep it."""
    c = plan.config
    gradients = f"{percent(c.dgm.share)} % of live units updated" if c.dgm.share < 1 and c.mask.sparsity else "all live weights"
    return [
        ("network", f"{plan.net.name}{_width(c, pinned)}{_weights_from(c)}"),
        ("weights", _weights(plan)),
        ("data", _data(c, sizes)),
        ("epochs", f"{c.train.epochs} a task"),
        ("gradients", gradients),
        *_replay(c),
        *_smoothing(c),
        *([("frozen", _frozen(plan, sizes))] if c.freeze.until else []),
        *_storage(c, pinned),
        ("FLOPs", _flops(plan)),
    ]


def _replay(c: Config) -> list[tuple[str, str]]:
    """Where the run replays less than its baseline: how much, and how to keep what the baseline does."""
    if not (c.memory.dense_draws or c.memory.dense_batch):
        return []
    own, dense = recipe.replay(c), recipe.replay(recipe.undone(c))
    keys = [f"--set {k}={v}" for k, v, w in zip(recipe.REPLAY, dense, own, strict=True) if v != w]
    return [("replay", f"{_draws(*own)} a step, dense {_draws(*dense)}; {' '.join(keys)} keeps that")]


def _draws(draws: int, batch: int) -> str:
    return f"{count(draws, 'draw')} of {count(batch, 'sample')}"


def _smoothing(c: Config) -> list[tuple[str, str]]:
    momentum = [f"momentum {c.train.momentum:g} at rate {c.train.rate:g}"] * bool(c.train.momentum)
    mean = [f"each task ends as the mean of its last {percent(c.train.average)} %"] * bool(c.train.average)
    return [("updates", ", ".join(momentum + mean))] if momentum or mean else []


def _storage(c: Config, pinned: Collection[str]) -> list[tuple[str, str]]:
    """Where activations are not stored in full: how, and if the planner chose it, why."""
    if c.engine.storage == "fp32":
        return []
    why = "" if "engine.storage" in pinned else ": at this width full precision does not fit; --set engine.storage=fp32 keeps it"
    return [("activations", f"stored as {c.engine.storage}, computed in fp32{why}")]


def limits(plan: Plan) -> list[tuple[str, str]]:
    """What is predicted beyond FLOPs, each beside its limit, and where the prediction is from."""
    clock, b, rows = plan.device.clock, plan.budget, on_the_clock(plan)
    if clock is not None and plan.seconds is not None and plan.aside_seconds is not None:
        sure = f", held-out error {percent(clock.error)} %" if clock.measured else ", not measured"
        what = f"{duration(plan.seconds)} of training and {duration(plan.aside_seconds)} of tests and snapshots"
        rows.append(("time", f"{what} predicted{_of(b.time, duration)}; {clock.source}{sure}"))
    elif plan.config.device == "host":
        rows.append(("time", "not predicted: edgecl measure calibrate times this machine"))
    if plan.bytes is not None:
        rows.append(("memory", f"{size(plan.bytes)} at the peak predicted{_of(b.memory, size)}: {_parts(plan)}"))
    if plan.joules is not None:
        how = f"{plan.power.value:g} W; {plan.power.source}"
        rows.append(("energy", f"{energy(plan.joules)} estimated{_of(b.energy, energy)}, time × {how}"))
    return rows


def on_the_clock(plan: Plan) -> list[tuple[str, str]]:
    """The predicted ratio of training times, and whether a budget of compute is held to it; if not, why and what to do."""
    if plan.budget.compute is None:
        return []
    ratio, wanted = plan.clock_ratio, f"{float(plan.budget.compute):g}x"
    said = f"{times(ratio)} less than dense ({duration(plan.dense_seconds or 0)}, same engine) predicted; " if ratio else ""
    held = f"{wanted} holds for FLOPs and time" if plan.clocked else f"{wanted} holds for FLOPs only: {_unheld(plan)}"
    return [("training time", said + held)]


def _unheld(plan: Plan) -> str:
    c = plan.config
    if c.clock == "never":
        return "clock is never"
    if plan.flops_only:
        return "no width and sparsity that the planner tries is so much faster too"
    if not skips(c):
        return f"engine {c.engine.name} spares no time by masks"
    if c.device != "host":
        return f"the kernels were not timed on {c.device}"
    return "edgecl measure calibrate, with these options, times this machine, and then it holds for time too"


def _of(limit: Fraction | None, form: Callable[[float], str]) -> str:
    return "" if limit is None else f" of {form(float(limit))} allowed"


def _parts(plan: Plan) -> str:
    parts = {f"this process {size(plan.device.resident)}": 1} | {f"{k} {size(v)}": v for k, v in (plan.parts or {}).items()}
    return ", ".join(parts)


def _data(c: Config, sizes: Sequence[int]) -> str:
    """What the schedule removes: in few epochs less than `ddr.share`."""
    removed = sum(e.drop for e in schedule.epochs(c, sizes))
    return f"{percent(removed / sum(sizes))} % of each task's samples removed as it learns them" if removed else "all samples"


def _flops(plan: Plan) -> str:
    if plan.ledger.executed == plan.dense.executed:
        return f"{flops(plan.ledger.executed)} predicted, which is the dense baseline"
    return f"{flops(plan.ledger.executed)} predicted, {times(plan.ratio)} fewer than dense ({flops(plan.dense.executed)})"


def _frozen(plan: Plan, sizes: Sequence[int]) -> str:
    c, layers = plan.config, plan.net.layers()
    held = len(frozen_nodes(plan.net, c) & layers.keys())
    if not any(e.frozen for e in schedule.epochs(c, sizes)):
        return f"nothing: freeze.after is {c.freeze.after}, and no task follows"
    return f"up to {c.freeze.until}, {held} of {count(len(layers), 'layer')}, from task {c.freeze.after + 1} on"


def _width(c: Config, pinned: Collection[str]) -> str:
    full = full_width(c.net.name)
    if not full:
        return ", as its file has it"
    if c.net.width in (0, full):
        return f", full width ({full})"
    how = "as given" if "net.width" in pinned else f"narrowed for the budget; --set net.width={full} keeps it wide"
    return f", width {c.net.width} of {full}, {how}"


def _weights_from(c: Config) -> str:
    """Where training starts, for a net that a file describes."""
    found = weights_file(c.net.name)
    return f", weights from {found.name}" if found else ""


def _weights(plan: Plan) -> str:
    c = plan.config
    layers = masked_layers(plan.net, c)
    if not layers:
        return "dense"
    units = ", ".join(sorted({x.unit for x in layers.values()}))
    moves = "dynamic" if c.tdm.enabled else "static"
    return f"{percent(c.mask.sparsity)} % masked in {count(len(layers), 'layer')}, unit {units}, {c.mask.start} start, {moves}"


def chain(plan: Plan, work: Workload) -> dict[str, float]:
    """By how much each part divides the cost when it is added to those before it; their product is the plan's ratio."""
    config, before, factors = baseline(plan.config), plan.dense.executed, {}
    for name, keys in CHAIN:
        if name in SELDOM and not any(get(plan.config, key) for key in SELDOM[name]):
            continue
        for key in keys:
            config = config.set(key, get(plan.config, key)) if _has(config, key) else config
        now = simulate(config, build(config, work), work).executed
        factors[name], before = before / now, now
    return factors


def _has(config: Config, key: str) -> bool:
    """Not every method has a choice of draws."""
    section, _, option = key.partition(".")
    return section != "method" or option in config.method


def layers(plan: Plan) -> Iterator[dict[str, Any]]:
    """A row a layer: FLOPs of the whole run by what they are for."""
    masked, total, seconds = masked_layers(plan.net, plan.config), plan.ledger.executed, plan.layer_seconds
    for i, cost in enumerate(plan.ledger.costs):
        by_kind = dict(zip(KINDS, map(int, plan.ledger.table[:, i]), strict=True))
        layer = masked.get(cost.name)
        sums = {
            k: sum(by_kind[x] for x in kinds) for k, kinds in (("forward", FORWARD), ("backward", BACKWARD), ("upkeep", UPKEEP))
        }
        yield {
            "layer": cost.name,
            "weights": cost.weights,
            "unit": layer.unit if layer else None,
            "density": layer.live / layer.units if layer else 1.0,
            **sums,
            "share": sum(sums.values()) / total,
            "seconds": None if seconds is None else float(seconds[i]),
        }


def scale(largest: float) -> tuple[float, str]:
    """The one unit for a column of FLOPs: (divisor, name)."""
    step = max(i for i in range(len(PREFIXES)) if i == 0 or largest >= 1000**i)
    return 1000.0**step, f"{PREFIXES[step]}FLOP"
