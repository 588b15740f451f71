"""A layer's mask beside the base's: nothing where it is the same, else its changes or all of it, whichever is shorter."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecl.types import I64, Bools
from edgecl.update import subsets
from edgecl.update.errors import UpdateError
from edgecl.update.subsets import Gaps, gaps_of

FORMS = ((int, int, memoryview) * 2, (int, int, int, memoryview))


def write(base: Bools, live: Bools) -> list[Any] | None:
    """The layer's entry, with m members, the parameter k and the code of each subset: null for the same mask; [m, k, code,
    m, k, code] for a change: ranks of units that died among those that live in the base, ranks of units that came among its
    dead ones; [0, m, k, code] of the units that live; [1, m, k, code] of those that don't, where they are fewer.
    """
    if np.array_equal(base, live):
        return None
    change, flat = [gaps_of(r) for r in ranks(base, live)], live.reshape(-1)
    size, alive = sum(c.size for c in change), np.count_nonzero(flat)
    dead = 2 * alive > flat.size
    listed = flat.size - alive if dead else alive
    whole = gaps_of(np.flatnonzero(flat != dead)) if size >= listed // 8 else None  # each member takes a bit at least
    if whole is None or size < whole.size:
        return [x for part in change for x in _entry(part)]
    return [int(dead), *_entry(whole)]


def _entry(code: Gaps) -> list[Any]:
    return [len(code.gaps), code.k, subsets.write(code)]


def read(where: str, entry: Any, base: Bools) -> Bools:
    """The mask; the base's own array where it is the same. Raises UpdateError that names `where`."""
    if entry is None:
        return base
    if not isinstance(entry, list) or tuple(map(type, entry)) not in FORMS:
        raise UpdateError(f"{where}: its entry is no list of counts and codes")
    live = _changed(where, entry, base) if len(entry) == 6 else _whole(where, entry, base)
    if not live.any():
        raise UpdateError(f"{where}: no unit lives")
    if write(base, live) != entry:
        raise UpdateError(f"{where}: its mask is not in the shortest form")
    return live


def ranks(base: Bools, live: Bools) -> tuple[I64, I64]:
    """(of units that died among the base's live ones, of units that came among its dead ones), both rising."""
    was = np.flatnonzero(base)
    changed = np.flatnonzero(base.reshape(-1) != live.reshape(-1))
    before = np.searchsorted(was, changed)
    died = base.reshape(-1)[changed]
    return before[died], (changed - before)[~died]


def _whole(where: str, entry: list[Any], base: Bools) -> Bools:
    dead, m, k, code = entry
    live = np.full(base.size, bool(dead))
    live[subsets.read(where, code, m, k, base.size)] = not dead
    return live.reshape(base.shape)


def _changed(where: str, entry: list[Any], base: Bools) -> Bools:
    m, k, code, m2, k2, code2 = entry
    was = np.flatnonzero(base)
    died = was[subsets.read(where, code, m, k, len(was))]
    came = subsets.read(where, code2, m2, k2, base.size - len(was))
    live = base.reshape(-1).copy()
    live[died] = False
    live[came + np.searchsorted(was - np.arange(len(was)), came, side="right")] = True
    return live.reshape(base.shape)
