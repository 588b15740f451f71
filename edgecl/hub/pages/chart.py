"""Accuracy over models, as a picture of lines that needs no script."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from edgecl.hub.pages.shown import percent
from edgecl.hub.pages.source import ModelRow

WIDTH, HEIGHT, LEFT, BOTTOM, PAD = 720, 180, 52, 24, 10  # of the picture, and its margins, in its own units


def accuracy(models: Sequence[ModelRow]) -> Markup:
    """An <svg>: models by number. Empty where there is nothing to draw."""
    known = sorted((m for m in models if m.accuracy is not None), key=lambda m: m.number)
    if not known:
        return Markup()
    low, high = _range([m.accuracy or 0.0 for m in known])
    at = {m.number: (_x(i, len(known)), _y(m.accuracy or 0.0, low, high)) for i, m in enumerate(known)}
    line = " ".join(f"{x:.1f},{y:.1f}" for m in known for x, y in [at[m.number]])
    marks = "".join(_mark(m, *at[m.number]) for m in known)
    return Markup(  # numbers and words of this module only
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Accuracy of each model on the held-out set">'
        f"{_grid(low, high)}{_numbers(known, at)}<polyline points='{line}'/>{marks}</svg>"
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Whole tenths around the values, at least a tenth apart."""
    low, high = int(min(values) * 10) / 10, min(1.0, int(max(values) * 10 + 1) / 10)
    return (low, high) if high > low else (low - 0.1, low)


def _x(i: int, n: int) -> float:
    return LEFT + PAD + (WIDTH - LEFT - 2 * PAD) * (i / (n - 1) if n > 1 else 0.5)


def _y(value: float, low: float, high: float) -> float:
    return PAD + (HEIGHT - BOTTOM - PAD) * (high - value) / (high - low)


def _grid(low: float, high: float) -> str:
    steps = max(1, round((high - low) * 10))
    every = -(-steps // 4)
    rows = [low + 0.1 * i for i in range(0, steps + 1, every)]
    return "".join(
        f'<line x1="{LEFT}" x2="{WIDTH - PAD}" y1="{_y(v, low, high):.1f}" y2="{_y(v, low, high):.1f}"/>'
        f'<text class="left" x="{LEFT - 6}" y="{_y(v, low, high) + 4:.1f}">{100 * v:.0f} %</text>'
        for v in rows
    )


def _numbers(models: Sequence[ModelRow], at: dict[int, tuple[float, float]]) -> str:
    every = -(-len(models) // 12)
    shown = models[::-1][::every]
    return "".join(f'<text class="below" x="{at[m.number][0]:.1f}" y="{HEIGHT - 4}">{m.number}</text>' for m in shown)


def _mark(model: ModelRow, x: float, y: float) -> str:
    title = f"<title>model {model.number}: {percent(model.accuracy)}, {model.state}</title>"
    return f'<circle class="{model.state}" cx="{x:.1f}" cy="{y:.1f}" r="{5 if model.state == "current" else 3}">{title}</circle>'
