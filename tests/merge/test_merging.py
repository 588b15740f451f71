"""The merge as a whole: the same bits in any order, what one device sends comes out, classes by name, wrong ones named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from merge_cases import KNOWN, MASKED, NET, UNITS, a_base, fleet, learned, sent, with_delta

from edgecl import masks
from edgecl.merge import Contribution, Merged, Settings, merge
from edgecl.nets import with_room
from edgecl.types import DataError
from edgecl.update import Base, apply

LOGITS = f"{NET.logits}.weight"
PLAIN = Settings(clip=0, base_votes=0.001)


def same(a: Merged, b: Merged) -> None:
    assert (a.classes, a.notes, a.net) == (b.classes, b.notes, b.net)
    for mine, theirs in ((a.weights, b.weights), (a.live, b.live)):
        assert list(mine) == list(theirs)
        for k in mine:
            assert mine[k].tobytes() == theirs[k].tobytes(), k


BASE = a_base()
NEW = {"cup": 5, "lid": 9, "tin": 2}
MANY = [
    sent(learned(BASE, 0), "a", 4),
    sent(learned(BASE, 1, NEW), "b", 1, age=2),
    sent(learned(BASE, 2, {"tin": 8, "jug": 3}), "c", 7, personal=["jug"]),
    sent(learned(BASE, 3, size=5.0), "d", 2),
    sent(learned(BASE, 4), "a", 5),
]


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(len(MANY))), st.sampled_from(["mean", "trimmed", "ties"]), st.integers(0, 4))
def test_order_and_repeats_change_no_bit(order: list[int], rule: str, again: int) -> None:
    how = Settings(values=rule)
    came = [MANY[i] for i in (*order, again)]
    same(merge(BASE, came, how), merge(BASE, MANY, how))


def test_the_base_is_left_alone() -> None:
    before = {k: a.copy() for k, a in BASE.weights.items()}
    merge(BASE, MANY, Settings())
    for k, a in BASE.weights.items():
        np.testing.assert_array_equal(a, before[k])


@pytest.mark.parametrize("rule", ["mean", "trimmed"])
def test_one_device_is_followed(rule: str) -> None:
    """Weights, batch norm and masks of the only device; the base's vote is next to nothing."""
    update = learned(BASE, 5)
    made = merge(BASE, [sent(update)], replace(PLAIN, values=rule))
    weights, live = apply(BASE, update)
    for k, m in live.items():
        np.testing.assert_array_equal(made.live[k], m)
    for k, a in weights.items():
        np.testing.assert_allclose(made.weights[k], a, rtol=1e-6, atol=1e-8, err_msg=k)


@pytest.mark.parametrize("rule", ["mean", "trimmed", "ties"])
def test_as_sparse_as_the_base_and_finite(rule: str) -> None:
    made = merge(BASE, MANY, Settings(values=rule))
    for k in MASKED:
        dead = ~masks.expand(made.live[k], UNITS[k], made.weights[f"{k}.weight"].shape)
        assert made.live[k].sum() == BASE.live[k].sum()
        assert not made.weights[f"{k}.weight"][dead].any()
    assert all(a.dtype == np.float32 and np.isfinite(a).all() for a in made.weights.values())


def test_a_variance_never_falls_below_zero() -> None:
    name = next(k for k in BASE.weights if k.endswith("running_var"))
    low = with_delta(sent(learned(BASE, 0)), **{name: np.full_like(BASE.weights[name], -50)})
    assert (merge(BASE, [low], Settings()).weights[name] == 0).all()


def test_a_later_update_holds_the_earlier_one() -> None:
    same_but_notes = merge(BASE, MANY[1:], Settings())
    made = merge(BASE, MANY, Settings())
    assert "a/4: left out, 5 is newer" in made.notes
    for k, a in made.weights.items():
        np.testing.assert_array_equal(a, same_but_notes.weights[k])


def test_a_large_change_is_clipped_and_said_so() -> None:
    """However large one change is, it moves the merged model no further than a change of 1.5 medians would."""
    honest, name = fleet(BASE, 4), "conv1.weight"
    wild = [with_delta(sent(learned(BASE, 9), "e"), **{name: np.full_like(BASE.weights[name], x)}) for x in (1e3, 1e6)]
    made = [merge(BASE, [*honest, w], Settings(clip=1.5)) for w in wild]
    assert any(n.startswith("e/1: its change was scaled by") for n in made[0].notes)
    np.testing.assert_allclose(made[0].weights[name], made[1].weights[name], atol=1e-4)
    moved = np.linalg.norm(merge(BASE, [*honest, wild[0]], Settings(clip=0)).weights[name] - BASE.weights[name])
    assert np.linalg.norm(made[0].weights[name] - BASE.weights[name]) < moved / 1000


# ---- classes ----


def rows(made: Merged) -> dict[str, Any]:
    return {k: made.weights[LOGITS][i] for i, k in enumerate(made.classes)}


def test_a_row_is_merged_from_those_that_learned_its_class() -> None:
    one, two = learned(BASE, 1, {"cup": 10, "pan": 10}), learned(BASE, 2, {"cup": 30})
    made = rows(merge(BASE, [sent(one, "a"), sent(two, "b")], PLAIN))
    base = BASE.weights[LOGITS]
    np.testing.assert_allclose(made["cup"], base[0] + (10 * one.delta[LOGITS][0] + 30 * two.delta[LOGITS][0]) / 40, rtol=1e-5)
    np.testing.assert_allclose(made["pan"], base[2] + one.delta[LOGITS][2], rtol=1e-5)
    np.testing.assert_array_equal(made["jug"], base[1])


