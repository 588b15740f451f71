"""The folder of a place's lessons: numbered run folders, each made from the one before, and samples that wait for the next."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgecl import files, lesson
from edgecl.card import Card
from edgecl.runtime.frames import LINE_BYTES, checked_name
from edgecl.runtime.place import Place
from edgecl.types import U8, DataError, StoreError

KEPT = 2  # lessons that stay: the newest, and the one before for a way back


class Sample(NamedTuple):
    """One labelled sample [C, H, W]."""

    x: U8
    label: str


def numbers(folder: Path) -> list[int]:
    """Of all lessons there, rising. Raises StoreError."""
    with files.naming(folder):
        names = os.listdir(folder) if folder.is_dir() else []
    return sorted(int(n) for n in names if re.fullmatch("[0-9]{3,}", n))


def at(folder: Path, number: int) -> Path:
    """A lesson's run folder."""
    return folder / f"{number:03d}"


def newest(place: Place, folder: Path) -> Path | None:
    """The run folder that knows most: the newest lesson that is learned, else the place's own learner, if it has one."""
    for number in reversed(numbers(folder)):
        if lesson.finished(at(folder, number)):
            return at(folder, number)
    return place.learner


def unfinished(folder: Path) -> Path | None:
    """The newest lesson, if a process ended before it was learned."""
    found = numbers(folder)
    last = at(folder, found[-1]) if found else None
    return last if last is not None and not lesson.finished(last) else None


def prune(folder: Path) -> None:
    """Removes all but the newest lessons; each loses its name first. Raises StoreError."""
    for number in numbers(folder)[:-KEPT]:
        old = folder / f".{number:03d}.old"
        with files.naming(old):
            os.replace(at(folder, number), old)
    for old in folder.glob(".*.old"):
        shutil.rmtree(old, ignore_errors=True)


def set_aside(run: Path) -> Path:
    """Renames a lesson that can't be learned, so that it is not tried again; its samples stay in it. Raises StoreError."""
    aside = run.with_name(f"{run.name}.stopped")
    with files.naming(aside):
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(run, aside)
        files.sync(run.parent)
    return aside


class Pending:
    """`pending-NNN.jsonl`: what is gathered for lesson NNN, so that a killed process loses none of it.

    Lines are handed to the system at once and synced by `sync` only: a power cut may lose the latest.
    """

    def __init__(self, folder: Path, card: Card) -> None:
        self.folder, self.card, self.bytes = folder, card, 0
        self.number = 1 + max(numbers(folder), default=0)
        self._fd = -1

    def recover(self) -> list[Sample]:
        """What an earlier process gathered; files of lessons that have begun are removed. Raises StoreError."""
        found: list[Sample] = []
        for path in sorted(self.folder.glob("pending-*.jsonl")):
            match = re.fullmatch(r"pending-([0-9]{3,})\.jsonl", path.name)
            if match and int(match[1]) >= self.number:
                found += self._read(path)
                self.number = max(self.number, int(match[1]))
            elif match:
                path.unlink(missing_ok=True)
        return found

    def add(self, sample: Sample) -> None:
        """Appends one sample. Raises StoreError; nothing is left of it then."""
        pixels = base64.b64encode(zlib.compress(sample.x.tobytes())).decode()
        line = json.dumps({"label": sample.label, "pixels": pixels}).encode() + b"\n"
        path = self._path()
        with files.naming(path):
            if self._fd < 0:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            end = os.fstat(self._fd).st_size
            try:
                files.write_all(self._fd, line)
            except OSError:
                os.ftruncate(self._fd, end)
                raise
        self.bytes += len(line)

    def turn(self, number: int) -> None:
        """What comes from now on is for lesson `number`."""
        self.close()
        self.number = number

    def forget(self, number: int) -> None:
        """Removes what was gathered for a lesson that has begun, and for those before."""
        for path in self.folder.glob("pending-*.jsonl"):
            if (match := re.fullmatch(r"pending-([0-9]{3,})\.jsonl", path.name)) and int(match[1]) <= number:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Syncs and closes the file."""
        if self._fd >= 0:
            with files.naming(self._path()):
                os.fsync(self._fd)
                os.close(self._fd)
            self._fd = -1

    def _path(self) -> Path:
        return self.folder / f"pending-{self.number:03d}.jsonl"

    def _read(self, path: Path) -> list[Sample]:
        """All whole lines; a torn end is cut off, so that the next line is one of its own."""
        found, end = list[Sample](), 0
        with files.naming(path), path.open("r+b") as file:
            for i, line in enumerate(iter(lambda: file.readline(LINE_BYTES), b"")):
                if not line.endswith(b"\n"):
                    break
                found.append(self._sample(f"{path}: line {i + 1}", line))
                end += len(line)
            file.truncate(end)
        return found

    def _sample(self, where: str, line: bytes) -> Sample:
        size = int(np.prod(self.card.input))
        try:
            said: Any = json.loads(line)
            label, packed = checked_name(said["label"], where), base64.b64decode(said["pixels"], validate=True)
            data = zlib.decompressobj().decompress(packed, size + 1)
        except (ValueError, KeyError, TypeError, RecursionError, zlib.error, DataError) as e:
            raise StoreError(f"{where}: is damaged ({' '.join(str(e).split())[:80]})") from None
        if len(data) != size:
            raise StoreError(f"{where}: holds no sample of {size} bytes")
        return Sample(np.frombuffer(data, np.uint8).reshape(self.card.input), label)
