"""Updates of an older base, put on a newer one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from merge_cases import KNOWN, MASKED, NET, UNITS, a_base, learned, sent

from edgecl import masks
from edgecl.merge import Settings, merge, rebased
from edgecl.nets import with_room
from edgecl.types import DataError
from edgecl.update import apply

OLD = a_base()
NEW = merge(OLD, [sent(learned(OLD, d, {"cup": 9, "tin": 5}), f"d{d}") for d in range(3)], Settings())
BASE = OLD._replace(snapshot="cd" * 32, net=NEW.net, classes=NEW.classes, weights=NEW.weights, live=NEW.live)
LOGITS = f"{NET.logits}.weight"


def test_on_its_own_base_nothing_changes() -> None:
    update = learned(OLD, 8, {"cup": 3, "lid": 2})
    again = rebased(update, OLD, OLD)
    assert replace(again, delta={}, live={}) == replace(update, delta={}, live={})
    for k, d in update.delta.items():
        np.testing.assert_array_equal(again.delta[k], d)


def test_classes_go_by_name_and_changes_stay() -> None:
    update = learned(OLD, 8, {"cup": 3, "lid": 2, "tin": 7})
    moved = rebased(update, OLD, BASE)
    assert (moved.base, moved.classes, moved.samples) == (BASE.snapshot, (*KNOWN, "tin", "lid"), (3, 0, 0, 7, 2))
    weights, _ = apply(BASE, moved)
    np.testing.assert_allclose(weights[LOGITS][0], BASE.weights[LOGITS][0] + update.delta[LOGITS][0], rtol=1e-6)
    np.testing.assert_allclose(
        weights[LOGITS][3:], update.delta[LOGITS][[4, 3]], atol=1e-6
    )  # tin and lid, as the device has them
    np.testing.assert_array_equal(moved.delta["bn1.weight"], update.delta["bn1.weight"])


def test_dead_is_dead_and_it_can_be_merged() -> None:
    update = learned(OLD, 8)
    weights, live = apply(BASE, rebased(update, OLD, BASE))
    for k in MASKED:
        assert not weights[f"{k}.weight"][~masks.expand(live[k], UNITS[k], weights[f"{k}.weight"].shape)].any()
    fresh = learned(BASE, 1, {"cup": 20, "tin": 9})
    made = merge(BASE, [sent(rebased(update, OLD, BASE), "late", age=3), sent(fresh, "now")], Settings())
    assert made.classes == BASE.classes
    whole, half = (
        merge(BASE, [sent(fresh, "now", age=a), sent(rebased(update, OLD, BASE), "late")], Settings(clip=0)) for a in (0, 3)
    )
    assert not np.array_equal(whole.weights["bn1.weight"], half.weights["bn1.weight"])


def test_a_row_that_the_old_base_had_room_for() -> None:
    roomy = a_base(net=with_room(NET, 5))
    update = learned(roomy, 8, {"tin": 4})
    weights, _ = apply(BASE, rebased(update, roomy, BASE))
    np.testing.assert_allclose(weights[LOGITS][3], roomy.weights[LOGITS][3] + update.delta[LOGITS][3], rtol=1e-5)


def test_what_can_not_be_moved() -> None:
    update = learned(OLD, 8)
    with pytest.raises(DataError, match="can't be put on"):
        rebased(update, BASE, OLD)
    narrow = BASE._replace(weights={**BASE.weights, "bn1.weight": BASE.weights["bn1.weight"][1:]})
    with pytest.raises(DataError, match=r"array 'bn1\.weight' has another shape"):
        rebased(update, OLD, narrow)
