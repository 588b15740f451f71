#!/usr/bin/env python3
"""A whole run's training time: Split CIFAR-10 with DER++ as planned, native engine, against dense DER++ in torch, one thread.

    python bench/whole.py [--quick] [--data-root DIR] [--budget 23x] [--run FOLDER] [--rounds 7]

Dense torch would take days: what it takes is steps × the median step, and nothing else that training does (crops, replay
memory), which is in torch's favour. Its step is the plainest there is, three passes of 32 and one backward pass, with
tensors in either memory order; the quicker counts. The native run is made of the same kinds of step as the loop's own:
short epochs of each kind of the schedule (mask expanded, about to change, settling, settled) are really run, with their
gathering steps, changes of masks and data, and weighed by how often the schedule has them. Steps of both run interleaved, in
CPU seconds of the one thread. With `--run`, the folder of a run, its configuration is taken, and if it is finished also the
seconds that it measured itself from its first step to its last. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edgecl import config as configs
from edgecl import curate, environment, plan, schedule, session
from edgecl.cli.clocks import clock_for
from edgecl.config import Config
from edgecl.model import recorded_config
from edgecl.nets import Net
from edgecl.nets.init import initial
from edgecl.plan import Plan
from edgecl.runfolder import read_metrics
from edgecl.schedule import Epoch
from edgecl.state import Setup
from edgecl.train import Progress, train
from edgecl.types import Stream

KINDS = {"expanded": (True, False, False), "swap": (True, True, False), "settle": (True, False, True), "settled": (False,) * 3}
"""Kind of epoch → expanded, swap, settle."""
SHORT = 12  # steps of an epoch that gather nothing, beside one that chooses gradients and those that score units
EVERY = 10  # steps of the native run for one of the others
TORCH, OWN = ("dense torch", "dense torch channels last"), "dense, native engine"
ENDLESS = 10**5
Seconds = dict[str, list[float]]


# dense torch


def dense_torch(net: Net, method: Mapping[str, Any], batch: int, *, channels_last: bool) -> Callable[[], None]:
    """A step of DER++ on the full net: cross entropy among a task's classes, α · squared error, β · cross entropy, SGD."""
    import torch
    import torch.nn.functional as F

    from edgecl.engines.torch_ops import render

    order, rng = torch.channels_last if channels_last else torch.contiguous_format, np.random.default_rng(0)

    def put(a: Any) -> Any:
        t = torch.from_numpy(np.ascontiguousarray(a))
        return t.contiguous(memory_format=order) if t.ndim == 4 else t

    p = {k: put(v) for k, v in initial(net, rng).items()}
    trained = [p[k].requires_grad_() for k in net.weights()]
    x = [put(rng.normal(size=(batch, *net.input)).astype(np.float32)) for _ in range(1 + method.get("draws", 2))]
    now_y, old_y = (torch.from_numpy(rng.integers(0, n, batch)) for n in (2, net.classes))
    stored = torch.from_numpy(rng.normal(size=(batch, net.classes)).astype(np.float32))

    def step() -> None:
        current, *replays = (render(net, p, part, [batch])[net.logits] for part in x)
        dark, replay = replays[0], replays[-1]
        loss = F.cross_entropy(current[:, :2], now_y) + method["alpha"] * F.mse_loss(dark, stored)
        loss = loss + method["beta"] * F.cross_entropy(replay, old_y)
        grads = torch.autograd.grad(loss, trained)
        with torch.no_grad():
            torch._foreach_sub_(trained, torch._foreach_mul(list(grads), 0.03))

    return step


# the native run


def kind(epoch: Epoch) -> str:
    return next(k for k, v in KINDS.items() if v == (epoch.expanded, epoch.swap, epoch.settle))


def kinds(setup: Setup) -> dict[str, Epoch]:
    """A short epoch of each kind that the schedule has; of its kind the one that removes the most data."""
    found = {kind(e): e for e in sorted(setup.epochs, key=lambda e: e.drop)}
    scored = setup.config.tdm.steps
    return {k: replace(found[k], epoch=1, steps=1 + SHORT + scored * found[k].scores, last=False) for k in KINDS if k in found}


