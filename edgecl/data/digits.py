"""Handwritten digits, 1,797 of 8×8: they come with scikit-learn, so that a first run needs no download.

The file is the test set of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998, UCI repository).
"""

from __future__ import annotations

import gzip
import importlib.util
import zlib
from pathlib import Path

import numpy as np

from edgecl.data.source import Source, Split, check_labels, rank_in_class, reason
from edgecl.types import I64, U8, DataError, Preprocess

PREPROCESS = Preprocess((0.3052,), (0.3760,))  # of the training split; digits are not mirrored or shifted: no augmentation
CLASSES = tuple("0123456789")
TOP = 16  # the brightest pixel value in the file
HINT = 'pip install "edgecl[demo]"'


def find(root: str = "") -> Path | None:
    """The file within an installed scikit-learn, found without importing it; `root` plays no part."""
    spec = importlib.util.find_spec("sklearn")
    folders = spec.submodule_search_locations if spec else None
    paths = [Path(folder) / "datasets" / "data" / "digits.csv.gz" for folder in folders or ()]
    return next((p for p in paths if p.is_file()), None)


def load(root: str = "") -> Source:
    """Pixels [N, 1, 8, 8] stretched from 0..16 to 0..255; every fifth sample of a class is a test. Ids are the file's rows.

    Raises DataError if scikit-learn is not installed, or its file is not what it was.
    """
    path = find(root)
    if path is None:
        raise DataError(f"digits come with scikit-learn, which is not installed: {HINT}")
    table = _table(path)
    x = np.rint(table[:, :-1] * (255 / TOP)).astype(np.uint8).reshape(-1, 1, 8, 8)
    held = rank_in_class(table[:, -1]) % 5 == 4
    return Source("digits", path, CLASSES, _split(x, table[:, -1], ~held), _split(x, table[:, -1], held), PREPROCESS)


def _table(path: Path) -> I64:
    """[1797, 65]: 64 pixels and the label of each row."""
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.float64).astype(np.int64)
    except (OSError, EOFError, ValueError, zlib.error) as e:
        raise DataError(f"{path}: {reason(e)}") from None
    if table.ndim != 2 or table.shape[1] != 65 or table[:, :-1].min() < 0 or table[:, :-1].max() > TOP:
        raise DataError(f"{path}: not rows of 64 pixels in 0..{TOP} and a label")
    check_labels(path, "rows", table[:, -1], len(CLASSES))
    return table


def _split(x: U8, y: I64, rows: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Split:
    ids = np.flatnonzero(rows)
    pixels = x[ids]
    return Split(y[ids], ids, lambda index: pixels[index])
