"""Models, the merges that made them or were refused, and the classes that are shared."""

from __future__ import annotations

import json
import time
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, Row, select

from edgecl.hub.store import tables as t
from edgecl.hub.store.operators import note
from edgecl.hub.store.updates import release


class Model(NamedTuple):
    """A row of `models`."""

    number: int
    snapshot: str
    parent: int  # number of the model that it was made from; 0 for the first
    content: int  # number of its run folder: another than its own after a rollback
    net: str
    classes: tuple[str, ...]
    created: int
    accuracy: float | None  # on the held-out samples
    before: float | None  # the parent's
    updates: int  # in it
    bytes: int  # as it goes to devices
    note: str
    published: int  # when; 0: not yet


class Merge(NamedTuple):
    """A row of `merges`: a merge that was made, or refused with its reason."""

    inputs: str  # SHA-256 of what went in
    model: int  # that came of it; 0: refused
    base: int
    updates: int
    accuracy: float | None
    before: float | None
    reason: str
    seconds: float
    at: int = 0
    id: int = 0


def add_model(db: Connection, made: Model, who: str) -> None:
    """A model, published or about to be."""
    db.execute(t.models.insert().values(**{**made._asdict(), "classes": json.dumps(made.classes), "note": made.note[:400]}))
    note(db, who, "model", f"{made.number}: {made.note}")


def model(engine: Engine, number: int) -> Model | None:
    """By number."""
    with t.reading(engine) as db:
        row = db.execute(select(t.models).where(t.models.c.number == number)).first()
    return None if row is None else _model(row)


def models(engine: Engine, limit: int = 1000, offset: int = 0) -> list[Model]:
    """The newest first, those that are not published yet among them."""
    with t.reading(engine) as db:
        return [
            _model(row) for row in db.execute(select(t.models).order_by(t.models.c.number.desc()).limit(limit).offset(offset))
        ]


def current(engine: Engine) -> Model | None:
    """The one with the highest number: what devices have, or get."""
    return next(iter(models(engine, 1)), None)


def unpublished(engine: Engine) -> list[Model]:
    """Models that were made, but whose publishing was cut off; the oldest first."""
    with t.reading(engine) as db:
        return [_model(r) for r in db.execute(select(t.models).where(t.models.c.published == 0).order_by(t.models.c.number))]


def was_published(engine: Engine, number: int, size: int) -> None:
    """Notes that devices can get it, in `size` bytes."""
    with t.writing(engine) as db:
        now = {"published": int(time.time()), "bytes": size}
        db.execute(t.models.update().where(t.models.c.number == number).values(**now))
        note(db, "hub", "published", f"model {number}, {size} B")


def of_snapshot(engine: Engine, snapshot: str) -> Model | None:
    """The newest model that is this snapshot."""
    wanted = select(t.models).where(t.models.c.snapshot == snapshot).order_by(t.models.c.number.desc())
    with t.reading(engine) as db:
        row = db.execute(wanted).first()
    return None if row is None else _model(row)


def add_merge(db: Connection, made: Merge) -> None:
    """A merge that ended, one way or the other."""
    values = {k: v for k, v in made._asdict().items() if k != "id"}
    db.execute(t.merges.insert().values(**{**values, "at": int(time.time()), "reason": made.reason[:400]}))
    note(db, "hub", "merge", made.reason or f"{made.updates} updates in model {made.model}")


def merges(engine: Engine, limit: int = 200) -> list[Merge]:
    """The newest first."""
    with t.reading(engine) as db:
        rows = db.execute(select(t.merges).order_by(t.merges.c.id.desc()).limit(limit))
        return [Merge(**{name: getattr(row, name) for name in Merge._fields}) for row in rows]


def share(engine: Engine, name: str, who: str) -> None:
    """Rows of this class are merged from now on; said again, nothing happens."""
    with t.writing(engine) as db:
        if db.execute(select(t.shared.c.name).where(t.shared.c.name == name)).first() is None:
            db.execute(t.shared.insert().values(name=name, at=int(time.time())))
            release(db)
            note(db, who, "share", name)


def shared(engine: Engine) -> frozenset[str]:
    """Names of classes that the operator shared."""
    with t.reading(engine) as db:
        return frozenset(db.execute(select(t.shared.c.name)).scalars())


def _model(row: Row[Any]) -> Model:
    return Model(**{**{name: getattr(row, name) for name in Model._fields}, "classes": tuple(json.loads(row.classes))})
