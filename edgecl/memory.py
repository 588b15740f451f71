"""F1: replay memory filled by reservoir sampling, so that at any time each sample of the stream is in it with equal chance.

Algorithm R of Vitter 1985, as in Mammoth's buffer. It changes in place: a memory is the one large state of a device, and
a copy a step would cost more than the step.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecl.types import F32, I64, U8, ConfigError, DataError, EdgeclError, Named, StoreError

DTYPES = {"x": np.uint8, "y": np.int64, "ids": np.int64, "logits": np.float32}


@dataclass(eq=False)
class Reservoir:
    """M slots; the first `size` hold samples, the others zeros with the id -1."""

    x: U8  # [M, C, H, W] as stored: un-augmented
    y: I64  # [M] class ids
    ids: I64  # [M] stable sample ids
    logits: F32  # [M, K] what the network said when the sample was stored
    seen: int = 0  # samples offered so far

    @staticmethod
    def empty(capacity: int, shape: tuple[int, int, int], classes: int) -> Reservoir:
        """A memory of `capacity` slots for samples of `shape` (C, H, W) and `classes` logits.

        Raises ConfigError for a capacity below 1.
        """
        if capacity < 1:
            raise ConfigError(f"memory.capacity is {capacity}: a replay memory holds at least 1 sample")
        ids = np.full(capacity, -1, dtype=np.int64)
        logits = np.zeros((capacity, classes), dtype=np.float32)
        return Reservoir(np.zeros((capacity, *shape), dtype=np.uint8), np.zeros_like(ids), ids, logits)

    @property
    def capacity(self) -> int:
        """Slots."""
        return len(self.y)

    @property
    def size(self) -> int:
        """Samples held."""
        return min(self.seen, self.capacity)

    @property
    def nbytes(self) -> int:
        """Bytes of all slots, filled or not."""
        return sum(int(a.nbytes) for a in (self.x, self.y, self.ids, self.logits))

    def add(self, rng: np.random.Generator, x: U8, y: I64, ids: I64, logits: F32) -> None:
        """Offers B samples in order: x [B, C, H, W], y [B], ids [B], logits [B, K].

        The stream's item i goes to slot i while there is room, then to slot j = rng.integers(0, i + 1) if j < capacity. Of
        two items of a batch in one slot the later stays, as if they had come one by one. Raises DataError if the arrays
        disagree in length, shape or dtype with each other or the memory.
        """
        rows: Named = {"x": x, "y": y, "ids": ids, "logits": logits}
        _check(rows, len(y), self.x.shape[1:], self.logits.shape[1:], DataError)
        slots, items = self._place(rng, len(y))
        for name, a in rows.items():
            getattr(self, name)[slots] = a[items]
        self.seen += len(y)

    def _place(self, rng: np.random.Generator, n: int) -> tuple[I64, I64]:
        """Slots to fill, each once, and the items of the batch that go there."""
        slots = np.arange(self.seen, self.seen + n, dtype=np.int64)
        late = slots >= self.capacity
        slots[late] = rng.integers(0, slots[late] + 1)
        # unique names the first of equal slots: reversed, that is the last item
        slots, last = np.unique(slots[::-1], return_index=True)
        keep = slots < self.capacity
        return slots[keep], n - 1 - last[keep]

    def draw(self, rng: np.random.Generator, n: int) -> I64:
        """Slots of a replay batch, [n]: without repetition if there are n samples, else one random order of all, repeated.

        An empty memory gives an empty array, and leaves rng alone.
        """
        if self.size >= n:
            return rng.choice(self.size, n, replace=False)
        return np.resize(rng.permutation(self.size), n) if self.size else np.empty(0, dtype=np.int64)

    def arrays(self, *, compress: bool = False) -> dict[str, npt.NDArray[Any]]:
        """Copies of everything, for a snapshot: x, y, ids, logits, and seen as int64 [1]; `compress` puts `deflated` for x."""
        rest = {name: getattr(self, name).copy() for name in DTYPES if name != "x"}
        x = deflated(self.x) if compress else {"x": self.x.copy()}
        return x | rest | {"seen": np.array([self.seen], dtype=np.int64)}

    @staticmethod
    def from_arrays(arrays: Named) -> Reservoir:
        """The memory that `arrays()` described, bit for bit, with copies of its arrays.

        Raises StoreError that names an array which is missing or has the wrong shape, dtype or value.
        """
        arrays = {**arrays, "x": inflated(arrays)} if DEFLATED in arrays else arrays
        missing = [name for name in (*DTYPES, "seen") if name not in arrays]
        if missing:
            raise StoreError(f"memory: no array {missing[0]!r}")
        rows, seen = {name: np.array(arrays[name]) for name in DTYPES}, np.asarray(arrays["seen"])
        _check(rows, max(1, rows["y"].size), rows["x"].shape[1:], rows["logits"].shape[1:], StoreError)
        if seen.shape != (1,) or seen.dtype != np.int64 or seen[0] < 0:
            raise StoreError(f"memory: 'seen' is {seen!r}, not one int64 of at least 0")
        return Reservoir(**rows, seen=int(seen[0]))


DEFLATED, SHAPE = "x.deflated", "x.shape"


def deflated(x: U8) -> dict[str, npt.NDArray[Any]]:
    """Pixels [M, C, H, W] as `x.deflated`, a zlib stream of each pixel's difference to those above and to its left, mod 256;
    and `x.shape`. Photographs shrink by a quarter so, by a tenth without the differences."""
    packer, parts = zlib.compressobj(), []
    for start in range(0, len(x), _SLOTS):
        some = x[start : start + _SLOTS]
        down = np.diff(some, axis=2, prepend=np.zeros_like(some[:, :, :1]))
        across = np.diff(down, axis=3, prepend=np.zeros_like(some[..., :1]))
        parts.append(packer.compress(across.tobytes()))
    packed = np.frombuffer(b"".join([*parts, packer.flush()]), np.uint8)
    return {DEFLATED: packed, SHAPE: np.array(x.shape, np.int64)}


_SLOTS = 64  # deflated at a time, so that a snapshot needs little room


def inflated(arrays: Named) -> U8:
    """The pixels that `deflated` took. Raises StoreError where they are not as their shape says; unpacks no more than that."""
    packed, shape = arrays[DEFLATED], tuple(int(n) for n in np.asarray(arrays.get(SHAPE, ())).ravel())
    slots = len(arrays["y"]) if "y" in arrays else -1
    if packed.dtype != np.uint8 or len(shape) != 4 or min(shape) < 0 or shape[0] != slots or prod(shape[1:]) > 1 << 28:
        raise StoreError(f"memory: {SHAPE} is {list(shape)}, not [{slots}, C, H, W]")
    try:
        unpacker, size = zlib.decompressobj(), prod(shape)
        data = unpacker.decompress(packed.tobytes(), size + 1)
    except zlib.error as e:
        raise StoreError(f"memory: {DEFLATED} can't be unpacked: {e}") from None
    if len(data) != size or not unpacker.eof:
        raise StoreError(f"memory: {DEFLATED} does not hold {size} pixels")
    across = np.frombuffer(data, np.uint8).reshape(shape)
    return np.cumsum(np.cumsum(across, axis=3, dtype=np.uint8), axis=2, dtype=np.uint8)


def _check(rows: Named, n: int, sample: tuple[int, ...], logits: tuple[int, ...], error: type[EdgeclError]) -> None:
    """Raises `error` that names the first array which does not hold n rows of its kind."""
    shapes = {"x": (n, *sample), "y": (n,), "ids": (n,), "logits": (n, *logits)}
    for name, a in rows.items():
        if a.shape != shapes[name] or a.dtype != DTYPES[name]:
            expected = f"{np.dtype(DTYPES[name])} {shapes[name]}"
            raise error(f"memory: {name!r} is {a.dtype} {a.shape}, not {expected}")
