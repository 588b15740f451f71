"""A training step (batch 32, one pass, one thread) by the native engine, against the best dense torch of the same net.

    python bench/engine.py [--quick] [--isa NAME] [--rows PART] [--threads 2] [--share]

A net's rows run interleaved, round by round; a ratio is the median over rounds of torch's best dense fp32 time over the
row's. Widths of ResNet-18 are compared with width 64. `--threads N` times wall clock instead, N threads against one: it
means something on a quiet machine only, so the load average stands beside it. `--share` times what of a step is Python.
Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edgecl import masks
from edgecl.cost import layer_costs
from edgecl.engines import Engine, make_engine
from edgecl.engines.base import StepResult
from edgecl.layout import masked_layers
from edgecl.nets import Net, build_net, prefix
from edgecl.nets.init import initial
from edgecl.types import Pass

BATCH = 32
NETS: dict[str, tuple[tuple[int, int, int], int]] = {  # input and classes
    "resnet18": ((3, 32, 32), 10),
    "mobilenetv2_100": ((3, 32, 32), 10),
    "ds_cnn": ((1, 49, 10), 12),
    "har_cnn1d": ((6, 1, 128), 12),
}
FAIR = 0.8  # share of its executed ratio that a row without a figure of its own is to reach
OWN, TORCH = "own dense", ("torch", "torch channels last")
BF16 = tuple(f"{name}, bf16" for name in TORCH)


@dataclass(frozen=True)
class Row:
    """What is timed; width 0 is the net's full one. `prototype` and `reach` are ratios to dense torch; reach 0: see FAIR."""

    net: str
    sparsity: float
    width: int = 0
    unit: str = "auto"
    prototype: float | None = None
    reach: float | None = None
    until: str = ""  # the last node that does not learn


ROWS = {
    "w64 75 %": Row("resnet18", 0.75, prototype=3.0, reach=3.4),
    "w64 90 %": Row("resnet18", 0.9, prototype=5.4, reach=7.0),
    "w64 90 %, layer3.1 on": Row("resnet18", 0.9, prototype=12.3, until="layer3.0"),  # its prototype froze one layer more
    "w64 95 %": Row("resnet18", 0.95, prototype=7.3, reach=9.0),
    "w64 95 %, weights": Row("resnet18", 0.95, unit="weight", prototype=4.9, reach=6.0),
    "w64 95 %, channels": Row("resnet18", 0.95, unit="channel"),
    "w32 75 %": Row("resnet18", 0.75, 32, prototype=10.9, reach=13.0),
    "w20 75 %": Row("resnet18", 0.75, 20, prototype=22.4, reach=26.0),
    "mobilenetv2_100 90 %": Row("mobilenetv2_100", 0.9, prototype=2.9, reach=6.0),
    "ds_cnn 80 %": Row("ds_cnn", 0.8, reach=0.0),
    "har_cnn1d 80 %": Row("har_cnn1d", 0.8, reach=0.0),
}
OWN_REACH = {"resnet18": (0.97, 1.0)}  # of a dense net by the native engine: prototype, to reach
Step = Callable[[], Any]
Times = dict[str, list[float]]


def _net(row: Row) -> Net:
    return build_net(row.net, *NETS[row.net], row.width)


def native(row: Row, threads: int = 1) -> tuple[Engine, Step]:
    """A whole step: forward, loss, backward, update."""
    net, rng = _net(row), np.random.default_rng(0)
    engine = make_engine("native", net, threads=threads)
    engine.load({**engine.arrays(), **initial(net, rng)})
    if row.sparsity:
        live, units = random_masks(net, row, rng)
        engine.set_masks(live, units)
    engine.set_frozen(prefix(net, row.until, "until"))
    x = rng.normal(size=(BATCH, *net.input)).astype(np.float32)
    y = np.eye(net.classes, dtype=np.float32)[rng.integers(0, net.classes, BATCH)]

    def step() -> StepResult:
        logits = engine.forward([x], (Pass((0,)),))[0].logits
        e = np.exp(logits - logits.max(1, keepdims=True))
        p = e / e.sum(1, keepdims=True)
        engine.backward([(p - y) / np.float32(BATCH)])
        engine.step(np.float32(0.01))
        return StepResult(-np.log((p * y).sum(1)).mean(), logits)

    return engine, step


