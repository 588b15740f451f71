"""When to try again, what is final, what the day's bytes allow, which update is next: pure rules, no clock, no network."""

from __future__ import annotations

import random
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

FIRST, CAP = 2.0, 3600.0  # seconds: of the first wait's bound, and of the longest
DAY = 86_400  # seconds

LARGEST = 256 << 10  # bytes of a chunk
SMALLEST = 16 << 10
QUICK = 5.0  # seconds: a chunk that took less is followed by one of twice its size


# when to try again


def backoff(failures: int, rng: random.Random, first: float = FIRST, cap: float = CAP) -> float:
    """Seconds to wait after so many failures in a row: uniform in [0, min(cap, first·2^(failures-1))], 0 after none.

    Full jitter, so that devices which a hub's restart cut off don't come back together (Brooker, "Exponential Backoff And
    Jitter", 2015).
    """
    return rng.uniform(0, min(cap, first * 2 ** min(failures - 1, 60))) if failures > 0 else 0.0


def spread(seconds: float, rng: random.Random) -> float:
    """A pause of the loop: `seconds` give or take a fifth."""
    return seconds * rng.uniform(0.8, 1.2)


def wait_for(asked: float | None, backed: float, cap: float = CAP) -> float:
    """The longer of what the hub asks for (Retry-After, seconds) and the back-off; never longer than the cap."""
    return min(cap, max(asked or 0.0, backed))


def next_chunk(size: int, seconds: float, failed: bool) -> int:
    """Bytes of the chunk after one of `size` that took `seconds`, or failed: a slow line gets small ones, so that each ends
    before its time is up."""
    if failed:
        return max(SMALLEST, size // 2)
    return min(LARGEST, size * 2) if seconds < QUICK else size


# what is final


class Verdict(Enum):
    """What an answer means for what was asked."""

    DONE = "done"
    RETRY = "retry"  # later, as it is
    GO_ON = "go on"  # at the offset that the answer names
    FINAL = "final"  # the same question gets the same answer


def verdict(status: int, offset: bool = False) -> Verdict:
    """Of a status of HTTP; `offset`: the answer names one. 4xx but 408, 409 with an offset, 425 and 429 are final (ADR 10).

    A redirect is final too: nothing here follows one.
    """
    if 200 <= status < 300:
        return Verdict.DONE
    if status == 409 and offset:
        return Verdict.GO_ON
    if status in (408, 425, 429) or status >= 500 or status < 200:
        return Verdict.RETRY
    return Verdict.FINAL


class Blame(Enum):
    """Whom a final answer is about."""

    DEVICE = "device"  # it is not approved, is revoked, or talks to the wrong place: every update has to wait
    UPLOAD = "upload"  # the hub no longer knows this upload: it begins anew
    UPDATE = "update"  # it will never be taken: it is set aside, and the next one goes on


OPENING, SENDING = "opening", "sending"


def blame(stage: str, status: int) -> Blame:
    """Of a final status; `stage` is OPENING (nonce, envelope) or SENDING (chunks).

    Only what the hub says of an update is about it: what else there is (402, 407, 421, 451 …) a proxy may say, and of every one.
    """
    if stage == SENDING and status in (404, 410, 422):
        return Blame.UPLOAD  # 422: not the bytes that were signed have arrived, which a bad line may have done
    if status in (400, 409, 422) or (stage == OPENING and status == 413):
        return Blame.UPDATE  # 413 of a chunk is about its size, not the update's
    return Blame.DEVICE


# the day's bytes


class Spent(NamedTuple):
    """Bytes of one day of the hub's time. Before the hub's time is known it is the day that was."""

    day: int = 0  # since 1970-01-01 UTC
    up: int = 0
    down: int = 0

    @property
    def total(self) -> int:
        return self.up + self.down


def today(time: float | None, was: Spent) -> int:
    """The day to count for. `time` is the hub's in seconds since 1970, or None. The hub's day counts as it is: one that was wrong
    once leaves no trace."""
    return was.day if time is None else int(time) // DAY


def spend(was: Spent, day: int, up: int = 0, down: int = 0) -> Spent:
    """With these bytes more; a new day begins at 0."""
    return Spent(day, was.up + up, was.down + down) if day == was.day else Spent(day, up, down)


def allowance(spent: Spent, budget: int | None) -> int | None:
    """Bytes that may still go today; None where there is no budget."""
    return None if budget is None else max(0, budget - spent.total)


def may_download(size: int, spent: Spent, budget: int | None) -> bool:
    """Whether a file of `size` bytes may come today. One that is larger than a day's budget may on a day that has hardly
    spent anything: it would never come else."""
    if budget is None or spent.total + size <= budget:
        return True
    return size > budget and spent.total <= budget // 10


# the outbox


class Waiting(NamedTuple):
    """An update in the outbox."""

    sequence: int
    bytes: int
    base: str  # hash of the snapshot that it is a difference to
    begun: bool = False  # some of it is on the hub


def next_to_send(waiting: Sequence[Waiting]) -> int | None:
    """The sequence number of the update to send: one that has begun, else the oldest."""
    return min(waiting, key=lambda w: (not w.begun, w.sequence)).sequence if waiting else None


def superseded(waiting: Sequence[Waiting], base: str) -> list[int]:
    """Sequence numbers that a newer update to the same base makes needless: what was learned since is on top of them."""
    return [w.sequence for w in waiting if w.base == base and not w.begun]


def has_room(held: int, size: int, quota: int) -> bool:
    """Whether an update of `size` bytes fits beside `held` bytes."""
    return held + size <= quota
