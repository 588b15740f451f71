"""Who has which samples: fleets for bench/fleet.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecl.data import data_root, load_stream
from edgecl.lesson import Labelled

Rows = npt.NDArray[Any]


@dataclass(frozen=True)
class Fleet:
    """No sample is in two of them."""

    classes: tuple[str, ...]
    base: Labelled  # what the first base is trained on
    devices: tuple[Labelled, ...]
    held: Labelled  # the hub's
    test: Labelled  # nobody's
    sets: tuple[str, ...]  # keys of the base's configuration
    lesson: dict[str, Any]  # and of a lesson's
    rounds: int


def labelled(x: Rows, y: Rows, classes: Sequence[str], index: Rows) -> Labelled:
    return Labelled(np.ascontiguousarray(x[index]), [classes[k] for k in y[index]])


def joined(parts: Sequence[Labelled]) -> Labelled:
    return Labelled(np.concatenate([p.x for p in parts]), [label for p in parts for label in p.labels])


def save_npz(path: Path, classes: Sequence[str], train: Labelled, test: Labelled) -> Path:
    """A data set as `edgecl train --data` takes it."""
    at = {k: i for i, k in enumerate(classes)}
    sets = {"train": train, "test": test}
    y = {f"y_{k}": np.array([at[label] for label in v.labels], np.int64) for k, v in sets.items()}
    x = {f"x_{k}": v.x for k, v in sets.items()}
    arrays: dict[str, Any] = {**x, **y, "classes": np.array(classes), "layout": np.array("NCHW")}
    np.savez(path, **arrays)
    return path


ACTIVITIES = (
    "walking", "upstairs", "downstairs", "sitting", "standing", "lying",
    "stand-to-sit", "sit-to-stand", "sit-to-lie", "lie-to-sit", "stand-to-lie", "lie-to-stand",
)  # fmt: skip
HAPT_BASE_USERS = 10
LOW, HIGH = (-2, -2, -2, -4, -4, -4), (2, 2, 2, 4, 4, 4)  # g and rad/s that 0 and 255 stand for


def hapt(root: str, seed: int) -> Fleet:
    """30 users of HAPT (Reyes-Ortiz et al. 2016): 10, drawn by the seed, are the base's, each other is a device.

    Of each user and class the last 30 % of the windows are for tests, and the window before, which overlaps, is nobody's.
    Those of the base's users are the hub's held-out set. Windows are quantised to bytes.
    """
    with np.load(data_root(root) / "hapt.npz") as file:
        x, y, user = (np.concatenate([file[f"{k}_{s}"] for s in ("train", "test")]) for k in ("x", "y", "user"))
    low, high = np.array(LOW, np.float32), np.array(HIGH, np.float32)
    pixels = np.clip(np.rint((x - low) / (high - low) * 255), 0, 255).astype(np.uint8).transpose(0, 2, 1)[:, :, None]
    users = np.random.default_rng(seed).permutation(np.unique(user))
    train, test = zip(*(_parted(user, y, u) for u in users), strict=True)
    some = HAPT_BASE_USERS

    def take(index: Rows) -> Labelled:
        return labelled(pixels, y, ACTIVITIES, index)

    net = ("net.name=har_cnn1d", "net.width=32", "mask.sparsity=0.75", "memory.capacity=300")
    sets = (*net, "train.epochs=20", "train.rate=0.05", "train.schedule=cosine")
    lesson = {"train": {"epochs": 5, "rate": 0.05, "schedule": "constant", "batch": 16}, "memory": {"batch": 8}}
    return Fleet(
        ACTIVITIES, take(np.concatenate(train[:some])), tuple(take(t) for t in train[some:]),
        take(np.concatenate(test[:some])), take(np.concatenate(test[some:])),
        sets, lesson, 8,
    )  # fmt: skip


def _parted(user: Rows, y: Rows, who: int) -> tuple[Rows, Rows]:
    """Positions to train on and to test on."""
    train, test = [], []
    for k in np.unique(y):
        own = np.flatnonzero((user == who) & (y == k))
        cut = round(0.7 * len(own))
        train.append(own[: max(cut - 1, 1)])
        test.append(own[cut:])
    return np.concatenate(train), np.concatenate(test)


def cifar10(root: str, seed: int) -> Fleet:
    """Eight devices with shares of 400 samples of each class from Dirichlet(0.5) (Hsu et al. 2019); the base has 200 of each.

    A tenth of the test set is the test: that and the few samples keep a run to minutes of one core.
    """
    stream = load_stream("cifar10", root, classes_per_task=10)
    rng, train, test = np.random.default_rng(seed), stream.tasks[0].train, stream.tests[0]
    x, y, names = np.asarray(train.x[:]), train.y, stream.class_names
    order = rng.permutation(len(y))
    by_class = [order[y[order] == k] for k in range(10)]
    base, held = (np.concatenate([rows[a:b] for rows in by_class]) for a, b in ((0, 200), (200, 230)))
    parts = _dirichlet(rng, [rows[230:630] for rows in by_class], devices=8, alpha=0.5)
    sets = ("net.name=resnet18", "net.width=20", "mask.sparsity=0.75", "train.epochs=15", "train.schedule=cosine")
    lesson = {"train": {"epochs": 3, "schedule": "constant"}, "memory": {"batch": 16}}
    return Fleet(
        names, labelled(x, y, names, base), tuple(labelled(x, y, names, p) for p in parts), labelled(x, y, names, held),
        labelled(np.asarray(test.x[:]), test.y, names, np.arange(0, len(test.y), 10)),
        (*sets, "memory.capacity=500"), lesson, 5,
    )  # fmt: skip


def _dirichlet(rng: np.random.Generator, by_class: Sequence[Rows], devices: int, alpha: float) -> list[Rows]:
    """Drawn anew until each device has 64 samples."""
    while True:
        shares = rng.dirichlet([alpha] * devices, len(by_class))
        pieces = [np.split(r, (np.cumsum(s)[:-1] * len(r)).astype(int)) for r, s in zip(by_class, shares, strict=True)]
        parts = [np.concatenate([p[d] for p in pieces]) for d in range(devices)]
        if min(map(len, parts)) >= 64:
            return parts


def digits(root: str, seed: int) -> Fleet:
    """Six devices with shares of each digit from Dirichlet(0.5): seconds long."""
    stream = load_stream("digits", root, classes_per_task=10)
    rng, train, test = np.random.default_rng(seed), stream.tasks[0].train, stream.tests[0]
    x, y, names = np.asarray(train.x[:]), train.y, stream.class_names
    order = rng.permutation(len(y))
    by_class = [order[y[order] == k] for k in range(10)]
    parts = _dirichlet(rng, [rows[20:] for rows in by_class], devices=6, alpha=0.5)
    base, held = (np.concatenate([rows[a:b] for rows in by_class]) for a, b in ((0, 10), (10, 20)))
    sets = ("net.name=small_cnn", "net.width=8", "mask.sparsity=0.5", "train.epochs=10", "train.rate=0.05", "train.batch=16")
    return Fleet(
        names, labelled(x, y, names, base), tuple(labelled(x, y, names, p) for p in parts), labelled(x, y, names, held),
        labelled(np.asarray(test.x[:]), test.y, names, np.arange(len(test.y))),
        (*sets, "memory.capacity=60"), {"train": {"epochs": 5}}, 2,
    )  # fmt: skip


FLEETS: dict[str, Callable[[str, int], Fleet]] = {"hapt": hapt, "cifar10": cifar10, "digits": digits}
