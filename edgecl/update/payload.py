"""An update as bytes, and back: docs/formats/update.md describes them."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any, NamedTuple

import numpy as np

from edgecl.nets import Net
from edgecl.nets.nodes import BatchNorm
from edgecl.types import F32, I64, Bools, ConfigError
from edgecl.update import cbor, masks, values
from edgecl.update.difference import Base, Update, chooser, shapes_of, wide, widened
from edgecl.update.errors import UpdateError
from edgecl.update.header import FORMAT, header_of, parse
from edgecl.update.values import KINDS, LARGEST, LEVELS

SAME, LEVEL, HALF, SINGLE = range(4)
"""How an array is sent: not at all, as levels, as float16, as float32."""


class Slot(NamedTuple):
    """One array of an update, and which of its weights are sent."""

    name: str
    shape: tuple[int, ...]
    live: Bools | None  # see `chooser`; None: all are
    wish: int  # how it is sent if it is

    @property
    def counts(self) -> I64:
        """Weights sent of each channel."""
        if self.live is None:
            return np.full(self.shape[0], prod(self.shape[1:]), np.int64)
        each = prod(self.shape[self.live.ndim :])
        rows = self.live.reshape(self.shape[0], -1)
        return each * np.asarray(np.count_nonzero(rows, axis=1), np.int64)


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
        "masks": [masks.write(was, update.live[k]) for k, was in base.live.items()],
        "arrays": arrays,
        **{k: _packed(v) for k, v in out.parts.items()},
    }
    payload = cbor.encode(body)
    header_of(parse(payload))
    return payload


def decode(payload: bytes, base: Base) -> Update:
    """The update. Raises UpdateError, in one line, for bytes that `encode` would not make for this base."""
    body = parse(payload)
    head = header_of(body)
    if head.base != base.snapshot:
        raise UpdateError(f"update: is of base {head.base[:12]}, not of {base.snapshot[:12]}")
    net = _net(base, head)
    if len(body["masks"]) != len(base.live):
        raise UpdateError(f"update: has {len(body['masks'])} masks, not the base's {len(base.live)}")
    live = {k: masks.read(f"update: {k}", e, was) for (k, was), e in zip(base.live.items(), body["masks"], strict=True)}
    reader = _Reader(body, [*slots(net, live, head.values)], LEVELS.get(head.values, 0))
    delta = {slot.name: _whole(base, slot, live, x) for slot, x in reader.arrays()}
    _check_variances(base, delta)
    return Update(head.base, head.net, head.classes, head.samples, live, delta, head.steps, head.executed, head.seconds)


def slots(net: Net, live: Any, values: str) -> Iterator[Slot]:
    """All arrays of an update, in order."""
    norms = {n.name for n in net.nodes if isinstance(n, BatchNorm)}
    for name, shape in shapes_of(net).items():
        layer, _, what = name.rpartition(".")
        masked = live.get(layer) if what == "weight" else None
        wish = SINGLE if values == "fp32" or what == "running_var" or (what == "bias" and layer not in norms) else HALF
        if len(shape) > 1 and values in LEVELS:
            wish = LEVEL
        yield Slot(name, shape, None if masked is None else chooser(masked, shape), wish)


def _net(base: Base, update: Any) -> Net:
    """Of an Update or Header. Raises UpdateError where its net or classes are not such as go on from the base's."""
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
        x = (delta if slot.live is None else delta[slot.live]).reshape(-1)
        if not x.any():
            return SAME
        if not max(x.max(), -x.min()) <= LARGEST:
            raise UpdateError(f"update: {slot.name} has changes that are not finite, or beyond 2^100")
        return self._level(slot, x) if slot.wish == LEVEL else self._float(slot, x)

    def _level(self, slot: Slot, x: F32) -> int:
        counts = slot.counts
        upper = values.scales(x, counts, self.top)
        if not upper.any():
            return SAME
        self.parts["scales"].append(upper)
        self.parts["levels"].append(values.levels(x, counts, upper, self.top))
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


class _Reader:
    """Takes the numbers of all arrays apart again. Raises UpdateError."""

    def __init__(self, body: dict[str, Any], found: list[Slot], top: int) -> None:
        kinds = bytes(body["arrays"])
        if len(kinds) != len(found):
            raise UpdateError(f"update: has {len(kinds)} arrays, not the net's {len(found)}")
        self.slots, self.top = [*zip(found, kinds, strict=True)], top
        for slot, kind in self.slots:
            if kind not in (SAME, slot.wish, SINGLE if slot.wish == HALF else slot.wish):
                raise UpdateError(f"update: {slot.name} is sent as kind {kind}")
        self.counts = {s.name: s.counts for s, kind in self.slots if kind != SAME}
        self.scales = self._split(body, "scales", LEVEL, "<u2", {k: len(c) for k, c in self.counts.items()})
        sizes = {k: int(c.sum()) for k, c in self.counts.items()}
        for name, upper in self.scales.items():
            values.check_scales(f"update: {name}", self.counts[name], upper, top)
            sizes[name] = int(self.counts[name][upper > 0].sum())
        self.numbers = {
            **self._split(body, "levels", LEVEL, "i1", sizes),
            **self._split(body, "halves", HALF, "<f2", sizes),
            **self._split(body, "singles", SINGLE, "<f4", sizes),
        }

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
        upper, counts, q = self.scales[slot.name], self.counts[slot.name], self.numbers[slot.name]
        if not len(q):
            raise UpdateError(f"update: {slot.name} is sent, but did not change")
        values.check_levels(f"update: {slot.name}", q, counts, upper, self.top)
        return values.unlevel(q, counts, upper)

    def _floats(self, slot: Slot, kind: int) -> F32:
        x: F32 = self.numbers[slot.name].astype(np.float32)
        largest = max(x.max(), -x.min())
        if not 0 < largest <= LARGEST:
            raise UpdateError(f"update: {slot.name} has changes that are not finite, or beyond 2^100, or none")
        if slot.wish == HALF and kind == SINGLE and largest <= values.HALF_LARGEST:
            raise UpdateError(f"update: {slot.name} is sent as float32, but float16 holds it")
        return x


def _whole(base: Base, slot: Slot, live: Any, x: F32 | None) -> F32:
    """The difference, from the values of the live weights."""
    if slot.live is None:
        return np.zeros(slot.shape, np.float32) if x is None else x.reshape(slot.shape)
    layer = slot.name.removesuffix(".weight")
    same = live[layer] is base.live[layer]
    out: F32 = np.zeros(slot.shape, np.float32) if same else 0 - wide(base.weights[slot.name], slot.shape)
    out[slot.live] = 0 if x is None else x.reshape(-1, *slot.shape[slot.live.ndim :])
    return out


def _check_variances(base: Base, delta: dict[str, F32]) -> None:
    for name, d in delta.items():
        if name.endswith(".running_var") and (wide(base.weights[name], d.shape) + d < 0).any():
            raise UpdateError(f"update: {name} comes below 0")
