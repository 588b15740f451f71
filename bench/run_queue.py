#!/usr/bin/env python3
"""Takes the next runs of bench/queue by rank, several at a time on one machine, and leaves a record of each.

    python bench/run_queue.py --out runs/queue --parallel 8 --data-root DATA [--commit HASH] [--only NAME ...] [--quick]

A queue file is a configuration as `edgecl train --config` takes it, with `rank` (lower runs first) and `why` beside
`config`. A run that was cut goes on from its newest snapshot when the command is given again. A finished run leaves
OUT/records/NAME/ with config.yaml, ledger.json, result.json and metrics.jsonl: move it to bench/records/ to keep it.
Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

KEPT = ("config.yaml", "ledger.json", "result.json", "metrics.jsonl")
QUICK = {"train": {"epochs": 2}, "data": {"samples_per_class": 320}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of runs and records")
    parser.add_argument("--parallel", type=int, default=1, help="runs at a time")
    parser.add_argument("--data-root", default="", help="folder of the data sets")
    parser.add_argument("--commit", default="", help="commit to record where there is no checkout")
    parser.add_argument("--only", nargs="*", default=[], help="names of queue files, without .yaml")
    parser.add_argument("--quick", action="store_true", help="2 epochs of 320 samples a class: does it run at all?")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(args.worker, args)
    waiting = [p for p in queue(args.only) if not (args.out / "records" / p.stem / "result.json").exists()]
    done, failed = run_all(waiting, args)
    print(json.dumps({"done": done, "failed": failed}))
    return 1 if failed else 0


def queue(only: list[str]) -> list[Path]:
    """Queue files that have no record yet, by rank."""
    files = sorted((ROOT / "bench/queue").glob("*.yaml"), key=lambda p: (yaml.safe_load(p.read_text())["rank"], p.stem))
    recorded = {p.name for p in (ROOT / "bench/records").iterdir() if p.is_dir()}
    return [p for p in files if (p.stem in only if only else p.stem not in recorded)]


def run_all(waiting: list[Path], args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Keeps `parallel` workers going until the queue is empty."""
    running: dict[str, subprocess.Popen[bytes]] = {}
    done: list[str] = []
    failed: list[str] = []
    while waiting or running:
        while waiting and len(running) < args.parallel:
            path = waiting.pop(0)
            running[path.stem] = start(path, args)
        time.sleep(1)
        for name in [n for n, p in running.items() if p.poll() is not None]:
            (failed if running.pop(name).returncode else done).append(name)
            print(name, "failed" if name in failed else "done", flush=True)
    return done, failed


def start(path: Path, args: argparse.Namespace) -> subprocess.Popen[bytes]:
    """A worker of its own, with its output in OUT/NAME.log."""
    args.out.mkdir(parents=True, exist_ok=True)
    log = (args.out / f"{path.stem}.log").open("ab")
    command = [sys.executable, __file__, "--out", str(args.out), "--data-root", args.data_root, "--worker", str(path)]
    command += ["--commit", args.commit] + (["--quick"] if args.quick else [])
    return subprocess.Popen(command, stdout=log, stderr=log)


def work(path: Path, args: argparse.Namespace) -> int:
    """One run from the queue, from its start or its newest snapshot, to its record."""
    from edgecl import config as configs
    from edgecl import environment, session
    from edgecl.train import train

    run = args.out / path.stem
    if (run / "config.yaml").exists():
        setup, state = session.resume(run)
    else:
        wanted = yaml.safe_load(path.read_text())["config"]
        wanted["data"] = {**wanted["data"], "root": args.data_root}
        config = configs.resolve(wanted["data"]["name"], [wanted, QUICK] if args.quick else [wanted])
        stream = session.read_stream(config)
        setup, state = session.begin(run, session.make(config, stream, configs.dotted(wanted)), stream)
    for event in train(setup, state):
        if isinstance(event, dict):
            print(json.dumps(event), flush=True)
    processor = state.engine.place()["accelerator"] or environment.cpu_name()
    record(run, args.out / "records" / path.stem, session.result(setup, state), args.commit, processor)
    return 0


def record(run: Path, folder: Path, result: dict[str, Any], commit: str, processor: str) -> None:
    """The run's small files, side by side; result.json last, since it marks the record whole."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        shutil.copy(run / name, folder / name)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["config"]["data"]["root"] = ""  # a path of the machine, of no use to others
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    date = time.strftime("%Y-%m-%d", time.gmtime())
    said = {**result, "run": folder.name, "date": date, "commit": commit or config["environment"]["commit"], "device": processor}
    (folder / "result.json").write_text(json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
