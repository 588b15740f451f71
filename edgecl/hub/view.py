"""The hub as its operator's page sees it: rows of the database in the page's terms, and what an operator may do."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from sqlalchemy import Engine

from edgecl.hub import place, publishing, store
from edgecl.hub.pages import AuditRow, ClassRow, DeviceRow, MergeRow, ModelRow, UpdateRow
from edgecl.hub.place import Place
from edgecl.hub.settings import Settings


@dataclass(frozen=True)
class View:
    """Fills `pages.Source`."""

    here: Place
    known: Settings
    engine: Engine

    def name(self) -> str:
        """Host of the hub's URL."""
        return f"edgecl hub {urlsplit(self.known.url).hostname or ''}".strip()

    def now(self) -> float:
        return time.time()

    def devices(self, state: str = "", start: int = 0, count: int = 50) -> Sequence[DeviceRow]:
        return self._devices(store.devices(self.engine, state, count, start))

    def device_counts(self) -> Mapping[str, int]:
        return store.device_counts(self.engine)

    def device(self, id: str) -> DeviceRow | None:
        found = store.device(self.engine, id)
        return self._devices([found])[0] if found else None

    def updates(self, state: str = "", device: str = "", start: int = 0, count: int = 50) -> Sequence[UpdateRow]:
        rows = store.updates(self.engine, device, state, count, start)
        names = store.named(self.engine, {u.device for u in rows})
        bases = self._bases(rows)
        return [
            UpdateRow(
                u.device, names.get(u.device, ""), u.sequence, u.received, u.bytes, bases.get((u.device, u.sequence)),
                u.classes, u.samples, u.state, u.reason, u.model or None,
            )
            for u in rows
        ]  # fmt: skip

    def update_counts(self) -> Mapping[str, int]:
        return store.counts(self.engine)

    def models(self, start: int = 0, count: int = 50) -> Sequence[ModelRow]:
        newest = store.current(self.engine)
        rows = store.models(self.engine, count, start)
        return [ModelRow(m.number, m.created, m.accuracy, m.updates, _state(m, newest or m), m.note, m.bytes) for m in rows]

    def merges(self, count: int = 50) -> Sequence[MergeRow]:
        rows = store.merges(self.engine, count)
        return [MergeRow(m.at, m.base, m.updates, m.before, m.accuracy, m.model or None, m.reason) for m in rows]

    def classes(self) -> Sequence[ClassRow]:
        """Those that no model was made with, and those that were shared."""
        models, shared = store.models(self.engine, 1_000_000), store.shared(self.engine)
        given = set(models[-1].classes) if models else set()
        found = store.taught(self.engine)
        names = sorted((set(found) | shared) - given, key=lambda k: (k in shared, -len(found.get(k, ())), k))
        return [ClassRow(name, len(found.get(name, ())), name in shared) for name in names]

    def audit(self, start: int = 0, count: int = 50) -> Sequence[AuditRow]:
        return [AuditRow(e.at, e.who, f"{e.what} {e.detail}".strip()) for e in store.audit(self.engine, count, start)]

    def login(self, name: str, password: str) -> bool:
        return store.check_operator(self.engine, name, password)

    def since(self, name: str) -> float | None:
        return store.password_set(self.engine, name)

    def approve(self, device: str, who: str) -> None:
        store.approve(self.engine, device, who)

    def revoke(self, device: str, who: str) -> None:
        store.revoke(self.engine, device, who)

    def rollback(self, number: int, who: str) -> None:
        with place.alone(self.here, "merge"):
            publishing.rollback(self.here, self.known, self.engine, number, who)

    def share(self, name: str, who: str) -> None:
        store.share(self.engine, name, who)

    def _devices(self, rows: Sequence[store.Device]) -> list[DeviceRow]:
        sent = store.sent(self.engine, [d.id for d in rows])
        return [
            DeviceRow(
                d.id, d.name, d.state, d.machine, d.edgecl, d.model or None, d.created, d.last_seen or None,
                "" if d.health == "well" else d.health, d.bytes, sent.get(d.id, 0),
            )
            for d in rows
        ]  # fmt: skip

    def _bases(self, rows: Sequence[store.Update]) -> dict[tuple[str, int], int]:
        """Update → number of its base; of a model that was given again, the number that it had when the update came."""
        models = store.models(self.engine, 1_000_000) if rows else []
        found: dict[tuple[str, int], int] = {}
        for u in rows:
            same = sorted((m.created, m.number) for m in models if u.base and m.snapshot == u.base)
            if same:
                found[u.device, u.sequence] = max([n for at, n in same if at <= u.received], default=same[0][1])
        return found


def _state(model: store.Model, newest: store.Model) -> str:
    if model.number == newest.number:
        return "current"
    return "same" if model.content == newest.content else "published"
