"""What was learned since the slot's bundle came, as an update: runs in a process of its own (child.py)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecl import files, store, update
from edgecl.model import Model, open_model
from edgecl.runtime import lessons
from edgecl.runtime import place as places
from edgecl.types import StoreError

if TYPE_CHECKING:
    from edgecl.update import Taught

REBASED = "rebased.json"
"""In a folder of lessons: the snapshot that was carried over from another base, and the last sample that its memory held then."""

REBASED_BYTES = 4096


def main(given: dict[str, Any]) -> dict[str, Any]:
    """`slot`, `lessons`, `packed` (snapshots that need no packing), `values`, `out` → nothing, or what was written to `out`."""
    slot, folder = Path(given["slot"]), Path(given["lessons"])
    found = newest_of_its_own(slot, folder)
    if found is None:
        return {}
    base, learned = open_model(slot / "learner"), open_model(found)
    if learned.card.snapshot in given["packed"]:
        return {}
    data = pack(base, learned, rebased(folder), given["values"])
    files.write_atomic(Path(given["out"]), data)
    return {"base": base.card.snapshot, "snapshot": learned.card.snapshot, "bytes": len(data), "lesson": found.name}


def newest_of_its_own(slot: Path, folder: Path) -> Path | None:
    """The newest lesson that was learned in this folder; None where there is none but what was carried over from another base."""
    place = places.find(slot)
    if place.learner is None:
        return None
    newest = lessons.newest(place, folder)
    if newest is None or newest == place.learner:
        return None
    return None if snapshot_of(newest) == rebased(folder).get("snapshot") else newest


def snapshot_of(run: Path) -> str:
    """The SHA-256 that names a run's newest snapshot."""
    return files.sha256(store.place(run, store.latest(run) or 0) / store.STATE)


def pack(base: Model, learned: Model, carried: dict[str, Any], values: str) -> bytes:
    """The payload of an update. `carried` is what rebased.json says: samples that came with it count for no lesson since."""
    taught = _taught(base, learned, carried)
    change = update.difference(base, learned, taught)
    return update.encode(change, update.Base.of(base), values=values)


def _taught(base: Model, learned: Model, carried: dict[str, Any]) -> Taught:
    last = carried.get("last_id")
    if last is None or base.memory is None:
        return update.taught_since(base, learned)
    ids = np.full_like(base.memory.ids, last)
    return update.taught_since(base._replace(memory=replace(base.memory, ids=ids)), learned)


def rebased(folder: Path) -> dict[str, Any]:
    """rebased.json of a folder of lessons, {} where it has none. Raises StoreError where it is damaged."""
    path = folder / REBASED
    if not path.exists():
        return {}
    try:
        said = json.loads(files.read_bounded(path, REBASED_BYTES))
        return {"snapshot": str(said["snapshot"]), "last_id": int(said["last_id"]), "base": str(said["base"])}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise StoreError(f"{path}: is damaged (not whole, or not JSON)") from None
