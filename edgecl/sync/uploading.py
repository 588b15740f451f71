"""One update to the hub: a nonce, the envelope signed over it, then chunks from the offset that the hub names.

After a cut the hub says what it has, and no more than the chunk that was under way goes out again. An answer that is lost is
asked for again: the hub knows the update by device, number and hash, so that a repeat changes nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from edgecl.sync import rules
from edgecl.sync.errors import NetworkError
from edgecl.sync.outbox import Item
from edgecl.sync.rules import Blame, Verdict
from edgecl.sync.transport import OFFSET, Api, Said
from edgecl.types import DataError

TRIES = 5  # in a row without a byte more on the hub, then the round ends
DAMAGED = (400, 422)  # what was signed is not what arrived: a line without TLS may do that
DAMAGED_TRIES = 3
HEADERS = 512  # bytes of a request's, at most
STATES = ("stored", "merged", "refused")

Seal = Callable[[bytes], bytes]
"""A nonce → the signed envelope of the update."""

Read = Callable[[int, int], bytes]
"""Offset and size → so many bytes of the payload."""


class Refused(DataError):
    """The hub will never take this update; its text says why."""


class NotNow(DataError):
    """The hub takes nothing from this device at present; its text says why. `after`: seconds that it asks to wait, or None."""

    def __init__(self, text: str, after: float | None = None) -> None:
        super().__init__(text)
        self.after = after


class OutOfBytes(DataError):
    """The day's bytes are spent. What the hub has of the update stays there."""


class Taken(NamedTuple):
    """An update that the hub has."""

    state: str  # stored, merged or refused
    reason: str


