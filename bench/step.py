#!/usr/bin/env python3
"""How much of a training step is the loop in Python, beside the engine's own time?

    python bench/step.py [--device cpu|cuda] [--precision fp32] [--width 64] [--quick]

Trains DER++ with ResNet-18 on random images through the real loop, then repeats its last compiled step on one fixed batch.
The difference is what selecting, cropping, remembering and counting cost. Medians over steps, one process. A compiled CUDA
step is itself timed with its copies in and out. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edgecl import config as configs
from edgecl import session
from edgecl.state import Setup, State
from edgecl.step import train_step
from edgecl.train import Progress, draw_batch, train


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--budget", default="")
    parser.add_argument("--quick", action="store_true", help="few steps of a narrow net")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), args)))
    return 0


def measure(folder: Path, args: argparse.Namespace) -> dict[str, object]:
    """Milliseconds of a step in the loop, and of the compiled step alone."""
    setup, state = prepare(folder, args)
    steps: list[float] = []
    before = time.perf_counter()
    for event in train(setup, state):
        now = time.perf_counter()
        if isinstance(event, Progress) and event.step > 1:
            steps.append(now - before)
        before = now
    loop, alone = statistics.median(steps) * 1e3, statistics.median(repeat(setup, state, 10 if args.quick else 100)) * 1e3
    return {
        "net": f"resnet18 w{setup.config.net.width or 64}",
        "engine": setup.config.engine.name,
        **state.engine.place(),
        "precision": args.precision,
        "sparsity": setup.config.mask.sparsity,
        "steps": len(steps),
        "loop_ms": round(loop, 3),
        "engine_ms": round(alone, 3),
        "python_share": round(1 - alone / loop, 4),
    }


def prepare(folder: Path, args: argparse.Namespace) -> tuple[Setup, State]:
    """A run on random images, in `folder`."""
    rng, n = np.random.default_rng(0), 64 if args.quick else 2000
    x, y = rng.integers(0, 256, (2 * n, 3, 32, 32), dtype=np.uint8), np.tile(np.arange(2), n)
    np.savez(folder / "random.npz", x_train=x, y_train=y, x_test=x[:64], y_test=y[:64])
    wanted = {
        "data": {"name": str(folder / "random.npz")},
        "net": {"name": "resnet18", "width": 8 if args.quick else args.width},
        "train": {"epochs": 3},
        "engine": {"device": args.device, "precision": args.precision},
        "budget": args.budget,
    }
    config = configs.resolve("", [wanted])
    stream = session.read_stream(config)
    return session.begin(folder / "run", session.make(config, stream, configs.dotted(wanted)), stream)


def repeat(setup: Setup, state: State, times: int) -> list[float]:
    """Seconds of the compiled step on one batch."""
    step = state.engine.compile(partial(train_step, state.engine, setup.method, setup.stream.preprocess, False))
    batch = draw_batch(setup, state, setup.epochs[0], np.arange(setup.config.train.batch))
    for _ in range(3):
        step(batch)
    return [timed(partial(step, batch)) for _ in range(times)]


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
