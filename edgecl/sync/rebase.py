"""What a device had learned for itself, put on top of a new base: classes by name, classifier rows, replay memory. Pure.

Shared knowledge comes with the new base. What the hub does not know, the device's personal classes, keeps its rows of the
classifier, and the replay memory keeps its samples, so that the next lesson, or a short one over the memory, fits them to the new
features. Stored logits stay those of the network that saw the sample; of classes that it did not know they are 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgecl.memory import Reservoir
from edgecl.model import Model
from edgecl.nets import grown, with_room
from edgecl.tensors import Arrays
from edgecl.types import I64, Bools, ConfigError


def personal(new: Model, old: Model) -> tuple[str, ...]:
    """Names of the classes that `old` learned and `new` did not, by row."""
    known = seen_names(new)
    return tuple(n for n in seen_names(old) if n not in known)


def seen_names(model: Model) -> tuple[str, ...]:
    """Of the classes that were learned, by row."""
    return tuple(model.card.classes[k] for k in model.card.seen)


def own_samples(first: Reservoir | None, now: Reservoir | None) -> I64:
    """Slots of `now` whose sample is not in `first`, the memory that came with the bundle: they were learned here."""
    if now is None:
        return np.empty(0, np.int64)
    came = set() if first is None else {x.tobytes() for x in first.x[: first.size]}
    return np.array([k for k in range(now.size) if now.x[k].tobytes() not in came], np.int64)


def rebased(new: Model, old: Model) -> Model:
    """`new`, with the personal classes and the memory of `old`.

    Raises ConfigError where they can't be put together: other samples, another network before the classifier, no memory.
    """
    _check(new, old)
    mine = personal(new, old)
    classes = (*new.card.classes, *(n for n in mine if n not in new.card.classes))
    net = new.net if len(classes) <= new.net.classes else with_room(new.net, len(classes))
    row = {name: k for k, name in enumerate(classes)}
    seen = tuple(sorted({*new.card.seen, *(row[n] for n in mine)}))
    made = new._replace(net=net, card=replace(new.card, classes=classes, seen=seen), weights=_weights(new, old, net.classes, row))
    return made._replace(memory=_memory(made, new, old))


def _check(new: Model, old: Model) -> None:
    if new.net.input != old.net.input:
        raise ConfigError(f"net {new.net.name} takes samples of {list(new.net.input)}, not of {list(old.net.input)} as before")
    if new.memory is None or old.memory is None:
        raise ConfigError(f"net {new.net.name}: its method keeps no replay memory")
    if new.net.logits in new.live:
        raise ConfigError(f"net {new.net.name}: its classifier is masked, and can't take rows over")


def _weights(new: Model, old: Model, capacity: int, row: dict[str, int]) -> Arrays:
    """The new base's, with the old rows of personal classes where the classifier takes the same features."""
    arrays: Arrays = dict(new.weights)
    if capacity > new.net.classes:
        net = with_room(new.net, capacity)
        arrays = dict(grown(net, arrays, np.random.default_rng([new.config.seed, capacity])))
    for part in ("weight", "bias"):
        to, source = f"{new.net.logits}.{part}", f"{old.net.logits}.{part}"
        if to in arrays and source in old.weights and arrays[to].shape[1:] == old.weights[source].shape[1:]:
            arrays[to] = arrays[to].copy()
            for name in personal(new, old):
                arrays[to][row[name]] = old.weights[source][old.card.classes.index(name)]
    return arrays


# memory


def _memory(made: Model, new: Model, old: Model) -> Reservoir:
    """As many slots as the new base has: samples of the device's, and the base's of classes that it has none of."""
    assert new.memory is not None
    assert old.memory is not None
    kept = _renamed(old.memory, old.card.classes, made)
    kept = _rows(kept, np.isin(kept.y, made.card.seen))
    more = _renamed(new.memory, new.card.classes, made)
    more = _rows(more, ~np.isin(more.y, kept.y))
    first = 1 + max([-1, *kept.ids.tolist()])
    more.ids = np.arange(first, first + len(more.y), dtype=np.int64)
    rows = {k: np.concatenate([getattr(kept, k), getattr(more, k)]) for k in ("x", "y", "ids", "logits")}
    pool = Reservoir(**rows, seen=0)
    capacity = new.memory.capacity
    pool = _rows(
        pool, repeated(pool.y, [made.card.classes.index(n) for n in personal(new, old)], capacity // len(made.card.seen))
    )
    chosen = balanced(pool.y, capacity, np.random.default_rng([made.config.seed, len(pool.y), first]))
    return _filled(_rows(pool, chosen), capacity, max(old.memory.seen, new.memory.seen))


def repeated(y: I64, classes: Sequence[int], share: int) -> I64:
    """Positions of `y`, those of the given classes again and again until each has `share`: what nobody else has is replayed as
    often as the rest, though it came seldom."""
    parts = [np.arange(len(y), dtype=np.int64)]
    for k in classes:
        at = np.flatnonzero(y == k)
        parts.append(np.resize(at, max(0, share - len(at))) if len(at) else at)
    return np.concatenate(parts)


def balanced(y: I64, capacity: int, rng: np.random.Generator) -> I64:
    """At most `capacity` positions of `y`, rising, as even by class as they can be; within a class by chance."""
    rank = np.empty(len(y), np.int64)
    for k in np.unique(y):
        at = np.flatnonzero(y == k)
        rank[at] = rng.permutation(len(at))
    order = np.lexsort((y, rank))
    return np.sort(order[:capacity]).astype(np.int64)


def _renamed(memory: Reservoir, classes: tuple[str, ...], made: Model) -> Reservoir:
    """The samples held, with class ids and columns of logits as `made` has them; what it has no class for goes."""
    row = {name: k for k, name in enumerate(made.card.classes)}
    to = np.array([row.get(name, -1) for name in classes], np.int64)
    held = slice(memory.size)
    y = to[memory.y[held]]
    logits = np.zeros((memory.size, made.net.classes), np.float32)
    columns = np.flatnonzero(to >= 0)
    columns = columns[columns < memory.logits.shape[1]]
    logits[:, to[columns]] = memory.logits[held][:, columns]
    return _rows(Reservoir(memory.x[held], y, memory.ids[held], logits), y >= 0)


def _rows(memory: Reservoir, index: I64 | Bools) -> Reservoir:
    return Reservoir(memory.x[index], memory.y[index], memory.ids[index], memory.logits[index])


def _filled(held: Reservoir, capacity: int, seen: int) -> Reservoir:
    """With empty slots up to the capacity. What is full counts as drawn from all samples that were ever offered."""
    n = len(held.y)
    out = Reservoir.empty(capacity, (held.x.shape[1], held.x.shape[2], held.x.shape[3]), held.logits.shape[1])
    for name in ("x", "y", "ids", "logits"):
        getattr(out, name)[:n] = getattr(held, name)
    return replace(out, seen=max(seen, capacity) if n == capacity else n)
