"""Updates: stored, then merged or refused, each with its reason."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, Row, case, func, select

from edgecl.hub.store import tables as t

STORED, MERGED, REFUSED = "stored", "merged", "refused"
DAY = 86_400
PERSONAL = "waits: it has samples of personal classes only; `edgecl hub share` shares one"
"""The reason of stored ones that no merge looks at before a class is shared."""


class New(NamedTuple):
    """An update whose files are on the disk."""

    device: str
    sequence: int
    sha256: str
    bytes: int


class Update(NamedTuple):
    """A row of `updates`."""

    id: int
    device: str
    sequence: int
    sha256: str
    bytes: int
    received: int
    state: str  # stored, merged, refused
    reason: str
    model: int  # number of the model that it is in
    attempts: int
    base: str  # snapshot; "" until a merge has looked at it, as what follows
    samples: int
    classes: tuple[str, ...]
    accuracy: float | None  # alone on its base


class Judged(NamedTuple):
    """What a merge found of an update."""

    device: str
    sequence: int
    state: str
    reason: str = ""
    model: int = 0
    attempts: int = 0
    base: str = ""
    samples: int = 0
    classes: tuple[str, ...] = ()
    accuracy: float | None = None


def insert(db: Connection, new: New) -> bool:
    """Whether it is there now: False where another payload has that device's sequence number. A repeat changes nothing."""
    if (known := digest(db, new.device, new.sequence)) is not None:
        return known == new.sha256
    now = int(time.time())
    db.execute(t.updates.insert().values(**new._asdict(), received=now, state=STORED))
    counted = t.devices.update().where(t.devices.c.id == new.device)
    db.execute(counted.values(bytes=t.devices.c.bytes + new.bytes, last_seen=now))
    return True


def digest(db: Connection, device: str, sequence: int) -> str | None:
    """The SHA-256 of the update that has this number, or None."""
    c = t.updates.c
    return db.execute(select(c.sha256).where(c.device == device, c.sequence == sequence)).scalar()


def update(engine: Engine, device: str, sequence: int) -> Update | None:
    """By its number."""
    c = t.updates.c
    with t.reading(engine) as db:
        row = db.execute(select(t.updates).where(c.device == device, c.sequence == sequence)).first()
    return None if row is None else _update(row)


def updates(engine: Engine, device: str = "", state: str = "", limit: int = 200, offset: int = 0) -> list[Update]:
    """The newest first; those of a device or a state, or all."""
    wanted = select(t.updates).order_by(t.updates.c.id.desc()).limit(limit).offset(offset)
    for column, value in ((t.updates.c.device, device), (t.updates.c.state, state)):
        wanted = wanted.where(column == value) if value else wanted
    with t.reading(engine) as db:
        return [_update(row) for row in db.execute(wanted)]


def counts(engine: Engine) -> dict[str, int]:
    """Updates by state."""
    with t.reading(engine) as db:
        return dict.fromkeys((STORED, MERGED, REFUSED), 0) | t.counted(db, t.updates.c.state)


def sent(engine: Engine, devices: Sequence[str]) -> dict[str, int]:
    """Updates by device, of those that sent any."""
    with t.reading(engine) as db:
        return t.counted(db, t.updates.c.device, t.updates.c.device.in_(devices))


def taught(engine: Engine, limit: int = 10_000) -> dict[str, set[str]]:
    """Class → devices that have samples of it, by the newest updates that a merge looked at."""
    c, found = t.updates.c, dict[str, set[str]]()
    with t.reading(engine) as db:
        rows = db.execute(select(c.classes, c.device).where(c.base != "").order_by(c.id.desc()).limit(limit)).all()
    for classes, device in rows:
        for name in json.loads(classes):
            found.setdefault(name, set()).add(device)
    return found


def senders(engine: Engine) -> list[str]:
    """Approved devices of which something can be merged, those first whose update came first. What waits for a class is none."""
    c = t.updates.c
    both = select(c.device).join(t.devices, t.devices.c.id == c.device)
    mergeable = (c.state == STORED) & (c.reason != PERSONAL) & (t.devices.c.state == "approved")
    with t.reading(engine) as db:
        return list(db.execute(both.where(mergeable).group_by(c.device).order_by(func.min(c.id))).scalars())


def stored(engine: Engine, device: str, limit: int) -> list[Update]:
    """A device's stored ones, in the order of their numbers."""
    c = t.updates.c
    wanted = select(t.updates).where(c.device == device, c.state == STORED).order_by(c.sequence).limit(limit)
    with t.reading(engine) as db:
        return [_update(row) for row in db.execute(wanted)]


def release(db: Connection) -> None:
    """What waits for a class to be shared is looked at again."""
    c = t.updates.c
    db.execute(t.updates.update().where(c.state == STORED, c.reason == PERSONAL).values(reason=""))


def stored_bytes(engine: Engine, device: str, keep_days: int) -> tuple[int, int]:
    """Bytes of a device's updates: of the last day, and of those whose payload is kept."""
    c, now = t.updates.c, int(time.time())
    day, kept = c.received > now - DAY, (c.received > now - keep_days * DAY) | (c.state == STORED)
    sums = [func.coalesce(func.sum(case((which, c.bytes), else_=0)), 0) for which in (day, kept)]
    with t.reading(engine) as db:
        row = db.execute(select(*sums).where(c.device == device)).one()
    return int(row[0]), int(row[1])


def outlived(engine: Engine, keep_days: int, limit: int = 10_000) -> Iterator[Update]:
    """Merged and refused ones that are older: their payloads may go, their rows stay. `limit`: rows held at once."""
    c, last = t.updates.c, 0
    old = select(t.updates).where(c.state != STORED, c.received <= int(time.time()) - keep_days * DAY).order_by(c.id)
    while True:
        with t.reading(engine) as db:
            rows = [_update(row) for row in db.execute(old.where(c.id > last).limit(limit))]
        yield from rows
        if len(rows) < limit:
            return
        last = rows[-1].id


def judged(db: Connection, found: Iterable[Judged]) -> None:
    """Writes what a merge found, of updates that were not refused meanwhile."""
    for one in found:
        values = {**one._asdict(), "reason": one.reason[:400], "classes": json.dumps(one.classes)}
        values |= {"samples": min(one.samples, 1 << 60)}
        c = t.updates.c
        row = (c.device == values.pop("device")) & (c.sequence == values.pop("sequence")) & (c.state == STORED)
        db.execute(t.updates.update().where(row).values(**values))


def refuse(engine: Engine, found: Sequence[Judged]) -> None:
    """`judged` in a transaction of its own."""
    with t.writing(engine) as db:
        judged(db, found)


def _update(row: Row[Any]) -> Update:
    values = {name: getattr(row, name) for name in Update._fields}
    return Update(**{**values, "classes": tuple(json.loads(row.classes))})
