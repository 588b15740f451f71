"""F1: data sets by name, as class-incremental streams.

stream = load_stream("cifar10", root)     task.train of each task in turn, one test split a group of classes
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgecl.data import cifar, digits, npz
from edgecl.data.augment import center_crops, draw_crops, prepare
from edgecl.data.source import Source, data_root
from edgecl.data.streams import build, joint
from edgecl.types import ConfigError, Stream

__all__ = [
    "DATASETS",
    "Entry",
    "Row",
    "catalog",
    "center_crops",
    "data_root",
    "draw_crops",
    "joint",
    "load_stream",
    "prepare",
    "resolve",
]


@dataclass(frozen=True)
class Entry:
    """A data set that is known by name. `load` and `find` take the root; `find` says where its files lie, if they do."""

    load: Callable[[str], Source]
    find: Callable[[str], Path | None]
    title: str
    classes: int
    train: int  # samples
    test: int
    shape: tuple[int, int, int]  # C, H, W
    licence: str
    aliases: tuple[str, ...]
    hint: str  # what to run to have it


DATASETS: dict[str, Entry] = {
    "cifar10": Entry(
        load=cifar.load,
        find=cifar.find,
        title="CIFAR-10, colour images of ten kinds",
        classes=10,
        train=50_000,
        test=10_000,
        shape=(3, 32, 32),
        licence="none stated; cite Krizhevsky 2009",
        aliases=("seq-cifar10", "split-cifar10", "cifar-10"),
        hint=cifar.HINT,
    ),
    "digits": Entry(
        load=digits.load,
        find=digits.find,
        title="handwritten digits that come with scikit-learn",
        classes=10,
        train=1_442,
        test=355,
        shape=(1, 8, 8),
        licence="CC BY 4.0; cite Alpaydin and Kaynak 1998 (UCI)",
        aliases=("seq-digits", "split-digits"),
        hint=digits.HINT,
    ),
}


@dataclass(frozen=True)
class Row:
    """One line of `edgecl data list`."""

    name: str
    entry: Entry
    where: Path | None  # None: not on this machine; `entry.hint` says how to get it


def resolve(name: str) -> str:
    """A data set's key in DATASETS from its name or an alias. Raises ConfigError that names the nearest."""
    keys = {alias: key for key, entry in DATASETS.items() for alias in (key, *entry.aliases)}
    wanted = name.strip().lower().replace("_", "-")
    if wanted in keys:
        return keys[wanted]
    near = difflib.get_close_matches(wanted, keys, n=1)
    guess = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(DATASETS)}"
    raise ConfigError(f"no data set {name!r}; {guess} (or give the path of an .npz)")


def load_stream(
    name: str, root: str = "", *, classes_per_task: int = 2, samples_per_class: int = 0, tasks: int = 0, lazy: bool = False
) -> Stream:
    """A stream from a data set's name, or from the path of an .npz (see npz.py), which is relative to `root` if that is given.

    `samples_per_class` > 0 keeps the first so many training samples of each class, `tasks` > 0 the first so many tasks. `lazy`
    reads pixels by position when they are asked for; a data set that has to be unpacked is in memory all the same. Raises
    ConfigError for an unknown name or a share out of range, DataError for files that are missing or wrong.
    """
    is_file = name.lower().endswith(".npz")
    source = npz.load(Path(root).expanduser() / Path(name).expanduser()) if is_file else DATASETS[resolve(name)].load(root)
    return build(source, classes_per_task, samples_per_class, tasks, lazy=lazy)


def catalog(root: str = "") -> tuple[Row, ...]:
    """Every data set that is known by name, and whether its files are here. Reads no pixel."""
    return tuple(Row(name, entry, entry.find(root)) for name, entry in DATASETS.items())
