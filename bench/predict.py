"""How well a calibration predicts steps it was not made from: a net's training steps, native engine, one thread.

    python bench/predict.py [--quick] [--data NAME] [--net NAME]

Calibrates as `edgecl measure calibrate` does, then times steps at other widths, sparsities and batches, and compares. Seconds
are CPU time of the one thread, which other processes disturb least. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edgecl import config as configs
from edgecl import environment, kernels, measure, session
from edgecl.config import Config
from edgecl.nets import full_width

HELD_OUT = (  # share of the full width, masked share, share of the batch
    (0.1875, 0.5, 1.0),
    (0.375, 0.85, 1.0),
    (0.15625, 0.75, 2.0),
    (0.375, 0.0, 0.5),
    (0.4375, 0.95, 1.0),
    (0.3125, 0.9, 1.0),
    (0.5, 0.6, 0.5),
    (0.3125, 0.3, 1.0),
    (0.625, 0.87, 0.5),
    (0.75, 0.9, 0.5),
    (0.625, 0.7, 0.5),
    (1.0, 0.97, 0.5),
)


def held_out(config: Config) -> list[Config]:
    """Configurations that no point of the calibration is."""
    plain, full, found = measure.points(config)[0], full_width(config.net.name), list[Config]()
    for width, sparsity, share in HELD_OUT:
        one = plain.set("net.width", max(4, round(full * width)) if full else 0).set("mask.sparsity", sparsity)
        found.append(one.set("train.batch", round(config.train.batch * share)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="four held-out settings instead of twelve")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--net", default="")
    args = parser.parse_args()
    wanted = {"data": {"name": args.data}, "net": {"name": args.net}, "engine": {"name": "native", "threads": 1}}
    config = configs.resolve(args.data, [wanted])
    stream = session.read_stream(config)
    began = time.perf_counter()
    clock = measure.calibrate(config, stream, lambda done, of: None, time.thread_time)
    took = time.perf_counter() - began
    rows = []
    print(f"{'width':>6} {'masked':>7} {'batch':>6} {'gathers':>8} {'ms':>9} {'predicted':>10} {'off':>7}")
    for one in held_out(config)[: 4 if args.quick else None]:
        for t in measure.time_steps(one, stream, time.thread_time, rounds=2)[0]:
            said = float(clock.step(t.work).sum())
            rows.append([one.net.width, one.mask.sparsity, one.train.batch, t.gather, round(t.seconds, 5), round(said, 5)])
            print(
                f"{one.net.width:6} {one.mask.sparsity:7.2f} {one.train.batch:6} {t.gather!s:>8} {1e3 * t.seconds:9.2f} "
                f"{1e3 * said:10.2f} {100 * (said / t.seconds - 1):+6.1f}%",
                flush=True,
            )
    errors = [abs(r[5] / r[4] - 1) for r in rows]
    where = environment.describe()
    shown = {
        "bench": "predict",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": where["commit"],
        "cpu": where["cpu"],
        "isa": kernels.load().isa,
        "net": config.net.name,
        "calibration_seconds": round(took, 1),
        "median_error": round(statistics.median(errors), 4),
        "largest_error": round(max(errors), 4),
        "own_estimate": round(clock.error, 4),
        "columns": ["width", "masked", "batch", "gathers", "seconds", "predicted"],
        "rows": rows,
    }
    print(json.dumps(shown))


if __name__ == "__main__":
    main()
