"""Whether the device is well enough to train: temperature, throttling and battery, as Linux tells them in files.

A reason to pause begins at one limit and ends at a milder one, so that the device does not flutter between the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

THERMAL, SUPPLIES = "sys/class/thermal", "sys/class/power_supply"
THROTTLED = (
    "sys/devices/platform/soc/soc:firmware/get_throttled",
    "sys/devices/platform/soc/soc:firmware/raspberrypi-hwmon/throttled",
)
NOW = 0b1111
"""Bits of a Raspberry Pi's get_throttled that are of this moment: under-voltage, frequency capped, throttled, soft limit."""

TEXT_BYTES = 4096  # of such a file


@dataclass(frozen=True)
class Limits:
    """°C and shares of the battery's charge in %."""

    hot: float = 80.0  # pauses at
    cool: float = 70.0  # goes on at
    low: float = 20.0  # pauses at, unless it is charging
    enough: float = 30.0  # goes on at


@dataclass
class Health:
    """Call `check` now and then; it remembers why training pauses."""

    root: Path = Path("/")  # files are read below it
    limits: Limits = field(default_factory=Limits)
    paused: dict[str, str] = field(default_factory=dict)  # kind of reason → in words

    def check(self) -> tuple[str, ...]:
        """Why training should pause now, in words; empty if it may go on. What the machine does not tell is no reason."""
        found = {"hot": self._hot(), "throttled": self._throttled(), "battery": self._battery()}
        self.paused = {kind: why for kind, why in found.items() if why}
        return tuple(self.paused.values())

    def _hot(self) -> str:
        hottest = max(self._temperatures(), default=None)
        limit = self.limits.cool if "hot" in self.paused else self.limits.hot
        return f"{hottest:.0f} °C: waiting for {self.limits.cool:.0f} °C" if hottest is not None and hottest >= limit else ""

    def _throttled(self) -> str:
        for name in THROTTLED:
            text = _text(self.root / name)
            with suppress(ValueError):
                bits = int(text, 16) & NOW if text else 0
                if bits:
                    return f"throttled (get_throttled {bits:#x})"
        return ""

    def _battery(self) -> str:
        limit = self.limits.enough if "battery" in self.paused else self.limits.low
        charges = [charge for charge, charging in self._batteries() if not charging and charge <= limit]
        return f"battery at {min(charges):.0f} %: waiting for {self.limits.enough:.0f} % or a charger" if charges else ""

    def _temperatures(self) -> Iterator[float]:
        for path in sorted((self.root / THERMAL).glob("thermal_zone*/temp")):
            with suppress(ValueError):
                yield int(_text(path)) / 1000

    def _batteries(self) -> Iterator[tuple[float, bool]]:
        """Charge in %, and whether it is being charged or full."""
        for folder in sorted((self.root / SUPPLIES).glob("*")):
            if _text(folder / "type") == "Battery" and _text(folder / "scope") != "Device":  # that of a mouse is no matter
                with suppress(ValueError):
                    yield float(_text(folder / "capacity")), _text(folder / "status") in ("Charging", "Full")


def _text(path: Path) -> str:
    """A small file's text, empty where it can't be read."""
    try:
        with path.open("rb") as file:
            return file.read(TEXT_BYTES).decode(errors="replace").strip()
    except OSError:
        return ""
