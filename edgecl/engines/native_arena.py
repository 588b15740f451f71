"""Where a pass's arrays lie: one arena whose size is known before it is taken.

The planner walks a net twice. The first walk only notes when each array is taken and given back (`Sketch`); from that every
array gets its place, so that two share bytes only if they never live at once; the second walk hands out those (`Arena`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from edgecl.kernels import array

Floats = np.ndarray[Any, np.dtype[np.float32]]

_LINE = 16  # floats in a cache line: every array begins at one


class Memory(Protocol):
    """Arrays for a builder: each is taken once, and given back at most once."""

    def take(self, size: int) -> Floats:
        """An array of `size` floats, of no particular content."""

    def give(self, a: Floats) -> None:
        """No later operation reads or writes it."""


class Life(NamedTuple):
    """An array's size in floats, and the moments between which it is in use."""

    size: int
    born: int
    dead: int


class Sketch:
    """Hands out arrays that look as large as they would be and have four bytes; notes their lives."""

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._born: list[int] = []
        self._dead: dict[int, int] = {}
        self._number: dict[int, int] = {}  # of an array, by its id
        self._held: list[Floats] = []  # so that no id comes twice
        self._now = 0

    def take(self, size: int) -> Floats:
        a: Floats = np.broadcast_to(np.float32(0), size)
        self._number[id(a)] = len(self._held)
        self._held.append(a)
        self._sizes.append(size)
        self._born.append(self._tick())
        return a

    def give(self, a: Floats) -> None:
        self._dead[self._number[id(a)]] = self._tick()

    def _tick(self) -> int:
        self._now += 1
        return self._now

    def lives(self) -> list[Life]:
        """Of all arrays, in the order they were taken; one that nobody gave back lives to the end."""
        end = self._now + 1
        return [Life(*one, self._dead.get(i, end)) for i, one in enumerate(zip(self._sizes, self._born, strict=True))]


class Arena:
    """The same arrays in the same order, in one piece of memory: that of so many floats which `room` hands out."""

    def __init__(self, lives: list[Life], room: Callable[[int], Floats] = array) -> None:
        self._lives, self._places = lives, places(lives)
        self._floats: Floats = room(size_of(lives, self._places))
        self._taken = 0

    @property
    def bytes(self) -> int:
        return int(self._floats.nbytes)

    def take(self, size: int) -> Floats:
        at, life = self._places[self._taken], self._lives[self._taken]
        if size != life.size:
            raise ValueError(f"array {self._taken} was sketched with {life.size} floats, not {size}")
        self._taken += 1
        return self._floats[at : at + size]

    def give(self, a: Floats) -> None:
        """Its place was planned."""


def places(lives: list[Life]) -> list[int]:
    """First float of each array: the largest first, each at the lowest place free for all its life (Pisarchyk & Lee 2020)."""
    starts: dict[int, int] = {}
    for i in sorted(range(len(lives)), key=lambda i: (-lives[i].size, i)):
        at = 0
        for start, end in sorted((starts[k], starts[k] + lives[k].size) for k in starts if _meet(lives[i], lives[k])):
            if at + lives[i].size <= start:
                break
            at = max(at, -(-end // _LINE) * _LINE)
        starts[i] = at
    return [starts[i] for i in range(len(lives))]


def _meet(a: Life, b: Life) -> bool:
    return a.born < b.dead and b.born < a.dead


def size_of(lives: list[Life], starts: list[int]) -> int:
    """Floats in the arena."""
    return max((at + life.size for at, life in zip(starts, lives, strict=True)), default=0)
