"""Operators' passwords, by argon2id, and the audit log."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, select

from edgecl.hub.store import tables as t
from edgecl.types import ConfigError

PASSWORD_CHARACTERS = (10, 1000)


class Entry(NamedTuple):
    """A row of the audit log."""

    id: int
    at: int
    who: str  # an operator, a device, or "hub"
    what: str
    detail: str


def note(db: Connection, who: str, what: str, detail: str) -> None:
    """Writes to the audit log, in the transaction of what it tells of."""
    db.execute(t.audit.insert().values(at=int(time.time()), who=who[:100], what=what[:40], detail=detail[:400]))


def audit(engine: Engine, limit: int = 200, offset: int = 0) -> list[Entry]:
    """The newest entries first."""
    wanted = select(t.audit).order_by(t.audit.c.id.desc()).limit(limit).offset(offset)
    with t.reading(engine) as db:
        return [Entry(*row) for row in db.execute(wanted)]


def operators(engine: Engine) -> list[str]:
    """Names, sorted."""
    with t.reading(engine) as db:
        return list(db.execute(select(t.operators.c.name).order_by(t.operators.c.name)).scalars())


def add_operator(engine: Engine, name: str, password: str, who: str) -> None:
    """Or gives one that is there a new password. Raises ConfigError for a name or password that is no good."""
    if not name or len(name) > 100 or not name.isprintable() or name != name.strip():
        raise ConfigError(f"operator {name!r}: a name has 1 to 100 printable characters, no space at its ends")
    low, high = PASSWORD_CHARACTERS
    if not low <= len(password) <= high:
        raise ConfigError(f"operator {name}: a password has {low} to {high} characters")
    hashed = _hasher().hash(password)
    with t.writing(engine) as db:
        db.execute(t.operators.delete().where(t.operators.c.name == name))
        db.execute(t.operators.insert().values(name=name, hash=hashed, created=int(time.time())))
        note(db, who, "user", name)


def remove_operator(engine: Engine, name: str, who: str) -> None:
    """Raises ConfigError where there is none of that name."""
    with t.writing(engine) as db:
        if not db.execute(t.operators.delete().where(t.operators.c.name == name)).rowcount:
            raise ConfigError(f"operator {name!r} is not known")
        note(db, who, "user removed", name)


def password_set(engine: Engine, name: str) -> int | None:
    """When (UTC seconds) an operator's password was set; None where there is no operator of that name."""
    with t.reading(engine) as db:
        return db.execute(select(t.operators.c.created).where(t.operators.c.name == name)).scalar()


def check_operator(engine: Engine, name: str, password: str) -> bool:
    """Takes as long for a name that is not known: the password is then checked against a hash of nothing."""
    from argon2.exceptions import InvalidHashError, VerificationError

    with t.reading(engine) as db:
        known = db.execute(select(t.operators.c.hash).where(t.operators.c.name == name[:101])).scalar()
    try:
        return bool(_hasher().verify(known or _NOBODY, password[: PASSWORD_CHARACTERS[1] + 1])) and known is not None
    except (VerificationError, InvalidHashError):
        return False


def _hasher() -> Any:
    from argon2 import PasswordHasher

    return PasswordHasher()


_NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
"""No password has it: 256 zero bits."""
