"""A hub that has what a test gives it, and notes what it is asked to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgecl.hub.pages import AuditRow, ClassRow, DeviceRow, MergeRow, ModelRow, UpdateRow
from edgecl.types import DataError

NOW = 1_795_000_000.0


@dataclass
class FakeHub:
    device_rows: list[DeviceRow] = field(default_factory=list)
    update_rows: list[UpdateRow] = field(default_factory=list)
    model_rows: list[ModelRow] = field(default_factory=list)
    merge_rows: list[MergeRow] = field(default_factory=list)
    class_rows: list[ClassRow] = field(default_factory=list)
    audit_rows: list[AuditRow] = field(default_factory=list)
    asked: list[tuple[object, ...]] = field(default_factory=list)
    operators: dict[str, float] = field(default_factory=lambda: {"ada": NOW - 86400})  # name → when the password was set

    def name(self) -> str:
        return "Shelf scanners"

    def now(self) -> float:
        return NOW

    def devices(self, state: str = "", start: int = 0, count: int = 50) -> Sequence[DeviceRow]:
        return [d for d in self.device_rows if state in ("", d.state)][start : start + count]

    def device_counts(self) -> Mapping[str, int]:
        return {s: len(self.devices(s, 0, 10**9)) for s in ("pending", "approved", "revoked")}

    def device(self, id: str) -> DeviceRow | None:
        return next((d for d in self.device_rows if d.id == id), None)

    def updates(self, state: str = "", device: str = "", start: int = 0, count: int = 50) -> Sequence[UpdateRow]:
        rows = [u for u in self.update_rows if state in ("", u.state) and device in ("", u.device)]
        return rows[start : start + count]

    def update_counts(self) -> Mapping[str, int]:
        return {s: len(self.updates(s, "", 0, 10**9)) for s in ("stored", "merged", "refused")}

    def models(self, start: int = 0, count: int = 50) -> Sequence[ModelRow]:
        return self.model_rows[start : start + count]

    def merges(self, count: int = 50) -> Sequence[MergeRow]:
        return self.merge_rows[:count]

    def classes(self) -> Sequence[ClassRow]:
        return self.class_rows

    def audit(self, start: int = 0, count: int = 50) -> Sequence[AuditRow]:
        return self.audit_rows[start : start + count]

    def login(self, name: str, password: str) -> bool:
        return (name, password) == ("ada", "right")

    def since(self, name: str) -> float | None:
        return self.operators.get(name)

    def approve(self, device: str, who: str) -> None:
        if self.device(device) is None:
            raise DataError(f"no device {device} is enrolled")
        self.asked.append(("approve", device, who))

    def revoke(self, device: str, who: str) -> None:
        self.asked.append(("revoke", device, who))

    def rollback(self, number: int, who: str) -> None:
        self.asked.append(("rollback", number, who))

    def share(self, name: str, who: str) -> None:
        self.asked.append(("share", name, who))


def device(i: int, state: str = "approved", **other: object) -> DeviceRow:
    values: dict[str, object] = {
        "id": f"{i:016x}", "name": f"shelf-{i:02d}", "state": state, "machine": "aarch64", "version": "0.1.0", "model": 7,
        "enrolled_at": NOW - 86400 * 9, "last_seen": NOW - 60 * i, "health": "", "bytes_up": 645_000 * i,
        "updates": i,
    }  # fmt: skip
    return DeviceRow(**{**values, **other})  # type: ignore[arg-type]


def update(i: int, state: str = "merged", **other: object) -> UpdateRow:
    values: dict[str, object] = {
        "device": f"{i % 5:016x}", "device_name": f"shelf-{i % 5:02d}", "sequence": i, "received_at": NOW - 900 * i,
        "bytes": 412_345, "base": 6, "classes": ("mug", "cup"), "samples": 134, "state": state, "reason": "",
        "model": 7 if state == "merged" else None,
    }  # fmt: skip
    return UpdateRow(**{**values, **other})  # type: ignore[arg-type]


def model(number: int, accuracy: float | None, state: str = "published", **other: object) -> ModelRow:
    values: dict[str, object] = {
        "number": number, "made_at": NOW - 86400 * (10 - number), "accuracy": accuracy,
        "updates": 5, "state": state, "note": "merged of 5 updates", "bytes": 3_100_000,
    }  # fmt: skip
    return ModelRow(**{**values, **other})  # type: ignore[arg-type]


def busy() -> FakeHub:
    """A hub with something of everything."""
    evil = "<script>alert(1)</script>"
    return FakeHub(
        [
            device(1), device(2, health="throttled at 82 °C"),
            device(3, "pending", last_seen=None, model=None, updates=0, bytes_up=0),
            device(4, "revoked"), device(5, name=evil),
        ],
        [
            update(1, "stored"), update(2), update(3, "refused", reason="cup falls from 71.0 to 12.5 % on the held-out set"),
            update(4, classes=("mug", "cup", "jar", "tin", "box")), update(5, "refused", reason=evil, base=None),
        ],
        [
            model(7, 0.841, "current"), model(6, 0.835),
            model(5, 0.829), model(4, 0.81), model(3, 0.78), model(2, 0.765), model(1, 0.72, updates=0),
        ],
        [
            MergeRow(NOW - 600, 7, 5, 0.841, 0.79, None, "accuracy on the held-out samples fell from 84.10 to 79.00 %"),
            MergeRow(NOW - 9000, 6, 5, 0.835, 0.841, 7, ""), MergeRow(NOW - 9100, 6, 1, 0.835, None, None, evil),
        ],
        [ClassRow("jar", 2, False), ClassRow(evil, 1, True)],
        [AuditRow(NOW - 120, "ada", "approved shelf-01"), AuditRow(NOW - 7200, evil, "revoked shelf-04")],
    )  # fmt: skip