def random_masks(net: Net, row: Row, rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, str]]:
    """In every layer that training masks."""
    from edgecl.config import resolve

    layers = masked_layers(net, resolve("", [{"mask": {"sparsity": row.sparsity, "unit": row.unit}}]))
    live = masks.start(rng, {k: v.live for k, v in layers.items()}, {k: v.shape for k, v in layers.items()})
    return live, {k: v.unit for k, v in layers.items()}


def executed(row: Row) -> float:
    """FLOPs of the full-width dense step over the row's."""
    return _flops(_net(Row(row.net, 0.0)), {}) / _flops(net := _net(row), random_masks_sizes(net, row))


def random_masks_sizes(net: Net, row: Row) -> dict[str, int]:
    """Layer → its live weights."""
    live, units = random_masks(net, row, np.random.default_rng(0))
    return {k: int(masks.expand(v, units[k], net.weights()[f"{k}.weight"]).sum()) for k, v in live.items()}


def _flops(net: Net, live: Mapping[str, int]) -> int:
    return sum(c.flops(live.get(c.name, c.weights)) * (3 if c.input_gradient else 2) for c in layer_costs(net))


def dense_torch(name: str, channels_last: bool, bf16: bool) -> Step:
    """Full width, no masks, the same update; in bf16 under autocast."""
    import torch
    import torch.nn.functional as F

    from edgecl.engines.torch_ops import render

    net = _net(Row(name, 0.0))
    order = torch.channels_last if channels_last else torch.contiguous_format

    def put(a: Any) -> Any:
        t = torch.from_numpy(np.ascontiguousarray(a))
        return t.contiguous(memory_format=order) if t.ndim == 4 else t

    rng = np.random.default_rng(0)
    p = {k: put(v) for k, v in initial(net, rng).items()}
    trained = [p[k].requires_grad_() for k in net.weights()]
    x, y = put(rng.normal(size=(BATCH, *net.input)).astype(np.float32)), torch.from_numpy(rng.integers(0, net.classes, BATCH))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = render(net, p, x, [BATCH])[net.logits]
            loss = F.cross_entropy(logits, y)
        grads = torch.autograd.grad(loss, trained)
        with torch.no_grad():
            torch._foreach_sub_(trained, torch._foreach_mul(list(grads), 0.01))

    return step


def measure(steps: Mapping[str, Step], rounds: int, clock: Callable[[], float] = time.thread_time) -> Times:
    """Seconds, after one round to warm up; a thread's CPU time is what other processes disturb least."""
    times: Times = {name: [] for name in steps}
    for name in steps:
        steps[name]()
    for _ in range(rounds):
        for name, step in steps.items():
            began = clock()
            step()
            times[name].append(clock() - began)
    return times


def one_net(name: str, rows: Mapping[str, Row], rounds: int) -> Times:
    """All that a net is compared with, and its rows."""
    steps = {title: dense_torch(name, i % 2 == 1, i > 1) for i, title in enumerate((*TORCH, *BF16))}
    steps[OWN] = native(Row(name, 0.0))[1]
    return measure(steps | {k: native(row)[1] for k, row in rows.items()}, rounds)


def report(name: str, times: Times, rows: Mapping[str, Row]) -> dict[str, Any]:
    medians = {k: float(np.median(v)) for k, v in times.items()}
    best, best16 = min(TORCH, key=medians.__getitem__), min(BF16, key=medians.__getitem__)
    print(f"\n{name + ', a training step':32} {'ms':>8} {'× dense torch':>14} {'(quartiles)':>16} {'× own':>7} {'× bf16':>7}")
    found: dict[str, Any] = {"yardstick": best, "yardstick_ms": round(1e3 * medians[best], 3)}
    for title, own in times.items():
        ratios = {k: np.divide(times[k], own) for k in (best, OWN, best16)}
        low, middle, high = np.percentile(ratios[best], (25, 50, 75))
        others = f"{np.median(ratios[OWN]):7.2f} {np.median(ratios[best16]):7.2f}{_goal(name, title, rows)}"
        print(f"{title:32} {1e3 * medians[title]:8.2f} {middle:14.2f} {f'({low:.2f}–{high:.2f})':>16} {others}")
        found[title] = [round(float(np.median(v)), 3) for v in ratios.values()]
    return found


