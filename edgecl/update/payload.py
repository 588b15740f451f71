"""An update as bytes, and back: docs/formats/update.md describes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import numpy as np

from edgecl.nets import Net
from edgecl.nets.nodes import Linear
from edgecl.types import F32, Bools, ConfigError
from edgecl.update import cbor, masks, values
from edgecl.update.difference import Base, Update, shapes_of, wide, widened
from edgecl.update.errors import UpdateError
from edgecl.update.header import CLASSES, FORMAT, NAME_BYTES, header_of, parse
from edgecl.update.slots import HALF, LEVEL, SAME, SINGLE, Slot, positions, slots
from edgecl.update.values import KINDS, LARGEST, LEVELS


def encode(update: Update, base: Base, values: str = "int8") -> bytes:
    """The payload. `values` is how weights are sent: one of values.KINDS. What was sent is what `decode` gives.

    Raises ConfigError for another word, UpdateError for an update that no reader would take, such as one with NaN.
    """
    if values not in KINDS:
        raise ConfigError(f"values is {values!r}; known: {', '.join(KINDS)}")
    out = _Writer(LEVELS.get(values, 0))
    arrays = bytes(out.add(slot, update.delta[slot.name]) for slot in slots(_net(base, update), update.live, values))
    body = {
        "format": FORMAT,
        "base": bytes.fromhex(update.base),
        "net": update.net,
        "classes": list(update.classes),
        "samples": list(update.samples),
        "steps": update.steps,
        "executed": update.executed,
        "milliseconds": round(update.seconds * 1000),
        "values": values,
        "masks": [masks.write(base.live[k], update.live[k]) for k in masked(base)],
        "arrays": arrays,
        **{k: _packed(v) for k, v in out.parts.items()},
    }
    payload = cbor.encode(body)
    header_of(parse(payload))
    _check_variances(base, update.delta)
    return payload


def decode(payload: bytes, base: Base) -> Update:
    """The update. Raises UpdateError, in one line, for bytes that `encode` would not make for this base."""
    body = parse(payload)
    head = header_of(body)
    net, live = _net(base, head), _masks(base, body["masks"])
    reader = _Reader(body, [*slots(net, live, head.values)], LEVELS.get(head.values, 0))
    delta = {slot.name: _whole(base, slot, live, x) for slot, x in reader.arrays()}
    _check_variances(base, delta)
    return Update(head.base, head.net, head.classes, head.samples, live, delta, head.steps, head.executed, head.seconds)


def most_bytes(base: Base) -> int:
    """No payload of this base has more: what a hub may refuse by its length alone."""
    names = CLASSES * (NAME_BYTES + 3 + 9)
    wide = widened(base, tuple(map(str, range(CLASSES)))) if _grows(base) else base.net
    numbers = sum(4 * prod(shape) + 2 * shape[0] for shape in shapes_of(wide).values())
    units = sum(live.size // 8 + 64 for live in base.live.values())  # k = 0 makes a bitmap of a code, and none is longer
    return 4096 + names + numbers + units


def _grows(base: Base) -> bool:
    last = base.net.layers().get(base.net.logits)
    return isinstance(last, Linear) and base.net.features != base.net.logits and base.net.logits not in base.live


def masked(base: Base) -> list[str]:
    """Its masked layers, in the order of the net."""
    return [name for name in base.net.layers() if name in base.live]


def _masks(base: Base, found: list[Any]) -> dict[str, Bools]:
    layers = masked(base)
    if len(found) != len(layers):
        raise UpdateError(f"update: has {len(found)} masks, not the base's {len(layers)}")
    return {k: masks.read(f"update: {k}", entry, base.live[k]) for k, entry in zip(layers, found, strict=True)}


def _net(base: Base, update: Any) -> Net:
    """Of an Update or Header. Raises UpdateError where it is another base's, or its classes do not go on from the base's."""
    if update.base != base.snapshot:
        raise UpdateError(f"update: is of base {update.base[:12]}, not of {base.snapshot[:12]}")
    if update.net != base.net.name:
        raise UpdateError(f"update: is of net {update.net!r}, not of {base.net.name!r}")
    if update.classes[: len(base.classes)] != base.classes:
        raise UpdateError("update: its classes do not begin with those of its base")
    try:
        return widened(base, update.classes)
    except ConfigError as e:
        raise UpdateError(f"update: {e}") from None


class _Writer:
    """Gathers the numbers of all arrays, by kind."""

    def __init__(self, top: int) -> None:
        self.top = top
        self.parts: dict[str, list[Any]] = {
            "scales": [np.empty(0, np.uint16)],
            "levels": [np.empty(0, np.int8)],
            "halves": [np.empty(0, np.float16)],
            "singles": [np.empty(0, np.float32)],
        }

    def add(self, slot: Slot, delta: F32) -> int:
        """How the array is sent."""
        if delta.shape != slot.shape or delta.dtype != np.float32:
            raise UpdateError(f"update: {slot.name} is {delta.dtype} {list(delta.shape)}, not float32 {list(slot.shape)}")
        x = slot.take(delta)
        if not x.any():
            return SAME
        if not max(x.max(), -x.min()) <= LARGEST:
            raise UpdateError(f"update: {slot.name} has changes that are not finite, or beyond 2^100")
        return self._level(slot, x) if slot.wish == LEVEL else self._float(slot, x)

    def _level(self, slot: Slot, x: F32) -> int:
        upper = values.scales(x, slot.counts, self.top)
        if not upper.any():
            return SAME
        self.parts["scales"].append(upper)
        self.parts["levels"].append(values.levels(x, slot.counts, upper, self.top))
        return LEVEL

    def _float(self, slot: Slot, x: F32) -> int:
        if slot.wish == HALF and np.abs(x).max() <= values.HALF_LARGEST:
            half = x.astype(np.float16)
            self.parts["halves"] += [half] if half.any() else []
            return HALF if half.any() else SAME
        self.parts["singles"].append(x)
        return SINGLE


def _packed(parts: list[Any]) -> bytes:
    return values.pack(np.concatenate(parts))


def _kinds(kinds: bytes, found: list[Slot]) -> bytes:
    """How each array is sent, once it is sure that it can be sent so. Raises UpdateError."""
    if len(kinds) != len(found):
        raise UpdateError(f"update: has {len(kinds)} arrays, not the net's {len(found)}")
    for slot, kind in zip(found, kinds, strict=True):
        if kind not in (SAME, slot.wish, SINGLE if slot.wish == HALF else slot.wish):
            raise UpdateError(f"update: {slot.name} is sent as kind {kind}")
    return kinds


class _Reader:
    """Takes the numbers of all arrays apart again. Raises UpdateError."""

    def __init__(self, body: dict[str, Any], found: list[Slot], top: int) -> None:
        self.slots, self.top = [*zip(found, _kinds(bytes(body["arrays"]), found), strict=True)], top
        channels = {s.name: len(s.counts) for s in found}
        self.scales = self._split(body, "scales", LEVEL, "<u2", channels)
        sizes = {s.name: self._size(s) for s in found}
        self.numbers = {
            **self._split(body, "levels", LEVEL, "i1", sizes),
            **self._split(body, "halves", HALF, "<f2", sizes),
            **self._split(body, "singles", SINGLE, "<f4", sizes),
        }

    def _size(self, slot: Slot) -> int:
        """Numbers sent of an array, if it is sent."""
        upper = self.scales.get(slot.name)
        if upper is None:
            return int(slot.counts.sum())
        values.check_scales(f"update: {slot.name}", slot.counts, upper, self.top)
        return int(slot.counts[upper > 0].sum())

    def _split(self, body: dict[str, Any], key: str, kind: int, dtype: str, sizes: dict[str, int]) -> dict[str, Any]:
        names = [s.name for s, k in self.slots if k == kind]
        ends = np.cumsum([sizes[n] for n in names], dtype=np.int64)
        whole = values.unpack(f"update: {key}", body[key], int(ends[-1]) if names else 0, dtype)
        return dict(zip(names, np.split(whole, ends[:-1]), strict=True)) if names else {}

    def arrays(self) -> Iterator[tuple[Slot, F32 | None]]:
        """Each array with the values of its live weights; None for one that is not sent."""
        for slot, kind in self.slots:
            yield slot, None if kind == SAME else self._levels(slot) if kind == LEVEL else self._floats(slot, kind)

    def _levels(self, slot: Slot) -> F32:
        upper, q = self.scales[slot.name], self.numbers[slot.name]
        if not len(q):
            raise UpdateError(f"update: {slot.name} is sent, but did not change")
        values.check_levels(f"update: {slot.name}", q, slot.counts, upper, self.top)
        return values.unlevel(q, slot.counts, upper)

    def _floats(self, slot: Slot, kind: int) -> F32:
        with np.errstate(invalid="ignore"):  # a signalling NaN; it is refused below
            x: F32 = self.numbers[slot.name].astype(np.float32)
        largest = max(x.max(), -x.min()) if len(x) else 0
        if not 0 < largest <= LARGEST:
            raise UpdateError(f"update: {slot.name} has changes that are not finite, or beyond 2^100, or none")
        if slot.wish == HALF and kind == SINGLE and largest <= values.HALF_LARGEST:
            raise UpdateError(f"update: {slot.name} is sent as float32, but float16 holds it")
        return x


def _whole(base: Base, slot: Slot, live: Mapping[str, Bools], x: F32 | None) -> F32:
    """The difference, from the values of the live weights."""
    if slot.alive is None and x is not None:
        return x.reshape(slot.shape)
    out: F32 = np.zeros(slot.shape, np.float32)
    if slot.alive is not None:
        _bury(base, slot, live, out)
        if x is not None:
            slot.put(out, x)
    return out


def _bury(base: Base, slot: Slot, live: Mapping[str, Bools], out: F32) -> None:
    """Writes what the base had of units that died, with the other sign."""
    layer = slot.name.removesuffix(".weight")
    was, now = base.live[layer], live[layer]
    if now is not was:
        units, died = positions(was & ~now, slot.shape)
        out.reshape(units, -1)[died] = 0 - base.weights[slot.name].reshape(units, -1)[died]


def _check_variances(base: Base, delta: Mapping[str, F32]) -> None:
    for name, d in delta.items():
        if name.endswith(".running_var") and (wide(base.weights[name], d.shape) + d < 0).any():
            raise UpdateError(f"update: {name} comes below 0")
