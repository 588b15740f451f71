"""What was learned since the slot's bundle came, as an update: runs in a process of its own (child.py)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecl import files, runfolder, store, update
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
    taught = update.taught_since(base, learned)
    if not carried:
        return taught
    of_newest = sum(runfolder.read_config(learned.folder.parent.parent)["data"]["samples"])
    return replace(taught, samples=_since(learned, carried["last_id"], of_newest))


def _since(learned: Model, last: int, at_least: int) -> dict[str, int]:
    """Samples by class, of those with ids above `last`: as many as ids came, shared out as the memory has them.

    Of a short lesson the memory may have kept none: its samples are then spread over all classes.
    """
    memory = learned.memory
    if memory is None:
        return {}
    came = memory.ids > last
    counts = np.bincount(memory.y[came], minlength=len(learned.card.classes))
    if not came.any():
        counts[list(learned.card.seen)] = 1
    total = max(at_least, int(memory.ids.max()) - last)
    shares = np.rint(counts * (total / counts.sum())).astype(int).tolist()
    return {name: n for name, n in zip(learned.card.classes, shares, strict=True) if n}


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