def test_new_classes_meet_by_name() -> None:
    one, two = learned(BASE, 1, {"lid": 10, "tin": 10}), learned(BASE, 2, {"tin": 10, "cup": 1})
    made = merge(BASE, [sent(two, "b"), sent(one, "a")], PLAIN)
    assert made.classes == (*KNOWN, "lid", "tin")
    assert made.net == with_room(NET, 5)
    assert {k: made.weights[k].shape for k in made.net.weights()} == made.net.weights()
    np.testing.assert_allclose(rows(made)["tin"], (one.delta[LOGITS][4] + two.delta[LOGITS][3]) / 2, rtol=1e-5)
    np.testing.assert_allclose(rows(made)["lid"], one.delta[LOGITS][3], rtol=1e-5)
    assert "class 'lid' is new: row 3 of the classifier" in made.notes


def test_a_class_takes_the_row_that_the_base_has_room_for() -> None:
    roomy = a_base(net=with_room(NET, 6))
    update = learned(roomy, 1, {"lid": 10})
    made = merge(roomy, [sent(update)], PLAIN)
    assert (made.net, made.classes) == (roomy.net, (*KNOWN, "lid"))
    np.testing.assert_allclose(rows(made)["lid"], roomy.weights[LOGITS][3] + update.delta[LOGITS][3], rtol=1e-5)
    np.testing.assert_array_equal(made.weights[LOGITS][4:], roomy.weights[LOGITS][4:])


def test_personal_classes_stay_personal() -> None:
    one, two = learned(BASE, 1, {"lid": 10, "cup": 10}), learned(BASE, 2, {"lid": 10, "jug": 10})
    alone = merge(BASE, [sent(one, "a", personal=["lid"]), sent(two, "b", personal=["lid"])], PLAIN)
    assert (alone.classes, alone.net) == (KNOWN, NET)
    shared = merge(BASE, [sent(one, "a", personal=["lid"]), sent(two, "b")], PLAIN)
    np.testing.assert_allclose(rows(shared)["lid"], two.delta[LOGITS][3], rtol=1e-5)
    own = merge(BASE, [sent(one, "a", personal=["cup", "lid"]), sent(two, "b")], PLAIN)
    np.testing.assert_array_equal(rows(own)["cup"], BASE.weights[LOGITS][0])


def test_who_learned_only_for_itself_has_no_say() -> None:
    only = sent(learned(BASE, 1, {"lid": 10}), "a", personal=["lid"])
    with pytest.raises(DataError, match="no update has a sample of a shared class"):
        merge(BASE, [only], Settings())
    with pytest.raises(DataError, match="nothing to merge"):
        merge(BASE, [], Settings())
    other = sent(learned(BASE, 2), "b")
    both, alone = merge(BASE, [only, other], PLAIN), merge(BASE, [other], PLAIN)
    np.testing.assert_array_equal(both.weights["conv2.weight"], alone.weights["conv2.weight"])


# ---- what does not belong ----


def spoilt(what: str) -> Contribution:
    c = sent(learned(BASE, 1), "bad")
    u, first = c.update, MASKED[0]
    changed: dict[str, Any] = {
        "base": {"base": "00" * 32},
        "net": {"net": "mlp"},
        "classes": {"classes": ("jug", "cup", "pan")},
        "samples": {"samples": (1, 2)},
        "negative": {"samples": (1, 2, -3)},
        "missing": {"delta": {k: d for k, d in u.delta.items() if k != LOGITS}},
        "nan": {"delta": {**u.delta, LOGITS: u.delta[LOGITS] * np.float32("nan")}},
        "shape": {"delta": {**u.delta, LOGITS: u.delta[LOGITS][:, :-1]}},
        "rows": {"delta": {**u.delta, LOGITS: u.delta[LOGITS][:-1]}},
        "type": {"delta": {**u.delta, LOGITS: u.delta[LOGITS].astype(np.float64)}},
        "mask": {"live": {**u.live, first: u.live[first][:-1]}},
        "unmasked": {"live": {}},
    }[what]
    return replace(c, update=replace(u, **changed))


SAYS = {
    "base": "is of base 000000000000",
    "net": "net mlp",
    "classes": "its classes are not the base's",
    "samples": "its samples are not 3 counts",
    "negative": "its samples are not 3 counts",
    "missing": f"array '{LOGITS}' is missing",
    "nan": f"array '{LOGITS}' is not finite",
    "shape": f"array '{LOGITS}' is float32",
    "rows": f"array '{LOGITS}' is float32",
    "type": f"array '{LOGITS}' is float64",
    "mask": f"mask of layer '{MASKED[0]}'",
    "unmasked": "is masked in one of base and update only",
}


@pytest.mark.parametrize("what", SAYS)
def test_what_does_not_belong_is_named(what: str) -> None:
    with pytest.raises(DataError, match=f"update bad/1: .*{SAYS[what]}"):
        merge(BASE, [*fleet(BASE), spoilt(what)], Settings())


def test_a_classifier_that_cannot_grow() -> None:
    masked: Base = BASE._replace(live={**BASE.live, NET.logits: np.ones((3, BASE.weights[LOGITS].shape[1]), bool)})
    update = learned(BASE, 1, {"lid": 3})
    update = replace(update, live={**update.live, NET.logits: masked.live[NET.logits]})
    with pytest.raises(DataError, match="is masked, and can't grow"):
        merge(masked, [sent(update)], Settings())
