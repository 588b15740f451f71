"""What a run may take: compute, time, memory and energy, read from one line such as `10x,10min,256MB`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from edgecl.types import BudgetError

UNITS: dict[str, tuple[str, int | Fraction]] = {
    "x": ("compute", 1),
    "s": ("time", 1),
    "min": ("time", 60),
    "h": ("time", 3600),
    "kB": ("memory", 10**3),
    "MB": ("memory", 10**6),
    "GB": ("memory", 10**9),
    "KiB": ("memory", 2**10),
    "MiB": ("memory", 2**20),
    "GiB": ("memory", 2**30),
    "J": ("energy", 1),
    "kJ": ("energy", 10**3),
    "Wh": ("energy", 3600),
    "kWh": ("energy", 3_600_000),
}
"""Unit → what it measures, and how many times, seconds, bytes or joules it is."""

EXPECTED = (
    "expected a factor of at least 1 and an x, such as 23x, a time (90s, 10min, 2h), a memory (256MB, 1GiB), "
    "an energy (200J, 5Wh), or several with commas"
)
_AMOUNT = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)([A-Za-z]+)")


@dataclass(frozen=True)
class Budget:
    """Limits; None where there is none. Exact: a long run counts more FLOPs than a float does."""

    compute: Fraction | None = None  # times fewer FLOPs than the dense baseline
    time: Fraction | None = None  # seconds of training
    memory: Fraction | None = None  # bytes at the peak of the process
    energy: Fraction | None = None  # joules of training

    @property
    def timed(self) -> bool:
        """Whether some limit needs a step's time."""
        return self.time is not None or self.energy is not None


def parse(text: str) -> Budget:
    """`23x`, `10min`, `256MB`, `5Wh`, or several with commas; "" is no limit.

    Raises BudgetError for what can't be read, for 0, and for two limits of one kind.
    """
    found: dict[str, Fraction] = {}
    for part in text.split(",") if text.strip() else ():
        kind, amount = _one(text, part.strip())
        if kind in found:
            raise BudgetError(f"budget {text!r}: two limits of {kind}; give one")
        found[kind] = amount
    return Budget(**found)


def _one(text: str, part: str) -> tuple[str, Fraction]:
    match = _AMOUNT.fullmatch(part)
    if not match or match[2] not in UNITS:
        raise BudgetError(f"budget {text!r}: can't read {part!r}{_meant(match[2] if match else '')}; {EXPECTED}")
    kind, size = UNITS[match[2]]
    amount = Fraction(match[1]) * size
    if amount < (1 if kind == "compute" else 0) or not amount:
        raise BudgetError(f"budget {text!r}: {part!r} is too little; {EXPECTED}")
    return kind, amount


def _meant(unit: str) -> str:
    """A unit that is only written in other letters is named."""
    same = [u for u in UNITS if u.lower() == unit.lower()]
    return f" (did you mean {same[0]}?)" if same else ""


def time_text(seconds: float) -> str:
    """The least time, as a budget is written, that is not below `seconds`."""
    return f"{max(1, ceil(seconds))}s" if seconds < 600 else f"{ceil(seconds / 60)}min"


def memory_text(size: float) -> str:
    """As `time_text`, of bytes."""
    return f"{ceil(size / 10**6)}MB"


def energy_text(joules: float) -> str:
    """As `time_text`, of joules."""
    return f"{max(1, ceil(joules))}J" if joules < 36_000 else f"{ceil(joules / 360) / 10:g}Wh"
