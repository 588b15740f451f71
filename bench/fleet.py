#!/usr/bin/env python3
"""A fleet in one process: a base, devices that learn lessons of their own, their updates merged, round after round.

    python bench/fleet.py hapt --data-root DATA --seeds 3
    python bench/fleet.py hapt --attack mixed --data-root DATA
    python bench/fleet.py cifar10 --data-root DATA
    python bench/fleet.py digits

Devices learn as `edgecl learn` does, with the native engine, one after the other; updates go through the format's bytes and
back. Prints one JSON line a seed: accuracy of the base, of the merged models by round, of lone devices and of training on all
data in one place, on samples that neither devices nor hub have; bytes a device and round beside those of the dense net.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fleet_data import FLEETS, Fleet, joined, save_npz

from edgecl import bundle, environment, lesson, session
from edgecl import config as configs
from edgecl.lesson import Labelled
from edgecl.merge import Contribution, Judge, Settings, held_out_judge, merge, recalibrated, screen_all, write_run
from edgecl.model import Model, open_model
from edgecl.train import train
from edgecl.types import F32, U8, EdgeclError
from edgecl.update import Base, Taught, Update, decode, difference, encode

ONE_SNAPSHOT: dict[str, dict[str, Any]] = {
    "train": {"snapshot_every": 10_000},
    "memory": {"compress": False},
    "engine": {"threads": 1},
}
"""Keys that change no result, only the time that a bench waits for the disk."""

HOSTILE = 0.2  # share of the devices
ATTACKS = ("sign", "hundredfold", "nan", "shape", "labels")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fleet", choices=sorted(FLEETS))
    parser.add_argument("--data-root", default="", help="folder of the data sets")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, help="[the fleet's usual]")
    parser.add_argument("--attack", choices=["", *ATTACKS, "mixed"], default="", help="a fifth of the devices does this")
    parser.add_argument("--lesson", action="append", default=[], metavar="KEY=VALUE", help="a key of the lessons")
    parser.add_argument("--merge", action="append", default=[], metavar="KEY=VALUE", help="a setting of the merge")
    parser.add_argument(
        "--statistics", choices=["", "memory", "held", "both"], default="both", help="samples of batch statistics"
    )
    parser.add_argument("--no-judge", action="store_true", help="the hub has no held-out samples")
    parser.add_argument("--rivals", choices=["none", "whole", "both"], default="both", help="training on all data, lone devices")
    parser.add_argument("--work", help="keep the run folders here")
    given = parser.parse_args()
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        with tempfile.TemporaryDirectory() as made:
            print(json.dumps(experiment(given, seed, Path(given.work or made) / f"{given.fleet}-{seed}")), flush=True)


def experiment(given: argparse.Namespace, seed: int, work: Path) -> dict[str, Any]:
    """One seed, from the base to the last merged model."""
    began, fleet = time.perf_counter(), FLEETS[given.fleet](given.data_root, seed)
    for text in given.lesson:
        fleet.lesson.update({k: {**fleet.lesson.get(k, {}), **v} for k, v in configs.parse_set(text)[1].items()})
    settings = settings_of(given.merge)
    rounds = given.rounds or fleet.rounds
    run = trained(work / "base", fleet, fleet.base, seed)
    model = open_model(run)
    net, pre = model.net, model.card.preprocess
    test, judge = (held_out_judge(net, fleet.classes, pre, s.x, s.labels) for s in (fleet.test, fleet.held))
    counts = {k: fleet.test.labels.count(k) for k in fleet.classes}
    hostile = attackers(given.attack, len(fleet.devices), seed)
    merged, refused, sent = [score(test, Base.of(model), counts)], list[dict[str, str]](), list[int]()
    for number in range(1, rounds + 1):
        base = Base.of(model)
        contributions, unread = list[Contribution](), dict[str, str]()
        for d, samples in enumerate(fleet.devices):
            c, size, why = contribution(work, run, model, fleet, d, samples, number, hostile.get(d, ""))
            if c is None:
                unread[f"{d:03d}"] = why
            else:
                contributions.append(c)
                sent.append(size)
        found = screen_all(base, contributions, settings, None if given.no_judge else judge)
        refused.append(unread | {device: why for (device, _), why in found.refused.items()})
        made = merge(base, found.taken, settings)
        if given.statistics:
            made = recalibrated(made, pre, statistics_of(given.statistics, model, fleet))
        run = write_run(work / f"merged-{number}", run, made)
        model = open_model(run)
        merged.append(score(test, Base.of(model), counts))
        print(f"round {number}: {100 * merged[-1]:.2f} %, {len(found.taken)} taken", file=sys.stderr, flush=True)
    rivals = beside(work, fleet, test, counts, seed, rounds, given.rivals)
    return {
        "what": "fleet", "fleet": given.fleet, "seed": seed, "devices": len(fleet.devices), "rounds": rounds,
        "samples_by_device": [len(d.labels) for d in fleet.devices], "test": len(fleet.test.labels),
        "attack": given.attack, "attackers": sorted(hostile), "judge": not given.no_judge, "statistics": given.statistics,
        "settings": asdict(settings),
        "base_config": list(fleet.sets), "lesson": fleet.lesson,
        "merged": merged, **rivals, "refused": refused, **traffic(base, sent), "down_bytes": shipped(work, run),
        "seconds": round(time.perf_counter() - began), "cpu": environment.cpu_name(), "commit": environment.commit(),
    }  # fmt: skip


def statistics_of(which: str, model: Model, fleet: Fleet) -> U8:
    """Samples that the hub has: the base's replay memory, those held out, or both."""
    assert model.memory is not None
    memory = model.memory.x[: model.memory.size]
    return np.concatenate([*([] if which == "held" else [memory]), *([] if which == "memory" else [fleet.held.x])])


