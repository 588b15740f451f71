"""Devices and the tokens that they enrol with."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Collection
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, Row, func, select

from edgecl.hub.store import tables as t
from edgecl.hub.store.operators import note
from edgecl.types import ConfigError, DataError

PENDING, APPROVED, REVOKED = "pending", "approved", "revoked"
TOKEN_BYTES = 24


class Token(NamedTuple):
    """What a device may enrol with."""

    uses: int = 1
    seconds: int = 7 * 86_400
    approve: bool = False  # at once, without an operator's word
    note: str = ""


class Device(NamedTuple):
    """A row of `devices`."""

    id: str
    public_key: bytes  # 32
    name: str
    machine: str
    edgecl: str
    state: str  # pending, approved, revoked
    created: int
    last_seen: int
    model: int  # that it said it has, 0: none yet
    health: str
    reported: dict[str, Any]
    bytes: int  # of its updates, ever


def device_id(public_key: bytes) -> str:
    """The first 16 hex digits of the SHA-256 of the key's 32 bytes."""
    return hashlib.sha256(public_key).hexdigest()[:16]


def add_token(engine: Engine, wish: Token, who: str) -> str:
    """A new token; the database keeps its hash only."""
    token, now = secrets.token_urlsafe(TOKEN_BYTES), int(time.time())
    row = {"hash": _hash(token), "created": now, "expires": now + wish.seconds, "uses": wish.uses}
    with t.writing(engine) as db:
        db.execute(t.tokens.insert().values(**row, approve=int(wish.approve), note=wish.note[:200]))
        note(db, who, "token", f"{wish.uses} uses, {wish.seconds} s{', approves' if wish.approve else ''} {wish.note}")
    return token


def enroll(engine: Engine, token: str, public_key: bytes, about: dict[str, str], most: int, pending: int) -> Device:
    """The device, made now or by an earlier call with the same key and token. `about`: name, machine, edgecl.

    `most` devices in all, `pending` that wait for approval. Raises DataError for a token that is not good for it.
    """
    own, digest, now = device_id(public_key), _hash(token), int(time.time())
    with t.writing(engine) as db:
        row = db.execute(select(t.devices).where(t.devices.c.id == own)).first()
        if row is not None:
            if row.public_key != public_key or row.token != digest:
                raise DataError(f"device {own} is enrolled already, with another token")
            return _device(row)
        state = _spend(db, digest, now)
        _room(db, most, pending if state == PENDING else most)
        new = {**about, "id": own, "public_key": public_key, "token": digest, "state": state, "created": now, "last_seen": now}
        db.execute(t.devices.insert().values(**new))
        note(db, own, "enroll", f"{about['name']}: {state}")
        return _device(db.execute(select(t.devices).where(t.devices.c.id == own)).one())


def _spend(db: Connection, digest: str, now: int) -> str:
    """Takes a use off the token; the state that it gives."""
    row = db.execute(select(t.tokens).where(t.tokens.c.hash == digest).with_for_update()).first()
    if row is None:
        raise DataError("this join token is not known here")
    if row.uses < 1 or row.expires <= now:
        raise DataError(f"this join token {'was used already' if row.uses < 1 else 'has expired'}")
    db.execute(t.tokens.update().where(t.tokens.c.hash == digest).values(uses=t.tokens.c.uses - 1))
    return APPROVED if row.approve else PENDING


def _room(db: Connection, most: int, pending: int) -> None:
    if db.execute(select(func.count()).select_from(t.devices)).scalar_one() >= most:
        raise DataError(f"this hub has {most} devices, which is its limit")
    waiting = select(func.count()).select_from(t.devices).where(t.devices.c.state == PENDING)
    if db.execute(waiting).scalar_one() >= pending:
        raise DataError(f"{pending} devices wait for approval, which is this hub's limit")


def device(engine: Engine, own: str) -> Device | None:
    """By id."""
    with t.reading(engine) as db:
        row = db.execute(select(t.devices).where(t.devices.c.id == own)).first()
    return None if row is None else _device(row)


def devices(engine: Engine, state: str = "", limit: int = 10_000, offset: int = 0) -> list[Device]:
    """All, or those of a state, the newest enrolment first."""
    wanted = select(t.devices).order_by(t.devices.c.created.desc(), t.devices.c.id).limit(limit).offset(offset)
    with t.reading(engine) as db:
        return [_device(row) for row in db.execute(wanted.where(t.devices.c.state == state) if state else wanted)]


def named(engine: Engine, ids: Collection[str]) -> dict[str, str]:
    """Id → name."""
    c = t.devices.c
    with t.reading(engine) as db:
        return {row.id: row.name for row in db.execute(select(c.id, c.name).where(c.id.in_(ids)))}


def device_counts(engine: Engine) -> dict[str, int]:
    """Devices by state."""
    with t.reading(engine) as db:
        return dict.fromkeys((PENDING, APPROVED, REVOKED), 0) | t.counted(db, t.devices.c.state)


def approve(engine: Engine, own: str, who: str) -> Device:
    """Raises ConfigError for a device that is not known or was revoked: its key may be in other hands."""
    return _turn(engine, own, who, "approve", (PENDING, APPROVED), APPROVED)


def revoke(engine: Engine, own: str, who: str) -> Device:
    """Nothing is taken from it any more, and what waits of it is refused. Raises ConfigError."""
    return _turn(engine, own, who, "revoke", (PENDING, APPROVED, REVOKED), REVOKED)


def _turn(engine: Engine, own: str, who: str, what: str, allowed: tuple[str, ...], state: str) -> Device:
    with t.writing(engine) as db:
        row = db.execute(select(t.devices).where(t.devices.c.id == own).with_for_update()).first()
        if row is None:
            raise ConfigError(f"device {own!r} is not enrolled here")
        if row.state not in allowed:
            raise ConfigError(f"device {own} is {row.state}; it has to enrol anew, with a new key")
        db.execute(t.devices.update().where(t.devices.c.id == own).values(state=state))
        if state == REVOKED:
            theirs = (t.updates.c.device == own) & (t.updates.c.state == "stored")
            db.execute(t.updates.update().where(theirs).values(state="refused", reason="its device was revoked"))
        note(db, who, what, f"{own} {row.name}")
        return _device(row)._replace(state=state)


def report(engine: Engine, own: str, said: dict[str, Any]) -> None:
    """Keeps a device's report, which the caller has bounded, and that it was seen now."""
    values: dict[str, Any] = {"reported": json.dumps(said), "last_seen": int(time.time())}
    for key, kind, limit in (("edgecl", str, 40), ("health", str, 200), ("model", int, 0)):
        if isinstance(said.get(key), kind):
            values[key] = _shown(said[key][:limit]) if limit else min(max(0, said[key]), 1 << 30)
    with t.writing(engine) as db:
        db.execute(t.devices.update().where(t.devices.c.id == own).values(**values))


def _shown(text: str) -> str:
    """Without what commands a terminal, and the zero byte that PostgreSQL takes in no text."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _device(row: Row[Any]) -> Device:
    values = {name: getattr(row, name) for name in Device._fields}
    return Device(**{**values, "reported": json.loads(row.reported)})
