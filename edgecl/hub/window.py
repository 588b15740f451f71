"""Which of the waiting updates go into one merge.

Of a device one update counts at a time: the newest of its oldest base. A newer update of the same base has in it what the older
one had; one of another base has not, and comes next. What has samples of personal classes only is left out until a class is
shared. The same rows give the same window, in whatever order they are looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import Engine

from edgecl import files
from edgecl.hub import store
from edgecl.hub.current import Current
from edgecl.hub.place import Place
from edgecl.hub.settings import Settings
from edgecl.hub.store.updates import PERSONAL, REFUSED, STORED, Judged
from edgecl.types import ConfigError, DataError
from edgecl.update.envelope import open_envelope
from edgecl.update.header import peek

ENVELOPE_BYTES = 512
OF_A_DEVICE = 1000  # rows that are looked at, the lowest numbers first
NAMED = 50  # classes at most in an update's row: a device names up to 10,000
OLDER = "a newer update of the device is here"


class Window(NamedTuple):
    """What one merge looks at."""

    taken: list[store.Update]  # one a device, in the order of devices
    found: list[Judged]  # what is known without decoding: refused, or waits for a class to be shared
    inputs: str  # SHA-256 of all that decides what comes of it


def windows(current: Current, known: Settings) -> Iterator[Window]:
    """Those devices first whose update came first, as many as can be merged at once; then the next ones."""
    devices = store.senders(current.engine)
    room = _room(current, known)
    shared = store.shared(current.engine) | set(current.base.classes)
    for start in range(0, len(devices), room):
        yield _window(current, sorted(devices[start : start + room]), shared, known.merging.max_age)


def _room(current: Current, known: Settings) -> int:
    """As many as fit into merging.memory_bytes once they are decoded."""
    each = sum(a.nbytes for a in current.base.weights.values()) + sum(m.nbytes for m in current.base.live.values())
    return max(1, min(known.merging.at_most, known.merging.memory_bytes // each))


def _window(current: Current, devices: Sequence[str], shared: frozenset[str], max_age: int) -> Window:
    taken: list[store.Update] = []
    found: list[Judged] = []
    for device in devices:
        one = _Sender(current, shared, max_age, found).newest(store.stored(current.engine, device, OF_A_DEVICE))
        taken += [] if one is None else [one]
    seen = [(u.device, u.sequence, u.sha256) for u in taken] + [(f.device, f.sequence, f.state) for f in found]
    lines = [current.row.snapshot, *sorted(shared), *(f"{d} {n} {what}" for d, n, what in seen)]
    return Window(taken, found, hashlib.sha256("\n".join(lines).encode()).hexdigest())


class _Sender(NamedTuple):
    """Looks through one device's updates; what it finds wrong with them goes to `found`."""

    current: Current
    shared: frozenset[str]
    max_age: int
    found: list[Judged]

    def newest(self, rows: Sequence[store.Update]) -> store.Update | None:
        """Of the oldest base, `rows` being in the order of their numbers. What it makes needless is refused."""
        bases = [(row, base) for row in rows if (base := self._base(row))]
        first = next((base for row, base in bases if row.reason != PERSONAL), None)
        same = [row for row, base in bases if base == first]
        for i, row in reversed(list(enumerate(same))):
            if row.reason != PERSONAL and self._has_shared(row):
                self.found.extend(Judged(old.device, old.sequence, REFUSED, OLDER, base=first or "") for old in same[:i])
                return row
        return None

    def _base(self, row: store.Update) -> str:
        """Snapshot of its base, or nothing where the row is refused."""
        try:
            base = row.base or peek(verified(self.current.here, self.current.engine, row)).base
            self.current.aged(base, self.max_age)
        except (DataError, ConfigError) as e:
            self.found.append(Judged(row.device, row.sequence, REFUSED, str(e)))
            return ""
        return base

    def _has_shared(self, row: store.Update) -> bool:
        """Whether it has samples of a class that is shared; else it waits, which its row says from now on."""
        try:
            header = peek(verified(self.current.here, self.current.engine, row))
        except DataError as e:
            self.found.append(Judged(row.device, row.sequence, REFUSED, str(e)))
            return False
        learned = [k for k, n in zip(header.classes, header.samples, strict=True) if n]
        if self.shared.isdisjoint(learned):
            more = {
                "base": header.base,
                "samples": sum(header.samples),
                "classes": told(header.classes, header.samples),
                "attempts": row.attempts,
            }
            self.found.append(Judged(row.device, row.sequence, STORED, PERSONAL)._replace(**more))  # type: ignore[arg-type]
            return False
        return True


def told(classes: Sequence[str], samples: Sequence[int]) -> tuple[str, ...]:
    """The classes with samples that a row names, in their order: those with most, as many as fit a page."""
    most = sorted((i for i, n in enumerate(samples) if n), key=lambda i: -samples[i])[:NAMED]
    return tuple(classes[i] for i in sorted(most))


def verified(here: Place, engine: Engine, update: store.Update) -> bytes:
    """The payload, if it is what the device signed. Raises DataError where it is not, StoreError where it can't be read."""
    paths = here.update(update.device, update.sequence), here.envelope(update.device, update.sequence)
    if not all(p.is_file() for p in paths) or paths[0].stat().st_size != update.bytes or paths[1].stat().st_size > ENVELOPE_BYTES:
        raise DataError("its file on the hub is missing or damaged")
    payload, envelope = (files.read_bounded(p, max(update.bytes, ENVELOPE_BYTES)) for p in paths)
    device = store.device(engine, update.device)
    if device is None or hashlib.sha256(payload).hexdigest() != update.sha256:
        raise DataError("its file on the hub is damaged")
    said = open_envelope(envelope, device.public_key)
    if (said.device, said.sequence, said.sha256) != (update.device, update.sequence, update.sha256):
        raise DataError("its file on the hub is not that of its envelope")
    return payload