@dataclass
class Uploader:
    """Sends one update after the other through `api`."""

    api: Api
    device: str
    sleep: Callable[[float], object]
    wait: Callable[[int], float]  # failures in a row → seconds of back-off
    allowance: Callable[[], int | None]  # bytes that may still go today; None: any
    begun: Callable[[Item], object]  # is told once the hub has opened an upload for it
    chunk: int = rules.SMALLEST
    most: int = rules.LARGEST  # bytes of a chunk that what is between here and the hub lets through
    sent: int = field(default=0, init=False)  # bytes of the last chunk
    failures: int = field(default=0, init=False)
    damaged: int = field(default=0, init=False)

    def send(self, item: Item, read: Read, seal: Seal) -> Taken:
        """Returns once the hub has stored the update.

        Raises Refused, NotNow, OutOfBytes, NetworkError after TRIES in a row that brought nothing on.
        """
        self.failures = self.damaged = 0
        while True:
            opened = self._opened(item, seal)
            if isinstance(opened, Taken):
                return opened
            self.begun(item)
            for said in self._chunks(opened, item.bytes, read):
                if said is not None:
                    return said

    # opening

    def _opened(self, item: Item, seal: Seal) -> Taken | tuple[str, int]:
        """(upload, offset), or what the hub has of it already."""
        while True:
            self._afford(2 * HEADERS)
            try:
                said = self._open(seal)
            except NetworkError as e:
                self._failed(e)
                continue
            if said.status in (200, 201) and (taken := _taken(said)):
                return taken
            if said.status in (200, 201) and (upload := _upload(said, item.bytes)):
                return upload
            self._judge(rules.OPENING, said)

    def _open(self, seal: Seal) -> Said:
        said = self.api.ask("GET", f"/v1/devices/{self.device}/nonce")
        nonce = said.body.get("nonce")
        if said.status != 200 or not isinstance(nonce, str) or not re.fullmatch("[0-9a-f]{32}", nonce):
            return said if said.status != 200 else Said(502, {"error": "the hub gives no nonce"}, None, None)
        kind = {"Content-Type": "application/octet-stream"}
        return self.api.ask("POST", "/v1/uploads", seal(bytes.fromhex(nonce)), kind)

    # sending

    def _chunks(self, opened: tuple[str, int], size: int, read: Read) -> Iterator[Taken | None]:
        """Ends where the upload is gone and has to be opened anew; yields None after each chunk but the last."""
        offset, path = opened[1], f"/v1/uploads/{opened[0]}"
        while True:
            try:
                said = self._send(path, offset, size, read)
            except NetworkError as e:
                self._failed(e)
                found = self._ask_offset(path)
                if found is None:
                    return
                offset = found
                continue
            if said.status == 200 and (taken := _taken(said)):
                yield taken
            verdict = rules.verdict(said.status, said.offset is not None)
            if said.offset is not None and said.offset <= size and verdict in (Verdict.DONE, Verdict.GO_ON):
                self._moved(offset, said.offset)
                offset = said.offset
                yield None
            elif not self._judge(rules.SENDING, said):
                return

    def _send(self, path: str, offset: int, size: int, read: Read) -> Said:
        """One chunk; an empty one where the hub has all, so that it says what became of it."""
        rest = size - offset
        self._afford(min(rest, rules.SMALLEST) + HEADERS)
        left = self.allowance()
        body = read(offset, min(rest, self.chunk if left is None else min(self.chunk, left - HEADERS)))
        began, failed, self.sent = time.monotonic(), True, len(body)
        try:
            kind = {OFFSET: str(offset), "Content-Type": "application/offset+octet-stream", "Content-Length": str(len(body))}
            said = self.api.ask("PATCH", path, body, kind)
            failed = False
        finally:
            self.chunk = min(self.most, rules.next_chunk(self.chunk, time.monotonic() - began, failed))
        return said

    def _ask_offset(self, path: str) -> int | None:
        """Where the hub wants to go on; None where it no longer knows the upload."""
        while True:
            self._afford(HEADERS)
            try:
                said = self.api.ask("HEAD", path)
            except NetworkError as e:
                self._failed(e)
                continue
            if rules.verdict(said.status) == Verdict.DONE and said.offset is not None:
                return said.offset
            if not self._judge(rules.SENDING, said):
                return None

    def _moved(self, was: int, now: int) -> None:
        """A hub that names ever the same offset is as good as one that is not there."""
        if now > was:
            self.failures = 0
        else:
            self._failed(NetworkError(f"{self.api.url}: stays at offset {now}"))

    # what an answer means

    def _judge(self, stage: str, said: Said) -> bool:
        """Whether the same can be tried again, after a wait; False where the upload begins anew. Raises what ends it."""
        verdict = rules.verdict(said.status, said.offset is not None)
        if verdict == Verdict.FINAL:
            return self._final(stage, said)
        if said.after is not None and said.after > rules.FIRST:
            raise NotNow(said.error, said.after)
        self._failed(NetworkError(f"{self.api.url}: {said.error}"), said.after)
        return True

    def _final(self, stage: str, said: Said) -> bool:
        if stage == rules.SENDING and said.status == 413 and self.sent > rules.SMALLEST:
            self.chunk = self.most = max(rules.SMALLEST, self.sent // 2)
            return True
        whose = rules.blame(stage, said.status)
        if whose == Blame.DEVICE:
            raise NotNow(said.error)
        if said.status in DAMAGED:
            self.damaged += 1
        if (whose == Blame.UPDATE and said.status not in DAMAGED) or self.damaged >= DAMAGED_TRIES:
            raise Refused(said.error)
        self._failed(NetworkError(f"{self.api.url}: {said.error}"))
        return whose != Blame.UPLOAD

    def _failed(self, error: NetworkError, after: float | None = None) -> None:
        """Waits before the next try. Raises the error after too many in a row."""
        self.failures += 1
        if self.failures >= TRIES:
            raise error
        self.sleep(rules.wait_for(after, self.wait(self.failures)))

    def _afford(self, size: int) -> None:
        left = self.allowance()
        if left is not None and left < size:
            raise OutOfBytes("the day's bytes are spent; it goes on where it is when the next day begins")


def _taken(said: Said) -> Taken | None:
    state = said.body.get("state")
    reason = said.body.get("reason")
    return Taken(state, reason if isinstance(reason, str) else "") if state in STATES else None


def _upload(said: Said, size: int) -> tuple[str, int] | None:
    """(upload, offset)."""
    upload, offset = said.body.get("upload"), said.body.get("offset")
    if not isinstance(upload, str) or not re.fullmatch("[0-9a-zA-Z_-]{1,64}", upload):
        return None
    return (upload, offset) if type(offset) is int and 0 <= offset <= size else None
