"""The rules of values: by hand, against plain float64, and what no input may break."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgecl import masks
from edgecl.merge import Settings, clip, values
from edgecl.merge.values import Layer, merged_change


def layer(rows: list[list[float]], voices: list[float] | None = None, scales: list[float] | None = None) -> Layer:
    """One layer of one output channel, without a mask."""
    deltas = [np.array([r], np.float32) for r in rows]
    n = len(rows)
    return Layer(np.zeros_like(deltas[0]), deltas, np.array(scales or [1.0] * n), np.array(voices or [1.0] * n))


def test_mean_by_hand() -> None:
    made = merged_change(layer([[1, 2], [3, -2], [8, 0]], [1, 1, 2], [1, 1, 0.5]), Settings())
    np.testing.assert_allclose(made, [[(1 + 3 + 8) / 4, 0]])


def test_trimmed_by_hand() -> None:
    rows = [[1.0, 5], [2, 5], [3, 5], [900, 5], [-900, 5]]
    made = merged_change(layer(rows, [1, 1, 2, 1, 1]), Settings(values="trimmed", trim=0.2))
    np.testing.assert_allclose(made, [[(1 + 2 + 6) / 4, 5]])


def test_trimmed_counts_only_those_with_a_say() -> None:
    """Five contributions of which one has no samples: of the four left one goes at either end."""
    rows = [[1.0], [2.0], [4.0], [900.0], [-77.0]]
    made = merged_change(layer(rows, [1, 1, 1, 1, 0]), Settings(values="trimmed", trim=0.25))
    np.testing.assert_allclose(made, [[3.0]])


def test_ties_by_hand() -> None:
    """Each keeps its two largest of four; the first weight elects +, the second −, of the third one voter is left."""
    rows = [[4.0, -3, 1, 0], [2, 5, -1, 0.5], [-1, -4, 3, 0]]
    made = merged_change(layer(rows), Settings(values="ties", density=0.5))
    np.testing.assert_allclose(made, [[(4 + 2) / 2, (-3 - 4) / 2, 3, 0]])


@pytest.mark.parametrize("rule", values.RULES)
def test_nobody_has_a_say(rule: str) -> None:
    np.testing.assert_array_equal(merged_change(layer([[1, 2], [3, 4]], [0.0, 0.0]), Settings(values=rule)), 0)


UNITS = {"weight": (6, 5, 3, 3), "kernel": (6, 5, 3, 3), "block4x4": (6, 5, 1, 1), "channel": (6, 5, 3, 3)}


def masked(unit: str, n: int = 4, seed: int = 0) -> Layer:
    """A base and n contributions with masks of their own; dead weights' changes are minus the base's values."""
    rng, shape = np.random.default_rng(seed), UNITS[unit]
    units = masks.unit_shape(unit, shape)
    live = [rng.random(units) < 0.6 for _ in range(n + 1)]
    wide = [masks.expand(m, unit, shape) for m in live]
    base = np.where(wide[0], rng.standard_normal(shape), 0).astype(np.float32)
    deltas = [np.where(w, rng.standard_normal(shape), -base).astype(np.float32) for w in wide[1:]]
    return Layer(base, deltas, rng.uniform(0.1, 1, n), rng.uniform(1, 9, n), live[1:], unit)


@pytest.mark.parametrize("unit", UNITS)
def test_a_dead_weight_has_no_say(unit: str) -> None:
    given = masked(unit)
    said = np.stack([v * masks.expand(m, unit, given.base.shape) for v, m in zip(given.voices, given.live, strict=True)])
    changes = np.stack([np.float64(d) * s for d, s in zip(given.deltas, given.scales, strict=True)])
    expected = (said * changes).sum(0) / np.where(said.sum(0) > 0, said.sum(0), 1)
    np.testing.assert_allclose(merged_change(given, Settings()), expected, atol=1e-12)
    untrimmed = Settings(values="trimmed", trim=0.0)
    np.testing.assert_allclose(merged_change(given, untrimmed), expected, atol=1e-12)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("rule", ["trimmed", "ties"])
def test_rows_at_a_time_are_all_at_once(unit: str, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given, settings = masked(unit), Settings(values=rule)
    whole = merged_change(given, settings)
    monkeypatch.setattr(values, "ROOM", 1)
    np.testing.assert_array_equal(merged_change(given, settings), whole)


def test_chunks_of_a_mean_are_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = merged_change(masked("kernel"), Settings())
    monkeypatch.setattr(values, "CHUNK", 7)
    monkeypatch.setattr(clip, "CHUNK", 7)
    np.testing.assert_array_equal(merged_change(masked("kernel"), Settings()), whole)


some = arrays(np.float32, (7, 4), elements=st.floats(-100, 100, width=32))


@given(some, st.integers(0, 3), st.floats(-1e9, 1e9, width=32))
def test_a_quarter_of_liars_moves_a_trimmed_mean_within_what_others_say(honest: np.ndarray, who: int, lie: float) -> None:
    rows = np.concatenate([honest, np.full((2, 4), lie, np.float32)])
    made = merged_change(layer(np.roll(rows, who, axis=0).tolist()), Settings(values="trimmed", trim=0.25))
    assert (made >= honest.min(axis=0) - 1e-4).all()
    assert (made <= honest.max(axis=0) + 1e-4).all()


@given(some, st.sampled_from(sorted(values.RULES)))
def test_what_all_say_is_done(rows: np.ndarray, rule: str) -> None:
    same = np.repeat(rows[:1], 5, axis=0)
    made = merged_change(layer(same.tolist()), Settings(values=rule, density=1.0))
    np.testing.assert_allclose(made[0], rows[0], rtol=1e-6)
