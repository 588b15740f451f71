"""Uploads that are under way: a part file each, synced before its offset is named.

`begin` writes the envelope, `append` the bytes, `place` renames both to where updates lie, once length and hash are right. An
upload outlives the process: after a start it goes on from what its part file holds. After a power cut that may be more than
what was synced, so a wrong hash then starts it over instead of ending it.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from edgecl import files
from edgecl.hub.place import Place
from edgecl.hub.refusal import Refusal, elsewhere, later
from edgecl.hub.settings import Limits

ENVELOPE_BYTES = 512
PART = re.compile(r"([0-9a-f]{32})\.(part|envelope)")


class Opening(NamedTuple):
    """What an envelope says of its payload."""

    device: str
    sequence: int
    sha256: str  # hex
    bytes: int

    @property
    def number(self) -> tuple[str, int]:
        """What only one payload can have."""
        return self.device, self.sequence


Parse = Callable[[bytes], Opening | None]
"""Reads an envelope; None where it is damaged."""


@dataclass
class Upload:
    """One under way. `lock` is held by whoever writes it."""

    id: str
    opening: Opening
    offset: int = 0
    synced: bool = False  # its names are on the disk
    placed: bool = False  # its files are where updates lie: only the row is missing
    recovered: bool = False  # its bytes are those of a process before
    hash: Any = field(default_factory=hashlib.sha256)
    touched: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Uploads:
    """All that are under way. Safe to call from many threads."""

    def __init__(self, place: Place, limits: Limits) -> None:
        self._place, self._limits, self._lock = place, limits, threading.Lock()
        self._by_id: dict[str, Upload] = {}
        self._folders: set[Path] = set()  # of devices, that this process knows to be on the disk
        self._by_number: dict[tuple[str, int], Upload] = {}  # device and sequence: one at a time

    def recover(self, parse: Parse) -> int:
        """Takes up what lies in uploads/. What is no upload is removed. How many there are."""
        with files.naming(self._place.uploads):
            names = sorted(os.listdir(self._place.uploads))
        for name in names:
            match = PART.fullmatch(name)
            if not match or (match[2] == "part" and f"{match[1]}.envelope" not in names):
                _remove(self._place.uploads / name)
            elif match[2] == "envelope":
                self._take_up(match[1], parse)
        return len(self._by_id)

    def _take_up(self, own: str, parse: Parse) -> None:
        envelope, part = self._place.opening(own), self._place.part(own)
        opening = self._read(envelope, parse)
        size = part.stat().st_size if part.exists() else 0
        if opening is None or size > opening.bytes or opening.number in self._by_number:
            _remove(part, envelope)
            return
        upload = Upload(own, opening, size, recovered=size > 0)
        if size:
            upload.hash = _hash_of(part)
        self._by_id[own] = self._by_number[opening.number] = upload

    def _read(self, envelope: Path, parse: Parse) -> Opening | None:
        """None for one that is damaged, or too old."""
        info = envelope.stat()
        if info.st_size > ENVELOPE_BYTES or time.time() - info.st_mtime > self._limits.upload_seconds:
            return None
        return parse(files.read_bounded(envelope, ENVELOPE_BYTES))

    def beside(self, opening: Opening) -> int:
        """Bytes that the open uploads of its device will come to, the one of its own number aside."""
        with self._lock:
            said = [u.opening for u in self._by_id.values()]
        return sum(o.bytes for o in said if o.device == opening.device and o.number != opening.number)

    def get(self, own: str) -> Upload:
        """Raises Refusal (404)."""
        with self._lock:
            upload = self._by_id.get(own)
        if upload is None:
            raise Refusal(404, "no such upload here; begin it again")
        return upload

    def begin(self, opening: Opening, envelope: bytes) -> tuple[Upload, bool]:
        """An upload, and whether it is a new one: with the same hash, it is the one that began before. One of another hash
        under the same number gives way. Raises Refusal where too many are open."""
        with self._lock:
            known = self._by_number.get(opening.number)
            if known is not None and known.opening == opening:
                return known, False
            if known is not None and known.lock.locked():
                raise later("another payload is being written under this number", 5)
            self._make_room(opening, known)
            upload = Upload(secrets.token_hex(16), opening)
            # Not synced: lost with the power, the device begins again. The first offset that is named syncs it.
            with files.naming(self._place.uploads):
                self._place.opening(upload.id).write_bytes(envelope)
            self._by_id[upload.id] = self._by_number[opening.number] = upload
            return upload, True

    def _make_room(self, opening: Opening, known: Upload | None) -> None:
        old = time.monotonic() - self._limits.upload_seconds
        for upload in [u for u in self._by_id.values() if u is known or (u.touched < old and not u.lock.locked())]:
            self._drop(upload)
        own = sum(u.opening.device == opening.device for u in self._by_id.values())
        if own >= self._limits.device_uploads or len(self._by_id) >= self._limits.uploads:
            raise later("too many uploads are open", 60)

    def append(self, upload: Upload, offset: int, data: bytes) -> bool:
        """Writes and syncs `data`; whether the upload is complete now. Its lock is held. Raises Refusal."""
        if self._by_id.get(upload.id) is not upload:
            raise Refusal(404, "no such upload here; begin it again")
        if offset != upload.offset:
            raise elsewhere(upload.offset)
        if offset + len(data) > upload.opening.bytes:
            raise Refusal(413, f"the upload would have more than the {upload.opening.bytes} bytes of its envelope")
        complete = offset + len(data) == upload.opening.bytes
        if not data:  # nothing to write: a process before may have been killed when it had all
            return complete
        with files.naming(self._place.part(upload.id)):
            self._write(upload, offset, data, names=not complete)
        upload.hash.update(data)
        upload.offset, upload.touched = offset + len(data), time.monotonic()
        return complete

    def _write(self, upload: Upload, offset: int, data: bytes, *, names: bool) -> None:
        fd = os.open(self._place.part(upload.id), os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.lseek(fd, offset, os.SEEK_SET)
            files.write_all(fd, data)
            os.ftruncate(fd, offset + len(data))  # of an earlier try there may be more
            os.fsync(fd)
        finally:
            os.close(fd)
        if names and not upload.synced:
            files.sync(self._place.opening(upload.id))
            files.sync(self._place.uploads)
            upload.synced = True

    def place(self, upload: Upload) -> None:
        """Checks the hash of a complete upload and moves its files to where updates lie, synced. Its lock is held.

        Raises Refusal: 422 and the upload is gone, or 409 with offset 0 where the power may have cut it.
        """
        if upload.placed:
            return
        opening, part, envelope = upload.opening, self._place.part(upload.id), self._place.opening(upload.id)
        if upload.hash.hexdigest() != opening.sha256:
            raise self._wrong(upload)
        final = self._place.update(opening.device, opening.sequence)
        with files.naming(final):
            self._folder(final.parent)
            if upload.recovered:  # a process that was killed between a write and its sync wrote it
                files.sync(part)
            if not upload.synced and envelope.exists():
                files.sync(envelope)
            if envelope.exists():  # an earlier try may have come so far
                os.replace(envelope, self._place.envelope(opening.device, opening.sequence))
            os.replace(part, final)
            files.sync(final.parent)
        upload.placed = True

    def _folder(self, folder: Path) -> None:
        """A device's, which is on the disk then: that it is there may come from a process that was killed before it synced."""
        if folder in self._folders:
            return
        folder.mkdir(exist_ok=True)
        files.sync(folder.parent)
        self._folders.add(folder)

    def _wrong(self, upload: Upload) -> Refusal:
        if upload.recovered:
            upload.recovered, upload.offset, upload.hash = False, 0, hashlib.sha256()
            return elsewhere(0)
        self.forget(upload)
        return Refusal(422, "the bytes are not those of the envelope (their SHA-256 differs); the upload is gone")

    def forget(self, upload: Upload) -> None:
        """Removes it and what lies in uploads/ of it."""
        with self._lock:
            self._drop(upload)

    def _drop(self, upload: Upload) -> None:
        if self._by_id.pop(upload.id, None) is not None:
            del self._by_number[upload.opening.number]
            _remove(self._place.part(upload.id), self._place.opening(upload.id))


def _remove(*paths: Path) -> None:
    for path in paths:
        with suppress(OSError):  # it is gone already, or goes when the hub starts next
            os.unlink(path)


def _hash_of(path: Path) -> Any:
    digest = hashlib.sha256()
    with files.naming(path), path.open("rb") as file:
        while block := file.read(files.BLOCK):
            digest.update(block)
    return digest
