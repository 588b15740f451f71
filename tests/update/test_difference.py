"""A base and what was learned on it: the difference, and its way back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgecl.model import Model
from edgecl.types import ConfigError
from edgecl.update import Base, Taught, Update, apply, difference, residual


def test_base_and_difference_are_what_was_learned(base: Base, update: Update, learned: Model) -> None:
    weights, live = apply(base, update)
    assert [*weights] == [*learned.net.weights(), *learned.net.buffers()]
    for name, a in weights.items():
        np.testing.assert_allclose(a, learned.weights[name], rtol=1e-6, atol=1e-7, err_msg=name)
    for name, units in learned.live.items():
        np.testing.assert_array_equal(live[name], units)


def test_dead_weights_are_nothing(base: Base, update: Update) -> None:
    weights, live = apply(base, update)
    died = {k: base.live[k] & ~v for k, v in live.items()}
    assert sum(int(d.sum()) for d in died.values()) > 0
    for name, units in live.items():
        a = weights[f"{name}.weight"]
        assert not a[np.broadcast_to(~units.reshape(*units.shape, *(1,) * (a.ndim - units.ndim)), a.shape)].any()


def test_classes_and_rows(base: Base, update: Update) -> None:
    assert len(base.classes) == base.net.classes == 5
    assert update.classes == (*base.classes, "5", "6", "7", "8", "nine of mine")
    assert update.delta[f"{base.net.logits}.weight"].shape[0] == 10


def test_what_was_taught_is_told_from_the_two(model: Model, learned: Model, update: Update) -> None:
    assert update.samples[:5] == (0,) * len(model.card.classes)
    assert 97 <= sum(update.samples) <= 103  # each is rounded
    assert min(update.samples[5:]) > 0
    assert update.steps == 3 * 6
    assert update.executed == sum(map(sum, learned.state["ledger"]["table"]))
    assert update.seconds == learned.state["seconds"]


def test_what_was_taught_can_be_said(model: Model, learned: Model) -> None:
    lessons = Taught({"5": 20, "6": 3}, 7, 10**18, 1.5) + Taught({"6": 1, "0": 2}, 1, 1, 0.5)
    own = difference(model, learned, lessons)
    assert own.samples == (2, 0, 0, 0, 0, 20, 4, 0, 0, 0)
    assert (own.steps, own.executed, own.seconds) == (8, 10**18 + 1, 2.0)


def test_of_another_base(base: Base, update: Update) -> None:
    with pytest.raises(ConfigError, match="is of base"):
        apply(base._replace(snapshot="0" * 64), update)


def test_what_did_not_come_from_the_base(model: Model, learned: Model) -> None:
    with pytest.raises(ConfigError, match="do not go on from"):
        difference(learned, model)
    turned = learned._replace(card=replace(learned.card, classes=learned.card.classes[::-1]))
    with pytest.raises(ConfigError, match="do not go on from"):
        difference(model, turned)
    with pytest.raises(ConfigError, match="masks are not"):
        difference(model, learned._replace(live={}))


def test_the_rest(update: Update) -> None:
    half = replace(update, delta={k: d / 2 for k, d in update.delta.items()})
    for name, d in residual(update, half).items():
        np.testing.assert_array_equal(d, update.delta[name] / 2)
