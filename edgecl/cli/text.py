"""Numbers for people: three digits and a unit."""

from __future__ import annotations

PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def si(value: float, unit: str) -> str:
    """1234567 → "1.23 M<unit>"."""
    step = 0
    while abs(value) >= 999.5 and step < len(PREFIXES) - 1:
        value, step = value / 1000, step + 1
    return f"{three(value)} {PREFIXES[step]}{unit}"


def three(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0 or abs(value) >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"


def flops(value: float) -> str:
    return si(value, "FLOP")


def size(value: float) -> str:
    return si(value, "B") if value >= 999.5 else f"{value:.0f} B"


def duration(seconds: float) -> str:
    """2.7 s, 12 min 3 s, 2 h 10 min, 3 d 4 h."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, smaller, length, part in (("min", "s", 60, 1), ("h", "min", 3600, 60), ("d", "h", 86400, 3600)):
        if whole < length * (24 if unit == "h" else 60) or unit == "d":
            return f"{whole // length:,} {unit} {whole % length // part} {smaller}"
    raise AssertionError


def energy(joules: float) -> str:
    """In joules, and in the watt-hours that batteries are sold by."""
    return si(joules, "J") + (f" ({si(joules / 3600, 'Wh')})" if joules >= 360 else "")


def percent(share: float | None) -> str:
    """0.718 → "71.8"; "–" where nothing was measured."""
    return "–" if share is None else f"{round(100 * share, 1) + 0:.1f}"  # + 0: no -0.0


def times(ratio: float | None) -> str:
    """22.97 → "22.97×"."""
    return "–" if ratio is None else f"{ratio:.2f}×" if ratio < 99.5 else f"{ratio:.0f}×"


def count(n: int, one: str, many: str = "") -> str:
    """1 task, 2 tasks."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"
