"""Who is refused before a merge, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from merge_cases import KNOWN, MASKED, NET, a_base, fleet, learned, sent, with_delta

from edgecl.merge import Settings, held_out_judge, mean_accuracy, merge, screen, screen_all
from edgecl.merge.screening import alone
from edgecl.types import Bools, DataError, Named, Preprocess
from edgecl.update import apply

BASE = a_base()
LOGITS = f"{NET.logits}.weight"


class Rows:
    """Each class is known as well as the first value of its row is above the base's: 1, or 0.5 where it is not; no pans here."""

    counts = {"cup": 30, "jug": 10}  # noqa: RUF012

    def __call__(self, weights: Named, live: Mapping[str, Bools]) -> dict[str, float]:
        rise = weights[LOGITS][:, 0] - BASE.weights[LOGITS][:, 0]
        return {k: 1.0 if r >= 0 else 0.5 for k, r in zip(KNOWN[:2], rise, strict=False)}


judge = Rows()


def lowering(row: int, samples: Mapping[str, int], device: str = "x"):  # type: ignore[no-untyped-def]
    update = learned(BASE, 3, samples)
    moved = np.abs(update.delta[LOGITS])
    moved[row] *= -1
    return with_delta(sent(update, device), **{LOGITS: moved})


def test_harm_to_what_it_learned_is_refused() -> None:
    before = judge(BASE.weights, BASE.live)
    assert "costs 37.5 points" in screen(BASE, lowering(0, {"cup": 9, "jug": 1}), judge, Settings(points=10), before)
    assert "costs 50.0 points" in screen(BASE, lowering(0, {"cup": 9}), judge, Settings(points=10), before)
    assert screen(BASE, lowering(0, {"cup": 9, "jug": 1}), judge, Settings(points=38), before) == ""


def test_a_device_need_not_know_what_it_did_not_learn() -> None:
    before = judge(BASE.weights, BASE.live)
    for samples in ({"jug": 5}, {"pan": 5}, {"lid": 5}):
        assert screen(BASE, lowering(0, samples), judge, Settings(points=0), before) == ""
    own = replace(lowering(0, {"cup": 9, "jug": 1}), personal=frozenset({"cup"}))
    assert screen(BASE, own, judge, Settings(points=0), before) == ""


def test_what_all_cost_is_no_reason() -> None:
    """Four changes that cost as much as each other are taken; of three, one that costs more than the others is not."""
    same = [lowering(0, {"cup": 9}, f"d{i}") for i in range(4)]
    assert screen_all(BASE, same, Settings(points=10), judge).refused == {}
    good = [with_delta(c, **{LOGITS: np.abs(c.update.delta[LOGITS])}) for c in same[:2]]
    found = screen_all(BASE, [*good, same[3]], Settings(points=10), judge)
    assert set(found.refused) == {("d3", 1)}
    assert set(screen_all(BASE, same[:1], Settings(points=10), judge).refused) == {("d0", 1)}


def test_everybody_is_taken_or_refused() -> None:
    good, bad = fleet(BASE, 3), lowering(1, {"jug": 4}, "liar")
    good = [with_delta(c, **{LOGITS: np.abs(c.update.delta[LOGITS])}) for c in good]
    nan = with_delta(sent(learned(BASE, 5), "nan"), **{LOGITS: BASE.weights[LOGITS] * np.float32("nan")})
    older = sent(learned(BASE, 6), "d1", 0)
    found = screen_all(BASE, [bad, nan, older, *good[::-1]], Settings(), judge)
    assert [c.device for c in found.taken] == ["d0", "d1", "d2"]
    assert set(found.refused) == {("liar", 1), ("nan", 1), ("d1", 0)}
    assert "costs 50.0 points" in found.refused["liar", 1]
    assert f"array '{LOGITS}' is not finite" in found.refused["nan", 1]
    assert "newer" in found.refused["d1", 0]
    merge(BASE, found.taken, Settings())
    assert {k for k, _ in screen_all(BASE, [bad, nan, older, *good], Settings()).refused} == {"nan", "d1"}


def test_alone_is_what_the_device_has() -> None:
    update = learned(BASE, 4, {"cup": 3, "lid": 3})
    weights, live = alone(BASE, sent(update))
    theirs, their_live = apply(BASE, update)
    for k, a in weights.items():
        np.testing.assert_allclose(a, theirs[k][: len(a)], rtol=1e-6, atol=1e-8, err_msg=k)
    assert all((live[k] == their_live[k]).all() for k in MASKED)


def test_a_judge_counts_by_class() -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.integers(0, 256, (60, 1, 8, 8), np.uint8), [KNOWN[i % 2] for i in range(60)]
    found = held_out_judge(NET, KNOWN, Preprocess((0.5,), (0.25,)), x, labels)
    sure = dict(BASE.weights)
    sure[f"{NET.logits}.bias"] = np.array([1e6, 0, 0], np.float32)
    assert found(sure, BASE.live) == {"cup": 1.0, "jug": 0.0}
    assert mean_accuracy(found(sure, BASE.live)) == 0.5
    assert found.counts == {"cup": 30, "jug": 30}
    broken = {**sure, f"{NET.logits}.bias": np.array([np.nan, 0, 0], np.float32)}
    assert found(broken, BASE.live) == {"cup": 0.0, "jug": 0.0}


def test_masks_count_for_a_judge() -> None:
    """Two masks, one after the other, give what the same weights without dead units give."""
    rng = np.random.default_rng(1)
    x, labels = rng.integers(0, 256, (90, 1, 8, 8), np.uint8), [KNOWN[i % 3] for i in range(90)]
    make = lambda: held_out_judge(NET, KNOWN, Preprocess((0.5,), (0.25,)), x, labels)  # noqa: E731
    one, other = alone(BASE, sent(learned(BASE, 1, size=0.3))), alone(BASE, sent(learned(BASE, 2, size=0.3)))
    twice = make()
    assert [twice(*one), twice(*other)] == [make()(*one), make()(*other)]


def test_samples_that_are_not_the_nets() -> None:
    x = np.zeros((2, 1, 8, 8), np.uint8)
    pre = Preprocess((0.5,), (0.25,))
    for given, labels, says in (
        (x, ["cup"], "with 1 labels"),
        (x[:, :, 1:], ["cup", "cup"], "the net's"),
        (x, ["cup", "hat"], "'hat'"),
    ):
        with pytest.raises(DataError, match=says):
            held_out_judge(NET, KNOWN, pre, given, labels)
