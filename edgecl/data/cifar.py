"""CIFAR-10 from its official binary files (Krizhevsky 2009): 10,000 records a file, each a label and 32×32 planes R, G, B."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from edgecl.data.source import ROOT_RULE, Source, Split, check_labels, data_root, reason
from edgecl.types import I64, U8, DataError, Preprocess

FOLDER = "cifar-10-batches-bin"
TRAIN_FILES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST_FILE = "test_batch.bin"
META_FILE = "batches.meta.txt"
SHAPE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32  # bytes
RECORDS = 10_000  # a file
HINT = "edgecl data get cifar10"
# Mean, standard deviation and augmentation as Mammoth has them (datasets/seq_cifar10.py), so that results compare.
PREPROCESS = Preprocess((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2615), pad=4, flip=True)


def find(root: str = "", *, records: int = RECORDS) -> Path | None:
    """The folder with all seven files at their full size, or None."""
    folder = data_root(root) / FOLDER
    whole = all(_size(folder / n) == records * RECORD for n in (*TRAIN_FILES, TEST_FILE))
    return folder if whole and _size(folder / META_FILE) > 0 else None


def load(root: str = "", *, records: int = RECORDS) -> Source:
    """Reads `<root>/cifar-10-batches-bin`; see `data_root` for an empty `root`. Ids: 0..49999 train, 50000..59999 test.

    `records` is how many a file must hold. Raises DataError that names the file (and sample) for a missing one, a wrong
    size or a label out of 0..9.
    """
    folder = data_root(root) / FOLDER
    missing = next((n for n in (*TRAIN_FILES, TEST_FILE, META_FILE) if _size(folder / n) < 0), None)
    if missing:
        raise DataError(f"no CIFAR-10 in {folder} (no {missing}); the root is {ROOT_RULE}; to download it: {HINT}")
    train = _split([folder / n for n in TRAIN_FILES], records, 0)
    test = _split([folder / TEST_FILE], records, len(train.y))
    return Source("cifar10", folder, _classes(folder / META_FILE), train, test, PREPROCESS)


def _size(path: Path) -> int:
    """Bytes, or -1 if there is none or it can't be seen."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _split(paths: list[Path], records: int, first_id: int) -> Split:
    labels = [_labels(p, records) for p in paths]
    for path, y in zip(paths, labels, strict=True):
        check_labels(path, "labels", y, 10)

    def read(index: I64) -> U8:
        x = np.empty((len(index), *SHAPE), dtype=np.uint8)
        for i, path in enumerate(paths):
            rows = np.flatnonzero(index // records == i)
            if len(rows):
                _pixels(path, index[rows] - i * records, rows, x)
        return x

    y = np.concatenate(labels)
    return Split(y, np.arange(first_id, first_id + len(y)), read)


def _labels(path: Path, records: int) -> I64:
    """[records]: the first byte of each. In pieces: neither the file nor a map of it is ever in memory as a whole."""
    if (size := _size(path)) != records * RECORD:
        raise DataError(f"{path}: {size} bytes, not {records} records of {RECORD}; to download it again: {HINT}")
    y = np.empty(records, dtype=np.int64)
    try:
        with path.open("rb", buffering=0) as file:
            for start in range(0, records, _PIECE):
                piece = np.frombuffer(file.read(_PIECE * RECORD), np.uint8).reshape(-1, RECORD)
                y[start : start + len(piece)] = piece[:, 0]
    except (OSError, ValueError) as e:
        raise DataError(f"{path}: {reason(e)}") from None
    return y


_PIECE = 256  # records


def _pixels(path: Path, records: I64, rows: I64, out: U8) -> None:
    """Reads the pixels of these records of a file into these rows of `out` [N, 3, 32, 32]. Raises DataError."""
    try:
        fd = os.open(path, os.O_RDONLY)
        try:
            for record, row in zip(records.tolist(), rows.tolist(), strict=True):
                if os.preadv(fd, [out[row].reshape(-1)], record * RECORD + 1) != RECORD - 1:
                    raise DataError(f"{path}: ends before record {record}; to download it again: {HINT}")
        finally:
            os.close(fd)
    except OSError as e:
        raise DataError(f"{path}: {reason(e)}") from None


def _classes(path: Path) -> tuple[str, ...]:
    try:
        names = tuple(path.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"{path}: {reason(e)}") from None
    if len(set(names)) != 10:
        raise DataError(f"{path}: {len(set(names))} class names, not 10")
    return names
