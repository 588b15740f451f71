"""Lengths and weights of contributions, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from merge_cases import a_base, fleet, learned, sent

from edgecl.merge import Settings, clip
from edgecl.types import ConfigError


def test_longer_than_so_many_medians_is_scaled() -> None:
    np.testing.assert_allclose(clip.scales([1.0, 2.0, 3.0, 40.0, 2.0], 1.5), [1, 1, 1, 3 / 40, 1])
    np.testing.assert_array_equal(clip.scales([1.0, 2.0, 300.0], 0), 1)
    np.testing.assert_array_equal(clip.scales([0.0, 0.0, 5.0], 1.5), [1, 1, 0])
    assert clip.scales([], 1.5).shape == (0,)


def test_a_norm_is_of_parameters_and_known_classes() -> None:
    base = a_base()
    update = learned(base, 1, {"cup": 1, "lid": 9})
    rows = f"{base.net.logits}."
    parts = [d[:3] if k.startswith(rows) else d for k, d in update.delta.items() if k in base.net.weights()]
    expected = np.sqrt(sum(float((np.float64(d) ** 2).sum()) for d in parts))
    assert clip.norm(base, sent(update)) == pytest.approx(expected, rel=1e-12)


def test_squares_are_exact_where_float32_is_not() -> None:
    a = np.full(3 * clip.CHUNK + 5, 1.1, np.float32)
    assert clip.squares(a) == pytest.approx(a.size * float(np.float32(1.1)) ** 2, rel=1e-12)


def test_nobody_counts_for_more_than_so_many_medians() -> None:
    np.testing.assert_allclose(clip.voices([100, 50, 10**12, 100, 0], [0, 0, 0, 3, 0], 3), [100, 50, 300, 50, 0])
    np.testing.assert_array_equal(clip.voices([0, 0], [0, 1], 3), 0)


def test_a_claim_of_samples_does_not_move_the_others() -> None:
    base = a_base()
    claims = [c.samples() for c in fleet(base, 4)]
    assert clip.voices([*claims, 1 << 39], [0] * 5, 2).tolist() == [*claims, 2 * claims[0]]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"values": "median"}, "merge.values: 'median' is not one of mean, trimmed, ties"),
        ({"trim": 0.5}, "merge.trim: 0.5 is not a number between 0 and 0.49"),
        ({"cap": float("nan")}, "merge.cap: nan"),
        ({"clip": True}, "merge.clip: True"),
        ({"density": 0}, "merge.density: 0"),
    ],
)
def test_settings_are_checked(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Settings(**wrong)  # type: ignore[arg-type]