class Short:
    """Runs single epochs of a run that has begun, step by step, with the loop itself."""

    def __init__(self, folder: Path, chosen: Plan, stream: Stream) -> None:
        chosen = replace(chosen, config=chosen.config.set("train.snapshot_every", 10**9))
        self.setup, self.state = session.begin(folder, chosen, stream)
        self.state.accuracy.append({})  # the untrained net is not tested
        self.took: Seconds = {}

    def task(self) -> None:
        """Begins the first task anew: masks expand, all samples are there. One step, which is not counted."""
        first = next(iter(kinds(self.setup).values()))
        for _ in self.epoch(replace(first, epoch=0, steps=1, swap=False, settle=False, drop=0), {}):
            pass

    def epoch(self, epoch: Epoch, took: Seconds | None = None) -> Iterator[None]:
        """Yields after each step. Notes the CPU seconds of steps, by kind, and of what the epoch's end changes."""
        took, before = self.took if took is None else took, self.state.cpu_seconds
        self.state.at = 0
        for event in train(replace(self.setup, epochs=[epoch]), self.state):
            if isinstance(event, Progress):
                spent, before = self.state.cpu_seconds - before, self.state.cpu_seconds
                took.setdefault(_label(self.setup.config, epoch, self.state.step - 1), []).append(spent)
                yield
        took.setdefault(f"{kind(epoch)}: change", []).append(self.state.cpu_seconds - before)


def _label(config: Config, epoch: Epoch, step: int) -> str:
    what = "scores" if schedule.scoring(config, epoch, step) else "chooses" if schedule.refreshes(config, step) else "plain"
    return f"{kind(epoch)}: {what}"


def counts(setup: Setup) -> Counter[str]:
    """How often the whole schedule has what `Short` notes."""
    found: Counter[str] = Counter()
    for e in setup.epochs:
        scored = min(setup.config.tdm.steps, e.steps) * e.scores
        chosen = schedule.refreshing_steps(setup.config, e.steps - scored)
        parts = {"scores": scored, "chooses": chosen, "plain": e.steps - scored - chosen, "change": 1}
        found.update({f"{kind(e)}: {k}": n for k, n in parts.items()})
    return found


# both


def measure(short: Short, others: Mapping[str, Callable[[], object]], rounds: int) -> Seconds:
    """CPU seconds of the other steps, one after every EVERY steps of the native run, in turn."""
    took: Seconds = {name: [] for name in others}
    turn = cycle(others.items())
    for step in others.values():
        step()
    for _ in range(rounds):
        short.task()
        for epoch in kinds(short.setup).values():
            for i, _step in enumerate(short.epoch(epoch)):
                if i % EVERY == 0:
                    name, other = next(turn)
                    began = time.thread_time()
                    other()
                    took[name].append(time.thread_time() - began)
    return took


def endless(short: Short) -> Callable[[], object]:
    """One step of a dense run at a call."""
    epoch = next(iter(kinds(short.setup).values()))
    short.state.learning = curate.new(len(short.setup.stream.tasks[0].train))
    events = train(replace(short.setup, epochs=[replace(epoch, steps=ENDLESS)]), short.state)
    return lambda: next(events)


def planned(args: argparse.Namespace) -> tuple[Plan, Stream]:
    """Of the run that is named, else of the budget, as `edgecl train` plans it with one thread."""
    if args.run:
        config = recorded_config(Path(args.run))
        stream = session.read_stream(config)
        return plan.frozen(config, session.workload(stream), session.device(config, clock_for(config, stream))), stream
    wanted = {
        "data": {"name": "cifar10", "root": args.data_root},
        "engine": {"name": "native", "threads": 1},
        "budget": args.budget,
    }
    config = configs.resolve("cifar10", [wanted])
    stream = session.read_stream(config)
    return session.make(config, stream, configs.dotted(wanted), clock_for(config, stream)), stream


