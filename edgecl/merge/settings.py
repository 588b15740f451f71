"""How updates are merged: every choice, its default and its range."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from edgecl.types import ConfigError

VALUES = ("mean", "trimmed", "ties")
"""Rules for the values of weights; see values.py."""

RANGES: dict[str, tuple[float, float]] = {
    "trim": (0.0, 0.49),
    "density": (0.001, 1.0),
    "clip": (0.0, 1e6),
    "cap": (1.0, 1e6),
    "base_votes": (0.001, 1e6),
    "rate": (0.001, 10.0),
    "points": (0.0, 100.0),
}
"""Lowest and highest of each number."""


@dataclass(frozen=True)
class Settings:
    """Frozen and checked. Raises ConfigError that names the key."""

    values: str = "mean"
    trim: float = 0.25  # trimmed: share of the contributions left out at either end of each weight
    density: float = 0.2  # ties: share of a layer's changes that each contribution keeps, its largest
    clip: float = 1.5  # times the median norm of all changes: larger ones are scaled down to it; 0: none is
    cap: float = 3.0  # times the median samples: a contribution counts for no more, whatever it claims
    base_votes: float = 1.0  # of the base for its own live units, in median contributions
    rate: float = 1.0  # of the merged change that is added to the base
    points: float = 10.0  # of held-out accuracy that a change alone may cost; see screening.py

    def __post_init__(self) -> None:
        if self.values not in VALUES:
            raise ConfigError(f"merge.values: {self.values!r} is not one of {', '.join(VALUES)}")
        for key, (low, high) in RANGES.items():
            value = getattr(self, key)
            if type(value) not in (int, float) or not isfinite(value) or not low <= value <= high:
                raise ConfigError(f"merge.{key}: {value!r} is not a number between {low:g} and {high:g}")
