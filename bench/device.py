"""A network that learned some classes on the host is taught the last two on the "device" by `edgecl learn`, within a memory.

Prints one JSON line: accuracy on the known and the new classes before and after, beside the host's: `host` is the last task as
the base was trained, a lesson with the base's own schedule, which tests/test_lesson.py holds to be the uncut stream bit for bit;
`unbroken`, with `--whole`, is the stream trained from its start without a cut, every task of it with the lesson's schedule.

    python bench/device.py --data-root DATA --whole
    python bench/device.py --quick
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecl import config as configs
from edgecl import environment, session
from edgecl.model import recorded_config
from edgecl.types import Stream

FULL = ("--data", "cifar10", "--budget", "23x", "--samples-per-class", "1000", "--epochs", "15", "--set", "memory.capacity=2000")
QUICK = ("--data", "digits", "--budget", "5x", "--samples-per-class", "60", "--epochs", "5", "--set", "memory.capacity=200")
TASKS = 5
SCHEDULE = ("train.schedule", "train.bias_correction")
LESSON = ""
"""How a lesson on the device departs from the host's schedule."""


def edgecl(*args: str) -> dict[str, Any]:
    """Runs a command in a process of its own, and returns its JSON object."""
    done = subprocess.run([sys.executable, "-m", "edgecl", *args, "--json"], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def samples(stream: Stream, folder: Path) -> dict[str, str]:
    """Files of the last task's training samples, and of the test samples of old and new classes."""
    names = np.array(stream.class_names)
    new = stream.tasks[-1].train
    old_x, old_y = (np.concatenate([np.asarray(getattr(t, k)[:]) for t in stream.tests[:-1]]) for k in ("x", "y"))
    sets = {"train": (new.x[:], new.y), "old": (old_x, old_y), "new": (stream.tests[-1].x[:], stream.tests[-1].y)}
    for name, (x, y) in sets.items():
        np.savez(folder / f"{name}.npz", x=x, y=names[y])
    return {name: str(folder / f"{name}.npz") for name in sets}


def accuracy(place: str, files: dict[str, str], lessons: str, classes: int, *, new: bool = True) -> dict[str, float]:
    """Shares right among all classes that the network knows: the old ones, the new ones, all."""
    kinds = ("old", "new") if new else ("old",)
    found = {k: edgecl("run", place, "--lessons", lessons, "--input", files[k])["accuracy"] for k in kinds}
    if new:
        found["all"] = (found["old"] * (classes - 2) + found["new"] * 2) / classes
    return found


def taught(base: str, files: dict[str, str], out: Path, classes: int, *how: str) -> dict[str, Any]:
    """A lesson, and what the network then knows. Its memory is that of the process, which the budget holds."""
    log = out.parent / f"{out.name}.jsonl"
    if not log.exists() or '"saved"' not in log.read_text():
        command = [sys.executable, "-m", "edgecl", "learn", base, "--input", files["train"], "--out", str(out), *how]
        with log.open("w") as lines:
            subprocess.run(command, stdout=lines, check=True)
    learned = next(e for e in map(json.loads, log.read_text().splitlines()) if e["event"] == "learned")
    cost = {k: learned[k] for k in ("seconds", "peak_rss_bytes", "bytes_written")}
    return {"how": list(how), **accuracy(base, files, str(out), classes), **cost}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="digits, seconds")
    parser.add_argument("--data-root", default="", help="folder of the data sets")
    parser.add_argument("--work", help="keep the runs here: what is there already is not done again")
    parser.add_argument("--no-host", action="store_true", help="leave out the lesson with the host's schedule")
    parser.add_argument("--whole", action="store_true", help="also train the stream without a cut, from the start")
    parser.add_argument("--seed", default="0", help="of the base, and so of all that follows")
    parser.add_argument("--lesson", default=LESSON, help="options of edgecl learn for the device, as one text")
    given = parser.parse_args()
    how = [*(QUICK if given.quick else FULL), "--data-root", given.data_root, "--set", "engine.threads=1", "--seed", given.seed]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(given.work or made)
        base = str(folder / "base")
        if not Path(base, "config.yaml").exists():
            edgecl("train", *how, "--set", f"data.tasks={TASKS - 1}", "--set", "net.capacity=10", "--run", base)
        print(json.dumps(measured(base, how, folder, shlex.split(given.lesson), whole=given.whole, host=not given.no_host)))


def measured(base: str, how: list[str], folder: Path, options: list[str], *, whole: bool, host: bool) -> dict[str, Any]:
    config = recorded_config(Path(base)).set("data.tasks", 0)
    config = config.set("data.root", how[how.index("--data-root") + 1])
    stream = session.read_stream(config)
    classes, files = len(stream.class_names), samples(stream, folder)
    budget = ("--budget", "256MB")
    before = accuracy(base, files, str(folder / "none"), classes, new=False)["old"]
    device = taught(base, files, folder / "device", classes, *budget, *options)
    unchanged = taught(base, files, folder / "host", classes, *kept(config, SCHEDULE)) if host else None
    unbroken = uncut(config, how, files, folder, classes) if whole else None
    return {
        "what": "classes known, then two more taught by edgecl learn",
        "data": config.data.name,
        "net": f"{config.net.name} width {config.net.width}, {100 * config.mask.sparsity:.1f} % masked",
        "memory": config.memory.capacity,
        "seed": config.seed,
        "old_before": before,
        "device": device,
        "forgot": before - device["old"],
        "host": unchanged,
        "unbroken": unbroken,
        "cpu": environment.cpu_name(),
        "commit": environment.commit(),
    }


def kept(config: Any, keys: Sequence[str]) -> list[str]:
    """Options that set these keys as a configuration has them."""
    return [part for key in keys for part in ("--set", f"{key}={json.dumps(configs.get(config, key))}")]


def uncut(config: Any, how: list[str], files: dict[str, str], folder: Path, classes: int) -> dict[str, float]:
    """The stream learned without a cut, with what the budget chose for its first tasks, and the device's schedule for all."""
    run = folder / "whole"
    if not (run / "result.json").exists():
        sets = kept(config, ("net.width", "mask.sparsity", "ddr.share", "dgm.share"))
        sets += kept(recorded_config(folder / "device" / "001"), SCHEDULE)
        at = how.index("--budget")
        edgecl("train", *how[:at], *how[at + 2 :], *sets, "--run", str(run))
    return accuracy(str(run), files, str(folder / "none"), classes)


if __name__ == "__main__":
    main()
