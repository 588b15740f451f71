"""Numbers and times as people read them."""

from __future__ import annotations

import time
from collections.abc import Sequence

_UNITS = ((86400 * 365, "year"), (86400 * 30, "month"), (86400, "day"), (3600, "hour"), (60, "minute"))


def size(n: int) -> str:
    """Bytes in powers of 1000: 645 kB."""
    value, unit = float(n), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 99.5 else f"{value:.3g} {unit}"


def ago(then: float | None, now: float) -> str:
    """3 minutes ago."""
    if then is None:
        return "never"
    seconds = now - then
    for length, name in _UNITS:
        if seconds >= length:
            n = int(seconds // length)
            return f"{n} {name}{'s' * (n > 1)} ago"
    return "just now"


def utc(at: float | None) -> str:
    """2026-11-24 20:46:00 UTC, for the tooltip of what `ago` says."""
    return "" if at is None else time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))


def percent(share: float | None) -> str:
    """0.8125 → 81.3 %, on one line."""
    return "–" if share is None else f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def names(classes: Sequence[str], most: int = 4) -> str:
    """mug, cup and 3 more."""
    said = ", ".join(classes[:most])
    return f"{said} and {len(classes) - most} more" if len(classes) > most else said
