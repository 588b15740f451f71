"""The outbox: `ROOT/sync/outbox/`, updates that wait to be sent. What is in it is synced, whole, and stays until the hub has it.

An update N is there once `N.json` is: its payload `N.update` was synced and named before. Its number was taken from `next`, which
was raised and synced before anything else, so that no number is given twice whatever the power does; a cut may skip one. One
process at a time (the folder's owner holds `ROOT/sync/.lock`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgecl import files
from edgecl.sync import rules
from edgecl.sync.rules import Waiting
from edgecl.types import StoreError

NEXT, SENT, ASIDE = "next", "sent.json", "aside"
CARD_BYTES = 4096
SENT_BYTES = 16 << 10
REMEMBERED = 64  # snapshots that were packed
KEPT_ASIDE = 3
LAST = 2**53 - 1  # what JSON holds exactly


@dataclass(frozen=True)
class Item:
    """One update that waits. Its payload lies beside it."""

    sequence: int
    bytes: int
    sha256: str
    base: str  # snapshot that it is a difference to
    snapshot: str  # that was learned
    begun: bool = False
    reason: str = ""  # why the hub will not have it; only in aside/


class Damaged(StoreError):
    """An update's bytes are lost, or not those that were put there: it can never be sent."""


class Outbox:
    """See above. Every method raises StoreError in one line where the disk fails or a file is damaged."""

    def __init__(self, folder: Path, quota: int, *, sweep: bool = True) -> None:
        """`sweep`: false where another process may be at work there: then it is only looked at."""
        self.folder, self.quota = folder, quota
        if not sweep:
            return
        with files.naming(folder):
            (folder / ASIDE).mkdir(parents=True, exist_ok=True)
            files.sync(folder.parent)
            files.sync(folder)
        self._sweep()

    def put(self, file: Path, base: str, snapshot: str) -> Item:
        """Keeps an update, and removes `file`, which has its bytes; what it supersedes goes.

        StoreError where it has no room: nothing is changed then.
        """
        with files.naming(file):
            size = file.stat().st_size
        needless = rules.superseded(self.waiting(), base)
        self._make_room(size, needless)
        item = Item(self._take_number(), size, files.sha256(file), base, snapshot)
        with files.naming(_update(self.folder, item.sequence)):
            files.sync(file)
            os.replace(file, _update(self.folder, item.sequence))
            files.sync(self.folder)
        files.write_atomic(_card(self.folder, item.sequence), _encode(item))
        self._remember(snapshot)
        for number in needless:
            self._remove(self.folder, number)
        return item

    def items(self) -> list[Item]:
        """All that wait, oldest first."""
        return _items(self.folder)

    def aside(self) -> list[Item]:
        """Those that the hub will not have, with its reason."""
        return _items(self.folder / ASIDE)

    def waiting(self) -> list[Waiting]:
        """For the rules."""
        return [Waiting(i.sequence, i.bytes, i.base, i.begun) for i in self.items()]

    def check(self, item: Item) -> None:
        """Damaged where its bytes are not those that were put there; another StoreError where they can't be read now."""
        path = _update(self.folder, item.sequence)
        with files.naming(path):
            there = path.exists()
        if not there:
            raise Damaged(f"{path}: is lost")
        if files.sha256(path) != item.sha256:
            raise Damaged(f"{path}: is damaged (its sha256 is not the one of its card)")

    def read(self, item: Item, offset: int, size: int) -> bytes:
        """At most `size` bytes of it, from `offset` on."""
        path = _update(self.folder, item.sequence)
        with files.naming(path), path.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def begin(self, item: Item) -> None:
        """Some of it is on the hub now: no later update takes its place."""
        if not item.begun:
            files.write_atomic(_card(self.folder, item.sequence), _encode(Item(**{**asdict(item), "begun": True})))

    def acknowledged(self, item: Item) -> None:
        """The hub has it: it goes."""
        self._write_sent({"last": {"sequence": item.sequence, "bytes": item.bytes, "snapshot": item.snapshot}})
        self._remove(self.folder, item.sequence)

    def set_aside(self, item: Item, reason: str) -> None:
        """The hub will never have it: it no longer waits, and stays to be looked at while there is room."""
        aside, text = self.folder / ASIDE, " ".join(reason.split())[:300]
        files.write_atomic(_card(aside, item.sequence), _encode(Item(**{**asdict(item), "reason": text})))
        with files.naming(_update(aside, item.sequence)):
            with suppress(FileNotFoundError):  # its payload is lost: that may be the reason
                os.replace(_update(self.folder, item.sequence), _update(aside, item.sequence))
            files.sync(aside)
            files.sync(self.folder)
        self._remove(self.folder, item.sequence)
        for old in self.aside()[:-KEPT_ASIDE]:
            self._remove(self.folder / ASIDE, old.sequence)

    def packed(self) -> list[str]:
        """Snapshots of which an update was put here, oldest first."""
        found = self._sent().get("packed", [])
        sent = [s for s in found if isinstance(s, str)] if isinstance(found, list) else []
        return [*sent, *(i.snapshot for i in (*self.aside(), *self.items()) if i.snapshot not in sent)]

    def last(self) -> dict[str, Any] | None:
        """What the hub acknowledged last: sequence, bytes, snapshot."""
        found = self._sent().get("last")
        return found if isinstance(found, dict) else None

    # numbers and room

    def _take_number(self) -> int:
        path = self.folder / NEXT
        number = max(self._next(path), 1 + max((i.sequence for i in (*self.items(), *self.aside())), default=0))
        files.write_atomic(path, b"%d\n" % (number + 1))
        return number

    def _next(self, path: Path) -> int:
        if not path.exists():
            return 1
        text = files.read_bounded(path, 32).decode("ascii", "replace")
        if not re.fullmatch(r"[1-9][0-9]{0,15}\n", text) or int(text) >= LAST:
            raise StoreError(f"{path}: is damaged (no number); enroll this device anew, so that no number is used twice")
        return int(text)

    def _make_room(self, size: int, needless: list[int]) -> None:
        held = sum(i.bytes for i in self.items() if i.sequence not in needless)
        for old in self.aside():
            if not rules.has_room(held + sum(i.bytes for i in self.aside()), size, self.quota):
                self._remove(self.folder / ASIDE, old.sequence)
        if not rules.has_room(held, size, self.quota):
            raise StoreError(
                f"{self.folder}: {size:,} B more would pass its quota of {self.quota:,} B: {held:,} B wait to be sent"
            )

    # files

    def _remove(self, folder: Path, number: int) -> None:
        """The card first: without it the update is not there."""
        with files.naming(_card(folder, number)):
            for path in (_card(folder, number), _update(folder, number)):
                with suppress(FileNotFoundError):
                    os.unlink(path)
                files.sync(folder)

    def _sweep(self) -> None:
        """Ends what the power cut off: puts, removals, and an update that was on its way aside."""
        for folder in (self.folder, self.folder / ASIDE):
            with files.naming(folder):
                for path in (*folder.glob("[0-9]*.update"), *folder.glob(".*.tmp")):
                    if path.name.startswith(".") or not path.with_suffix(".json").exists():
                        path.unlink(missing_ok=True)
        for number in {i.sequence for i in self.items()} & {i.sequence for i in self.aside()}:
            if not _update(self.folder, number).exists():
                self._remove(self.folder, number)

    def _sent(self) -> dict[str, Any]:
        path = self.folder / SENT
        return _object(path, files.read_bounded(path, SENT_BYTES)) if path.exists() else {}

    def _write_sent(self, more: Mapping[str, Any]) -> None:
        files.write_atomic(self.folder / SENT, json.dumps({**self._sent(), **more}).encode() + b"\n")

    def _remember(self, snapshot: str) -> None:
        known = [s for s in self.packed() if s != snapshot]
        self._write_sent({"packed": [*known, snapshot][-REMEMBERED:]})


def _items(folder: Path) -> list[Item]:
    with files.naming(folder):
        there = os.listdir(folder) if folder.is_dir() else []
        names = sorted((n for n in there if re.fullmatch(r"[0-9]{6,16}\.json", n)), key=lambda n: int(n[:-5]))
    return [_decode(folder / n) for n in names]


def _card(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.json"


def _update(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.update"


def _encode(item: Item) -> bytes:
    return json.dumps(asdict(item)).encode() + b"\n"


def _decode(path: Path) -> Item:
    said = _object(path, files.read_bounded(path, CARD_BYTES))
    try:
        item = Item(**said)
    except TypeError:
        raise StoreError(f"{path}: is damaged (lacks a key or has another)") from None
    wanted = (int, int, str, str, str, bool, str)
    if tuple(map(type, said.values())) != wanted or item.sequence != int(path.stem):
        raise StoreError(f"{path}: is damaged (a value is not of its kind)")
    return item


def _object(path: Path, data: bytes) -> dict[str, Any]:
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise StoreError(f"{path}: is damaged (not whole, or not JSON)")
    return said