def _goal(name: str, title: str, rows: Mapping[str, Row]) -> str:
    prototype, reach = OWN_REACH.get(name, (None, None)) if title == OWN else (None, None)
    if title in rows:
        row, ratio = rows[title], executed(rows[title])
        prototype, reach = row.prototype, FAIR * ratio if row.reach == 0 else row.reach
    said = (f"executed 1/{ratio:.1f}" if title in rows else "", f"prototype {prototype}" if prototype else "")
    return "   " + ", ".join(filter(None, (*said, f"to reach {reach:.3g}" if reach else "")))


def python_share(rounds: int) -> dict[str, Any]:
    """What of a w20 step is not within the kernels: median over steps, of wall time."""
    engine, step = native(ROWS["w20 75 %"])
    kernels, inside = engine._kernels, 0.0  # type: ignore[attr-defined]
    run, shares = kernels.run, []

    def timed(*args: Any, **how: Any) -> None:
        nonlocal inside
        began = time.perf_counter()
        run(*args, **how)
        inside += time.perf_counter() - began

    kernels.run = timed
    for _ in range(5 * rounds + 1):
        inside, began = 0.0, time.perf_counter()
        step()
        shares.append(1 - inside / (time.perf_counter() - began))
    low, middle, high = np.percentile(shares[1:], (25, 50, 75))
    print(f"Python's share of a w20 75 % step: {100 * middle:.1f} % ({100 * low:.1f}–{100 * high:.1f}), to reach 3 % at most")
    return {"python_share": round(float(middle), 4)}


def threaded(threads: int, rounds: int) -> dict[str, Any]:
    """Wall time of one thread over that of several; each is timed right after a step of its own has set its team up."""
    steps = {n: native(ROWS["w64 95 %"], n)[1] for n in (1, threads)}
    times: dict[int, list[float]] = {n: [] for n in steps}
    for _ in range(rounds):
        for n, step in steps.items():
            step()
            times[n].append(measure({"": step}, 1, time.perf_counter)[""][0])
    low, middle, high = np.percentile(np.divide(times[1], times[threads]), (25, 50, 75))
    print(f"w64 95 %, {threads} threads against one, wall time: {middle:.2f}× ({low:.2f}–{high:.2f}), to reach 1.5× with two")
    return {f"threads_{threads}": round(float(middle), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three rounds instead of nine")
    parser.add_argument("--isa", default="", help="instruction set of the native kernels (default: the best here)")
    parser.add_argument("--rows", default="", help="only rows whose name contains this")
    parser.add_argument("--threads", type=int, default=1, help="only: wall time of so many threads against one")
    parser.add_argument("--share", action="store_true", help="only: Python's share of a step")
    args = parser.parse_args()
    if args.isa:
        os.environ["EDGECL_ISA"] = args.isa
    rounds, before = 3 if args.quick else 9, os.getloadavg()[0]
    if args.threads > 1:
        found = threaded(args.threads, rounds)
    elif args.share:
        found = python_share(rounds)
    else:
        found = compare({k: v for k, v in ROWS.items() if args.rows in k}, rounds)
    load = {"load_average": [round(before, 2), round(os.getloadavg()[0], 2)]}
    print(f"load average {before:.2f} before, {os.getloadavg()[0]:.2f} after (1 is this process alone)")
    place = make_engine("native", _net(Row("ds_cnn", 0.0)), threads=args.threads).place()
    print(json.dumps({"bench": "engine", **found, "rounds": rounds, **load, **place}))


def compare(chosen: Mapping[str, Row], rounds: int) -> dict[str, Any]:
    """Net → row → ratios: to dense torch fp32, to the native engine's dense net, to dense torch bf16."""
    import torch

    torch.set_num_threads(1)
    found = {}
    for name in NETS:
        if rows := {k: v for k, v in chosen.items() if v.net == name}:
            found[name] = report(name, one_net(name, rows, rounds), rows)
    return {"ratios": found}


if __name__ == "__main__":
    main()
