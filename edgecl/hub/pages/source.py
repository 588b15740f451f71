"""What the operator's page shows and does: values that the hub hands over, and what it lets the page ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class DeviceRow:
    """A device. Times are UTC seconds of the hub's clock; None where it was never heard of."""

    id: str  # 16 hex digits
    name: str
    state: str  # pending, approved, revoked
    machine: str
    version: str  # of edgecl
    model: int | None  # number of the model in use there
    enrolled_at: float
    last_seen: float | None  # None: never
    health: str  # one line, by the device's own word; empty: well
    bytes_up: int
    updates: int  # stored here, merged or refused, all


@dataclass(frozen=True)
class UpdateRow:
    """An update that was taken in."""

    device: str
    device_name: str
    sequence: int
    received_at: float
    bytes: int
    base: int | None  # number of the model that it goes on from
    classes: Sequence[str]  # that it learned; empty until a merge has looked at it
    samples: int
    state: str  # stored (it waits), merged, refused
    reason: str
    model: int | None  # that it went into


@dataclass(frozen=True)
class ModelRow:
    """A model that was merged, or was there from the start."""

    number: int
    made_at: float
    accuracy: float | None  # share right of the held-out set
    updates: int  # in it
    state: str  # current, same (the network that is current, under an older number), published (once)
    note: str
    bytes: int  # that a device downloads


@dataclass(frozen=True)
class MergeRow:
    """A merge that ended, one way or the other."""

    at: float
    base: int  # number of the model
    updates: int
    before: float | None  # share right of the held-out set
    after: float | None
    model: int | None  # that came of it
    reason: str  # why none did


@dataclass(frozen=True)
class ClassRow:
    """A class that devices taught and the hub's model does not know."""

    name: str
    devices: int
    shared: bool  # merged from now on


@dataclass(frozen=True)
class AuditRow:
    """Something that was done, and by whom."""

    at: float
    who: str
    what: str


class Source(Protocol):
    """The hub as its page sees it. Lists are the newest first. What changes something takes who asked, for the audit log, and
    raises EdgeclError with one line for people where it can't be done."""

    def name(self) -> str: ...

    def now(self) -> float: ...

    def devices(self, state: str = "", start: int = 0, count: int = 50) -> Sequence[DeviceRow]: ...

    def device_counts(self) -> Mapping[str, int]: ...

    def device(self, id: str) -> DeviceRow | None: ...

    def updates(self, state: str = "", device: str = "", start: int = 0, count: int = 50) -> Sequence[UpdateRow]: ...

    def update_counts(self) -> Mapping[str, int]: ...

    def models(self, start: int = 0, count: int = 50) -> Sequence[ModelRow]: ...

    def merges(self, count: int = 50) -> Sequence[MergeRow]: ...

    def classes(self) -> Sequence[ClassRow]: ...

    def audit(self, start: int = 0, count: int = 50) -> Sequence[AuditRow]: ...

    def login(self, name: str, password: str) -> bool: ...

    def since(self, name: str) -> float | None:
        """When an operator's password was set; None for who is no operator. A session ends when it changes."""

    def approve(self, device: str, who: str) -> None: ...

    def revoke(self, device: str, who: str) -> None: ...

    def rollback(self, number: int, who: str) -> None: ...

    def share(self, name: str, who: str) -> None: ...
