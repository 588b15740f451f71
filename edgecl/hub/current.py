"""The model in use, and what is asked of the older ones while updates are merged."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine

from edgecl.hub import store
from edgecl.hub.place import Place
from edgecl.model import Model, open_model
from edgecl.types import DataError, StoreError
from edgecl.update import Base


@dataclass
class Current:
    """The model in use, and the older ones as they are asked for."""

    here: Place
    engine: Engine
    row: store.Model
    model: Model
    base: Base

    def age(self, snapshot: str) -> int | None:
        """Models published since that one; None where it is none of this hub's."""
        if snapshot == self.row.snapshot:
            return 0
        known = store.of_snapshot(self.engine, snapshot)
        return None if known is None else self.row.number - known.number

    def aged(self, snapshot: str, most: int) -> int:
        """`age`, of a model of this hub that is `most` models old at most. Raises DataError for any other."""
        age = self.age(snapshot)
        if age is None:
            raise DataError(f"its base {snapshot[:12]} is no model of this hub")
        if age > most:
            raise DataError(f"its base is {age} models old, more than {most}")
        return age

    def older(self, snapshot: str) -> Base:
        known = store.of_snapshot(self.engine, snapshot)
        assert known is not None
        return Base.of(open_model(self.here.model(known.content)))


def current(here: Place, engine: Engine) -> Current:
    """Raises StoreError where the hub has no model."""
    row = store.current(engine)
    if row is None:
        raise StoreError(f"{here.root}: has no model; `edgecl hub init` was not ended")
    model = open_model(here.model(row.content))
    return Current(here, engine, row, model, Base.of(model))
