"""Real samples that an export is calibrated and checked with: the replay memory's, a file's, or the data set's test split."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgecl.card import Card
from edgecl.config import Config
from edgecl.model import Model, read_data
from edgecl.types import I64, U8, ConfigError, DataError, Stream

FILE_LIMIT = 1 << 30  # bytes that a file of samples may unpack to
NOISE = 64  # samples


class Checked(NamedTuple):
    """Samples of classes that are seen."""

    source: str  # where they are from, for people
    x: U8  # [N, C, H, W]
    y: I64 | None  # [N] class ids, where they are known


def of_model(model: Model, file: Path | None) -> Checked | None:
    """From `file` if there is one, else the replay memory's; None where the method keeps none. Raises as `from_file`."""
    if file is not None:
        return from_file(file, model.card)
    if model.memory is None or not model.memory.size:
        return None
    n = model.memory.size
    return Checked("replay memory", model.memory.x[:n], model.memory.y[:n])


def noise(card: Card) -> Checked:
    """Random pictures, for want of real ones."""
    x = np.random.default_rng(0).integers(0, 256, (NOISE, *card.input), dtype=np.uint8)
    return Checked("random pictures, for want of samples", x, None)


def from_file(path: Path, card: Card) -> Checked:
    """Of an .npz with `x`, uint8 [N, C, H, W], and if wanted `y`, class ids [N].

    Raises DataError that names the file, the array and its shape where it is anything else, or unpacks to over 1 GiB.
    """
    arrays = _read(path)
    x, y = arrays.get("x"), arrays.get("y")
    if x is None or x.dtype != np.uint8 or x.shape[1:] != card.input or not len(x):
        is_ = "missing" if x is None else f"{x.dtype} {x.shape}"
        raise DataError(f"{path}: x is {is_}, not uint8 [N, {', '.join(map(str, card.input))}], N from 1 up")
    if y is None:
        return Checked(str(path), x, None)
    if y.dtype.kind not in "iu" or y.shape != (len(x),):
        raise DataError(f"{path}: y is {y.dtype} {y.shape}, not {len(x)} class ids")
    keep = np.isin(y, card.seen)
    if not keep.any():
        raise DataError(f"{path}: y holds no class that was learned (ids {', '.join(map(str, card.seen))})")
    return Checked(str(path), x[keep], y[keep].astype(np.int64))


def _read(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            size = sum(i.file_size for i in archive.infolist())
        if size > FILE_LIMIT:
            raise DataError(f"{path}: unpacks to {size:,} bytes, more than {FILE_LIMIT:,}")
        with np.load(path, allow_pickle=False) as arrays:
            return {k: arrays[k] for k in ("x", "y") if k in arrays}
    except OSError as e:
        raise DataError(f"{path}: {(e.strerror or str(e)).lower()}") from None
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as e:
        raise DataError(f"{path}: not a readable .npz of plain arrays: {e}") from None


def of_tests(config: Config, card: Card, most: int) -> Checked | None:
    """At most `most` test samples of the classes seen, evenly from each split; None where the data set is not here, or 0."""
    stream = _stream(config) if most else None
    if stream is None or stream.shape != card.input or stream.class_names != card.classes:
        return None
    splits = [t for t, group in zip(stream.tests, stream.groups, strict=True) if set(group) <= set(card.seen)]
    take = [t.take(_even(len(t), most // len(splits))) for t in splits]
    if not take:
        return None
    return Checked("test split", np.concatenate([t.x for t in take]), np.concatenate([t.y for t in take]))


def _stream(config: Config) -> Stream | None:
    try:
        return read_data(config, lazy=True)
    except (DataError, ConfigError):
        return None


def _even(n: int, most: int) -> I64:
    """Positions, evenly spaced."""
    return np.unique(np.linspace(0, n - 1, min(n, max(most, 1))).round().astype(np.int64))