def settings_of(given: Sequence[str]) -> Settings:
    pairs = dict(text.split("=", 1) for text in given)
    return Settings(**{k: v if k == "values" else float(v) for k, v in pairs.items()})  # type: ignore[arg-type]


def trained(run: Path, fleet: Fleet, samples: Labelled, seed: int) -> Path:
    """A run from scratch on these samples, with the base's configuration."""
    run.parent.mkdir(parents=True, exist_ok=True)
    path = save_npz(run.parent / f"{run.name}.npz", fleet.classes, samples, fleet.held)
    own = {"data": {"name": str(path), "classes_per_task": len(fleet.classes)}, "engine": {"threads": 1}, "seed": seed}
    config = configs.resolve("", [own, *(configs.parse_set(s)[1] for s in fleet.sets)])
    stream = session.read_stream(config)
    setup, state = session.begin(run, session.make(config, stream, {"net.width", "mask.sparsity"}), stream)
    to_end(setup, state)
    return run


def to_end(setup: Any, state: Any) -> None:
    for _ in train(setup, state):
        pass
    state.metrics.close()


def taught(run: Path, samples: Labelled, folder: Path, changes: Mapping[str, Any]) -> Model:
    """What a device makes of its lesson."""
    base = open_model(run)
    nested = {k: dict(changes.get(k, {})) | v for k, v in ONE_SNAPSHOT.items()} | {
        k: v for k, v in changes.items() if k not in ONE_SNAPSHOT
    }
    lesson.begin(folder, base, lesson.prepare(base, samples, changes=nested))
    to_end(*session.resume(folder))
    return open_model(folder)


def contribution(
    work: Path, run: Path, model: Model, fleet: Fleet, device: int, samples: Labelled, number: int, attack: str
) -> tuple[Contribution | None, int, str]:
    """A device's update as the hub has it after the format's bytes, their number, and why the format refuses it, if it does."""
    if attack == "labels":
        samples = replace(samples, labels=flipped(fleet.classes, samples.labels))
    learned, base = taught(run, samples, work / f"device-{device}-{number}", fleet.lesson), Base.of(model)
    counts = Taught({k: samples.labels.count(k) for k in fleet.classes if k in samples.labels})
    update = difference(model, learned, counts)
    try:
        payload = encode(spoilt(update, base, attack), base)
        sent = decode(payload, base)
    except EdgeclError as e:
        return None, 0, str(e)
    return Contribution(sent, f"{device:03d}", number, 0, frozenset()), len(payload), ""


def flipped(classes: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Class k called K - 1 - k (Fang et al. 2020, §5.1)."""
    names = {k: classes[len(classes) - 1 - i] for i, k in enumerate(classes)}
    return [names[label] for label in labels]


def spoilt(update: Update, base: Base, attack: str) -> Update:
    """What a hostile device makes of its update. Variances stay what they may be: the format refuses those below 0."""
    factor = {"sign": -1.0, "hundredfold": 100.0, "nan": np.nan}.get(attack)
    if factor is not None:
        return replace(update, delta={k: _times(k, d, base.weights[k], factor) for k, d in update.delta.items()})
    if attack == "shape":
        return replace(update, delta={k: d[..., :-1] for k, d in update.delta.items()})
    return update


def _times(name: str, delta: F32, of_base: F32, factor: float) -> F32:
    spoilt = (delta * np.float32(factor)).astype(np.float32)
    return np.maximum(spoilt, -of_base) if name.endswith(".running_var") else spoilt


def attackers(attack: str, devices: int, seed: int) -> dict[int, str]:
    """Device → what it does."""
    if not attack:
        return {}
    who = np.random.default_rng([seed, 1]).choice(devices, max(1, round(HOSTILE * devices)), replace=False)
    return {int(d): ATTACKS[i % len(ATTACKS)] if attack == "mixed" else attack for i, d in enumerate(sorted(who))}


def score(test: Judge, base: Base, counts: Mapping[str, int]) -> float:
    """Share of all test samples that are right."""
    found = test(base.weights, base.live)
    return sum(found[k] * n for k, n in counts.items() if n) / sum(counts.values())


def beside(
    work: Path, fleet: Fleet, test: Judge, counts: Mapping[str, int], seed: int, rounds: int, which: str
) -> dict[str, Any]:
    """One net trained on all samples, and lone devices, which learn as many epochs on the first base."""
    if which == "none":
        return {}
    whole = trained(work / "whole", fleet, joined([fleet.base, *fleet.devices]), seed)
    found: dict[str, Any] = {"all_data": score(test, Base.of(open_model(whole)), counts)}
    if which == "both":
        changes = {**fleet.lesson, "train": {**fleet.lesson["train"], "epochs": rounds * fleet.lesson["train"]["epochs"]}}
        alone = [taught(work / "base", d, work / f"lone-{i}", changes) for i, d in enumerate(fleet.devices)]
        found["lone"] = [score(test, Base.of(model), counts) for model in alone]
        found["lone_mean"] = float(np.mean(found["lone"]))
    return found


def traffic(base: Base, sent: Sequence[int]) -> dict[str, Any]:
    """Bytes of an update up, and of the dense float32 net, which FedAvg sends both ways."""
    dense = 4 * sum(a.size for a in base.weights.values())
    return {"up_bytes": float(np.mean(sent)), "dense_bytes": dense}


def shipped(work: Path, run: Path) -> int:
    """Bytes of the merged model's bundle on its way down, deflated."""
    private = work / "key.pem"
    bundle.keygen(private)
    bundle.create(run, work / "model.edgecl", private, bundle.Wish("rpi"))
    return len(gzip.compress((work / "model.edgecl").read_bytes(), 9))


if __name__ == "__main__":
    main()
