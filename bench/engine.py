"""A training step of ResNet-18 (batch 32, one pass, one thread) by the native engine, against the best dense torch.

    python bench/engine.py [--quick] [--isa NAME]

All rows run in one process, interleaved round by round; a ratio is the median over rounds of torch's best dense time over
the row's. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edgecl import masks
from edgecl.engines import Engine, make_engine
from edgecl.engines.base import StepResult
from edgecl.layout import masked_layers
from edgecl.nets import Net, build_net, prefix
from edgecl.nets.init import initial
from edgecl.types import Pass

BATCH, CLASSES, INPUT = 32, 10, (3, 32, 32)
ROWS: dict[str, tuple[int, float, str, float, float | None]] = {  # width, sparsity, unit, prototype's ratio, ratio to reach
    "w64 dense": (64, 0.0, "kernel", 0.97, 1.0),
    "w64 75 %": (64, 0.75, "kernel", 3.0, 3.4),
    "w64 90 %": (64, 0.9, "kernel", 5.4, 7.0),
    "w64 90 %, layer3.1 on": (64, 0.9, "kernel", 12.3, None),
    "w64 95 %": (64, 0.95, "kernel", 7.3, 9.0),
    "w64 95 %, weights": (64, 0.95, "weight", 4.9, 6.0),
    "w64 95 %, channels": (64, 0.95, "channel", 0.0, None),
    "w32 75 %": (32, 0.75, "kernel", 10.9, 13.0),
    "w20 75 %": (20, 0.75, "kernel", 22.4, 26.0),
}
FROZEN = {"w64 90 %, layer3.1 on": "layer3.0"}  # the last node that does not learn; the prototype's froze one layer more
Step = Callable[[], Any]


def native(width: int, sparsity: float, unit: str, until: str = "") -> tuple[Engine, Step]:
    """A whole step: forward, loss, backward, update; frozen up to the node `until`."""
    net, rng = build_net("resnet18", INPUT, CLASSES, width), np.random.default_rng(0)
    engine = make_engine("native", net, threads=1)
    engine.load({**engine.arrays(), **initial(net, rng)})
    if sparsity:
        live, units = random_masks(net, sparsity, unit, rng)
        engine.set_masks(live, units)
    engine.set_frozen(prefix(net, until, "until"))
    x = rng.normal(size=(BATCH, *INPUT)).astype(np.float32)
    y = np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, BATCH)]

    def step() -> StepResult:
        logits = engine.forward([x], (Pass((0,)),))[0].logits
        e = np.exp(logits - logits.max(1, keepdims=True))
        p = e / e.sum(1, keepdims=True)
        engine.backward([(p - y) / np.float32(BATCH)])
        engine.step(np.float32(0.01))
        return StepResult(-np.log((p * y).sum(1)).mean(), logits)

    return engine, step


def random_masks(net: Net, sparsity: float, unit: str, rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, str]]:
    """In every layer that training masks."""
    from edgecl.config import resolve

    layers = masked_layers(net, resolve("", [{"mask": {"sparsity": sparsity, "unit": unit}}]))
    live = masks.start(rng, {k: v.live for k, v in layers.items()}, {k: v.shape for k, v in layers.items()})
    return live, {k: v.unit for k, v in layers.items()}


def dense_torch(channels_last: bool) -> Step:
    """Full width, no masks, the same update."""
    import torch
    import torch.nn.functional as F

    from edgecl.engines.torch_ops import render

    net = build_net("resnet18", INPUT, CLASSES, 64)
    order = torch.channels_last if channels_last else torch.contiguous_format

    def put(a: Any) -> Any:
        t = torch.from_numpy(np.ascontiguousarray(a))
        return t.contiguous(memory_format=order) if t.ndim == 4 else t

    rng = np.random.default_rng(0)
    p = {k: put(v) for k, v in initial(net, rng).items()}
    trained = [p[k].requires_grad_() for k in net.weights()]
    x, y = put(rng.normal(size=(BATCH, *INPUT)).astype(np.float32)), torch.from_numpy(rng.integers(0, CLASSES, BATCH))

    def step() -> None:
        logits = render(net, p, x, [BATCH])[net.logits]
        grads = torch.autograd.grad(F.cross_entropy(logits, y), trained)
        with torch.no_grad():
            torch._foreach_sub_(trained, torch._foreach_mul(list(grads), 0.01))

    return step


def measure(steps: Mapping[str, Step], rounds: int) -> dict[str, list[float]]:
    """Seconds of this thread's CPU time, which other processes disturb least, after one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for name in steps:
        steps[name]()
    for _ in range(rounds):
        for name, step in steps.items():
            began = time.thread_time()
            step()
            times[name].append(time.thread_time() - began)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three rounds instead of nine")
    parser.add_argument("--isa", default="", help="instruction set of the native kernels (default: the best here)")
    parser.add_argument("--rows", default="", help="only rows whose name contains this")
    args = parser.parse_args()
    if args.isa:
        os.environ["EDGECL_ISA"] = args.isa
    import torch

    torch.set_num_threads(1)
    chosen = {k: v for k, v in ROWS.items() if args.rows in k}
    engines = {name: native(*row[:3], FROZEN.get(name, "")) for name, row in chosen.items()}
    steps = {"torch": dense_torch(False), "torch channels last": dense_torch(True)} | {k: v[1] for k, v in engines.items()}
    times = measure(steps, 3 if args.quick else 9)
    report(times, chosen, next(iter(engines.values()))[0].place())


def report(times: Mapping[str, list[float]], rows: Mapping[str, Any], place: Mapping[str, Any]) -> None:
    medians = {k: float(np.median(v)) for k, v in times.items()}
    best = min(("torch", "torch channels last"), key=lambda k: medians[k])
    ratios = {k: [a / b for a, b in zip(times[best], v, strict=True)] for k, v in times.items()}
    print(f"{'a training step':22} {'ms':>8} {'× dense torch':>14} {'(quartiles)':>16} {'prototype':>10} {'to reach':>9}")
    for name, values in ratios.items():
        low, middle, high = np.percentile(values, (25, 50, 75))
        goal = "".join(f"{v:>10.4g}" if v else "" for v in rows[name][3:]) if name in rows else ""
        print(f"{name:22} {1e3 * medians[name]:8.1f} {middle:14.2f} {f'({low:.2f}–{high:.2f})':>16} {goal}")
    found = {k: round(float(np.median(v)), 3) for k, v in ratios.items()}
    print(json.dumps({"bench": "engine", "yardstick": best, "ratios": found, "rounds": len(times[best]), **place}))


if __name__ == "__main__":
    main()
