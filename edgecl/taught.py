"""F3: `lesson.npz` of a run folder: what a lesson teaches and what it is tested on, kept until it is learned."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgecl import files
from edgecl.card import preprocess_from_dict
from edgecl.types import DataError, Samples, StoreError, Stream, Task

BASE = "base"
"""Key of config.yaml that only a lesson has: what it goes on from."""

FILE = "lesson.npz"
LIMIT = 4 << 30  # bytes of one array, before it is unpacked
ARRAYS = ("x", "y", "ids")


def write(run: Path, stream: Stream) -> int:
    """Writes the stream's samples, deflated, with a name of their own and synced; returns the file's bytes. Raises StoreError."""
    tests = {k: np.concatenate([getattr(t, k) for t in stream.tests]) for k in ARRAYS}
    train = stream.tasks[0].train
    data = io.BytesIO()
    arrays: dict[str, Any] = {f"{k}_train": np.asarray(getattr(train, k)) for k in ARRAYS} | {
        f"{k}_test": v for k, v in tests.items()
    }
    np.savez_compressed(data, **arrays)
    files.write_atomic(run / FILE, data.getvalue())
    return data.tell()


def read(run: Path, described: Mapping[str, Any]) -> Stream:
    """The lesson's stream: one task, and a test split for each group of classes.

    `described` is `stream` of config.yaml. Raises DataError where the samples are gone, StoreError where they are damaged.
    """
    a = _arrays(run / FILE)
    groups = tuple(tuple(g) for g in described["groups"])
    train = Samples(a["x_train"], a["y_train"], a["ids_train"])
    test = Samples(a["x_test"], a["y_test"], a["ids_test"])
    tests = tuple(test.take(np.isin(test.y, g)) for g in groups)
    task = Task(0, tuple(np.unique(train.y).tolist()), train)
    pre = preprocess_from_dict(described["preprocess"])
    return Stream(described["name"], tuple(described["classes"]), groups, (task,), tests, pre, described.get("before", 0))


def _arrays(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise DataError(f"{path}: the lesson's samples are no longer kept: it is learned")
    names = [f"{k}_{part}" for part in ("train", "test") for k in ARRAYS]
    try:
        with zipfile.ZipFile(path) as archive:
            large = [m.filename for m in archive.infolist() if m.file_size > LIMIT]
        if large:
            raise StoreError(f"{path}: {large[0]} has more than {LIMIT >> 20} MiB")
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as e:
        raise StoreError(f"{path}: is damaged ({' '.join(str(e).split())[:100]})") from None
