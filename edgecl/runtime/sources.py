"""Where samples come from: a folder, an .npz, standard input, a camera. Each is a stream of frames, one at a time."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from edgecl.card import Card
from edgecl.runtime.frames import LINE_BYTES, SUFFIXES, Frame, checked_name, from_file, parse_line, raw
from edgecl.types import I64, U8, DataError

ARRAY_BYTES = 2 << 30  # of an .npz's array, before it is unpacked


def open_source(card: Card, given: str, stdin: IO[bytes], *, raw_frames: bool = False, split: str = "test") -> Iterator[Frame]:
    """The frames of `given`: `camera`, `camera:N`, `-`, a folder, a picture, or an .npz (of a data set's this `split`).

    Raises DataError or StoreError where it can't be read, ConfigError where an extra is missing.
    """
    if given == "-":
        return _raw_frames(card, stdin) if raw_frames else _lines(card, stdin)
    if given == "camera" or given.startswith("camera:"):
        from edgecl.runtime.camera import frames

        return frames(card, given.removeprefix("camera").removeprefix(":"))
    path = Path(given)
    if path.is_dir():
        return _folder(card, path)
    if path.suffix.lower() == ".npz":
        return _npz(card, path, split)
    if path.suffix.lower() in SUFFIXES:
        return iter([Frame(str(path), from_file(card, path))])
    raise DataError(f"{given}: is no folder, picture or .npz; --input also takes camera and - (standard input)")


def _folder(card: Card, folder: Path) -> Iterator[Frame]:
    """Pictures in the order of their names; those in a sub-folder have its name for a label."""
    found = 0
    for path in sorted(p for p in folder.glob("**/*") if p.suffix.lower() in SUFFIXES and p.is_file()):
        inner = path.relative_to(folder).parts
        found += 1
        yield Frame(str(path), from_file(card, path), checked_name(inner[0], str(path)) if len(inner) > 1 else None)
    if not found:
        raise DataError(f"{folder}: holds no picture ({', '.join(SUFFIXES)})")


def _lines(card: Card, stdin: IO[bytes]) -> Iterator[Frame]:
    """Lines of JSON; blank ones are passed over."""
    number = 0
    while line := stdin.readline(LINE_BYTES + 1):
        number += 1
        if line.strip():
            frame, _ = parse_line(card, line, f"line {number}")
            if frame is None:
                raise DataError(f"line {number}: has none of path, image and pixels")
            yield frame


def _raw_frames(card: Card, stdin: IO[bytes]) -> Iterator[Frame]:
    size, number = int(np.prod(card.input)), 0
    while data := stdin.read(size):
        number += 1
        yield Frame(f"frame {number}", raw(card, data, f"frame {number}"))


def _npz(card: Card, path: Path, split: str) -> Iterator[Frame]:
    """`x` [N, C, H, W] or [N, H, W, C] or, for one channel, [N, H, W]; if wanted `y` [N], as ids of the card or of the file's
    own `classes`, or as names. A data set's file gives those of one split."""
    x, y, names = _arrays(path, split)
    x = _as_input(card, path, x)
    _check_count(path, x, y)
    for i, sample in enumerate(x):
        yield Frame(
            f"{path}[{i}]", np.ascontiguousarray(sample), None if y is None else _name(path, i, y[i], names or card.classes)
        )


def _arrays(path: Path, split: str) -> tuple[U8, Any, tuple[str, ...] | None]:
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.file_size > ARRAY_BYTES:
                    raise DataError(f"{path}: {member.filename} has more than {ARRAY_BYTES >> 20} MiB")
        with np.load(path, allow_pickle=False) as file:
            end = "" if "x" in file else f"_{split}"
            if f"x{end}" not in file:
                raise DataError(f"{path}: no array 'x' (nor 'x_{split}')")
            names = tuple(map(str, file["classes"].tolist())) if "classes" in file else None
            return file[f"x{end}"], file.get(f"y{end}"), names
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as e:  # RuntimeError: encrypted
        raise DataError(f"{path}: not a readable .npz of plain arrays ({' '.join(str(e).split())[:100]})") from None


def _as_input(card: Card, path: Path, x: U8) -> U8:
    c, h, w = card.input
    ways: dict[tuple[int, ...], Callable[[U8], U8]] = {(h, w, c): lambda a: a.transpose(0, 3, 1, 2), (c, h, w): lambda a: a}
    if c == 1:
        ways[h, w] = lambda a: a[:, None]
    if x.dtype != np.uint8 or x.shape[1:] not in ways:
        raise DataError(f"{path}: x is {x.dtype} {list(x.shape)}, not uint8 [N, {c}, {h}, {w}] or [N, {h}, {w}, {c}]")
    return ways[x.shape[1:]](x)


def _check_count(path: Path, x: U8, y: Any) -> None:
    """Raises DataError where there is no sample, or not one label for each."""
    if not len(x):
        raise DataError(f"{path}: holds no sample")
    if y is not None and y.shape != (len(x),):
        raise DataError(f"{path}: y is {y.dtype} {list(y.shape)}, not a label for each of {len(x)} samples")


def _name(path: Path, i: int, label: Any, names: tuple[str, ...]) -> str:
    if isinstance(label, np.str_):
        return checked_name(str(label), f"{path}: sample {i}")
    known: I64 | Any = label
    if not np.issubdtype(np.asarray(label).dtype, np.integer) or not 0 <= known < len(names):
        raise DataError(f"{path}: sample {i} has label {label!r}, not a name or 0..{len(names) - 1}")
    return names[int(known)]
