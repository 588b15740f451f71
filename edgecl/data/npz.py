"""A data set of the user's own: one .npz with x_train, y_train, x_test, y_test, and if wanted classes and layout.

x is uint8 [N, H, W], [N, H, W, C] or [N, C, H, W]; y [N] counts classes from 0; `classes` [K] are their names. Which of
the two four-axis layouts it is: the axis of size 1 or 3 is the channel; if both could be, or another number of channels is
meant, `layout` says it ("NCHW" or "NHWC"), and without it both means [N, C, H, W] and neither is an error.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from edgecl.data.source import Source, Split, check_labels, reason
from edgecl.types import I64, U8, DataError, Preprocess

KEYS = ("x_train", "y_train", "x_test", "y_test")
OPTIONAL = ("classes", "layout")
CHANNEL_AXIS = {"NCHW": 1, "NHWC": 3}

Arrays = dict[str, np.ndarray[Any, Any]]


def load(path: Path) -> Source:
    """Mean and standard deviation are those of all of x_train; no augmentation. Test ids go on where training ids end.

    Raises DataError that names file, key and shape (or sample) for anything that is not as above.
    """
    arrays = _read(path)
    x = {key: _images(path, key, arrays) for key in ("x_train", "x_test")}
    if x["x_train"].shape[1:] != x["x_test"].shape[1:]:
        shapes = " and ".join(f"{key} {arrays[key].shape}" for key in x)
        raise DataError(f"{path}: samples of two shapes: {shapes}")
    y = {key: _labels(path, key, arrays, len(x[f"x_{key[2:]}"])) for key in ("y_train", "y_test")}
    classes = _classes(path, arrays, y["y_train"])
    for key in y:
        check_labels(path, key, y[key], len(classes))
    train, test = _split(x["x_train"], y["y_train"], 0), _split(x["x_test"], y["y_test"], len(y["y_train"]))
    return Source(path.stem, path, classes, train, test, _statistics(x["x_train"]))


def _read(path: Path) -> Arrays:
    """Only the keys that are known: other arrays in the file are not even unpacked."""
    try:
        if not _is_zip(path):
            raise DataError(f"{path}: not an .npz (a zip of arrays)")
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in KEYS if key not in file]
            if missing:
                raise DataError(f"{path}: no array {missing[0]!r}; needs {', '.join(KEYS)}")
            return {key: file[key] for key in (*KEYS, *OPTIONAL) if key in file}
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as e:
        raise DataError(f"{path}: not a readable .npz of plain arrays: {reason(e)}") from None


def _is_zip(path: Path) -> bool:
    """Asked of the open file: by its path, a missing or unreadable one would be no zip rather than an OSError."""
    with path.open("rb") as file:
        return zipfile.is_zipfile(file)


def _images(path: Path, key: str, arrays: Arrays) -> U8:
    """[N, C, H, W], a view where it can be."""
    x = arrays[key]
    if x.dtype != np.uint8 or x.ndim not in (3, 4) or 0 in x.shape:
        raise DataError(f"{path}: {key} is {x.dtype} {x.shape}, not uint8 [N, H, W], [N, H, W, C] or [N, C, H, W]")
    if x.ndim == 3:
        return x[:, None]
    return x if _channel_axis(path, key, arrays) == 1 else x.transpose(0, 3, 1, 2)


def _channel_axis(path: Path, key: str, arrays: Arrays) -> int:
    """1 or 3, by the rule at the top of this file. The test images follow the training images."""
    if "layout" in arrays:
        layout = str(arrays["layout"])
        if layout not in CHANNEL_AXIS:
            raise DataError(f"{path}: layout is {layout!r}, not NCHW or NHWC")
        return CHANNEL_AXIS[layout]
    shape = arrays["x_train"].shape
    axes = [axis for axis in (1, 3) if axis < len(shape) and shape[axis] in (1, 3)]
    if not axes:
        raise DataError(f'{path}: {key} {arrays[key].shape}: no axis of 1 or 3 channels; add layout="NCHW" or "NHWC" to the file')
    return axes[0]


def _labels(path: Path, key: str, arrays: Arrays, samples: int) -> I64:
    y = arrays[key]
    if y.dtype.kind not in "iu" or y.ndim != 1:
        raise DataError(f"{path}: {key} is {y.dtype} {y.shape}, not integers [N]")
    if len(y) != samples:
        raise DataError(f"{path}: x{key[1:]} has {samples} samples, {key} has {len(y)}")
    return y.astype(np.int64)


def _classes(path: Path, arrays: Arrays, y: I64) -> tuple[str, ...]:
    """The names given, else "0", "1" and so on up to the largest training label."""
    names = arrays.get("classes")
    if names is None:
        # A label beyond the number of samples leaves some class empty: found before so many names are made.
        check_labels(path, "y_train", y, len(y))
        return tuple(str(k) for k in range(int(y.max()) + 1))
    if names.dtype.kind != "U" or names.ndim != 1 or len(set(names.tolist())) != len(names) or not len(names):
        raise DataError(f"{path}: classes is {names.dtype} {names.shape}, not different names [K] as text")
    return tuple(names.tolist())


def _split(x: U8, y: I64, first_id: int) -> Split:
    return Split(y, np.arange(first_id, first_id + len(y)), lambda index: np.ascontiguousarray(x[index]))


def _statistics(x: U8) -> Preprocess:
    """Mean and standard deviation of x / 255 by channel, exact from counts of the 256 values; 1 for a constant channel."""
    counts = np.zeros((x.shape[1], 256), dtype=np.int64)
    for start in range(0, len(x), 1024):  # bincount widens its input eightfold: a part at a time
        for c, row in enumerate(counts):
            row += np.bincount(x[start : start + 1024, c].ravel(), minlength=256)
    value, share = np.arange(256) / 255, counts / counts.sum(axis=1, keepdims=True)
    mean = share @ value
    std = np.sqrt(np.sum(share * (value - mean[:, None]) ** 2, axis=1))
    return Preprocess(tuple(mean.tolist()), tuple(np.where((counts > 0).sum(axis=1) > 1, std, 1.0).tolist()))