def finished(run: str) -> dict[str, Any] | None:
    """What the run measured itself, if it went to its end."""
    if not run or read_metrics(Path(run))[-1]["event"] != "end":
        return None
    shown = json.loads((Path(run) / "result.json").read_text())
    return {k: shown.get(k) for k in ("seconds", "cpu_seconds", "class_il_accuracy", "task_il_accuracy", "ratio")}


def report(short: Short, others: Seconds, dense_steps: int, ran: dict[str, Any] | None) -> dict[str, Any]:
    """The table, and both totals: dense torch's, which is never run to its end, and the native run's, which may have been."""
    often = {k: n for k, n in counts(short.setup).items() if n} | dict.fromkeys(others, dense_steps)
    middle = {k: statistics.median(v) for k, v in (others | short.took).items()}
    total = {k: n * middle[k] for k, n in often.items()}
    print(f"{'step':28} {'ms':>9} {'(quartiles)':>18} {'times':>8} {'s':>9}")
    for name in often:
        low, high = np.percentile((others | short.took)[name], (25, 75)) * 1e3
        spread = f"({low:.1f}–{high:.1f})"
        print(f"{name:28} {1e3 * middle[name]:9.1f} {spread:>18} {often[name]:8} {total[name]:9.0f}")
    best = min(TORCH, key=total.__getitem__)
    own = sum(s for k, s in total.items() if k not in others)
    print(f"\n{best} {total[best]:.0f} s, the native run {own:.0f} s, both extrapolated from steps: {total[best] / own:.2f}×")
    return {
        "yardstick": best,
        "extrapolated_seconds": {k: round(total[k]) for k in others} | {"native": round(own)},
        "step_ms": {k: round(1e3 * v, 2) for k, v in middle.items()},
        "times": often,
        "ratio_extrapolated": round(total[best] / own, 2),
        **(_beside(ran, total[best]) if ran else {}),
        "run_to_its_end": ["native"] * bool(ran),
        "extrapolated": [*others, *["native"] * (not ran)],
    }


def _beside(ran: dict[str, Any], dense: float) -> dict[str, Any]:
    """The finished run's own seconds against the extrapolated ones of dense torch."""
    found = {f"ratio_to_run_{k}": round(dense / ran[k], 2) for k in ("cpu_seconds", "seconds") if ran[k]}
    for name, ratio in found.items():
        print(f"the native run as it was run to its end, {name.removeprefix('ratio_to_run_')}: {ratio:.2f}×")
    return {"run": ran, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two rounds")
    parser.add_argument("--data-root", default="", help="folder of the data sets")
    parser.add_argument("--budget", default="23x")
    parser.add_argument(
        "--run", default="", metavar="FOLDER", help="a run whose plan is taken, and whose seconds if it is finished"
    )
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    before, rounds = os.getloadavg()[0], 2 if args.quick else args.rounds
    chosen, stream = planned(args)
    base = plan.baseline(chosen.config)
    dense = plan.frozen(base, session.workload(stream))
    with tempfile.TemporaryDirectory() as folder:
        short, own = Short(Path(folder) / "run", chosen, stream), Short(Path(folder) / "dense", dense, stream)
        others: dict[str, Callable[[], object]] = {
            name: dense_torch(dense.net, base.method, base.train.batch, channels_last=name != TORCH[0]) for name in TORCH
        }
        took = measure(short, others | {OWN: endless(own)}, rounds)
    steps = sum(e.steps for e in own.setup.epochs)
    found, c, where = report(short, took, steps, finished(args.run)), chosen.config, environment.describe()
    shown = {
        "bench": "whole",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": where["commit"],
        "cpu": where["cpu"],
        "isa": short.state.engine.place()["isa"],
        "plan": {
            "width": c.net.width,
            "sparsity": c.mask.sparsity,
            "ratio": round(chosen.ratio, 2),
            "clock_held": chosen.clocked,
        },
        "predicted": {"seconds": chosen.seconds, "dense_seconds": chosen.dense_seconds, "clock_ratio": chosen.clock_ratio},
        **found,
        "rounds": rounds,
        "load_average": [round(before, 2), round(os.getloadavg()[0], 2)],
    }
    print(json.dumps(shown))


if __name__ == "__main__":
    main()
