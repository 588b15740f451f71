#!/usr/bin/env python3
"""Each part of SparCL by itself, on digits: accuracy and FLOPs over several seeds.

    python bench/parts.py [--seeds 5] [--sparsity 0.9] [--epochs 20] [--engine torch] [--quick]

DER++ at full width; every row has the same stream, passes and seeds. Class-IL as mean ± standard deviation over seeds.
Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edgecl import config as configs
from edgecl import environment, session
from edgecl.train import train


def variants(sparsity: float) -> dict[str, dict[str, Any]]:
    """Rows by name; what they do not name is off."""
    mask, static = {"mask": {"sparsity": sparsity}}, {"tdm": {"enabled": False}}
    ddr, dgm = {"ddr": {"share": 0.3}}, {"dgm": {"share": 0.2}}
    return {
        "dense": {},
        "DDR": ddr,
        "masks, static": {**mask, **static},
        "masks, TDM": mask,
        "masks, TDM + DDR": {**mask, **ddr},
        "masks, TDM + DGM": {**mask, **dgm},
        "masks, TDM + DDR + DGM": {**mask, **ddr, **dgm},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--engine", default="torch")
    parser.add_argument("--quick", action="store_true", help="two seeds of two epochs")
    args = parser.parse_args()
    seeds, epochs = (2, 2) if args.quick else (args.seeds, args.epochs)
    rows = {}
    for name, parts in variants(args.sparsity).items():
        rows[name] = row(
            [
                run({**parts, "seed": seed, "train": {"epochs": epochs}, "engine": {"name": args.engine, "threads": 1}})
                for seed in range(seeds)
            ]
        )
        print(f"{name:24} {rows[name]['class_il']:5.1f} ± {rows[name]['std']:.1f} %  {rows[name]['ratio']:.2f}×", flush=True)
    where = environment.describe()
    said = {"date": time.strftime("%Y-%m-%d", time.gmtime()), "commit": where["commit"], "cpu": where["cpu"]}
    print(
        json.dumps(
            {
                **said,
                "data": "digits",
                "engine": args.engine,
                "seeds": seeds,
                "epochs": epochs,
                "sparsity": args.sparsity,
                "rows": rows,
            }
        )
    )
    return 0


def run(wanted: dict[str, Any]) -> dict[str, Any]:
    """One run's result."""
    config = configs.resolve("digits", [wanted])
    stream = session.read_stream(config)
    with tempfile.TemporaryDirectory() as folder:
        setup, state = session.begin(Path(folder) / "run", session.make(config, stream, ()), stream)
        for _ in train(setup, state):
            pass
        return session.result(setup, state)


def row(results: list[dict[str, Any]]) -> dict[str, float]:
    """Mean and standard deviation over seeds, in percent, and the ratio of FLOPs, which no seed changes."""
    shares = [100 * r["class_il_accuracy"] for r in results]
    spread = statistics.stdev(shares) if len(shares) > 1 else 0.0
    return {"class_il": round(statistics.mean(shares), 2), "std": round(spread, 2), "ratio": round(results[0]["ratio"], 3)}


if __name__ == "__main__":
    sys.exit(main())
