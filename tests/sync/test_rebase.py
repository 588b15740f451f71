"""What a device had learned comes along onto a new base: personal classes, memory, samples that wait."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from power import FATES, Power, PowerCut
from sync_cases import copied, newest, right, samples, teach, unpacked

from edgecl import lesson
from edgecl.model import open_model
from edgecl.runtime import lessons
from edgecl.runtime.lessons import Pending, Sample
from edgecl.sync import carry, packing, rebase
from edgecl.types import ConfigError


@pytest.fixture
def new(tmp_path: Path, later: Path, key: Path) -> Path:
    return unpacked(later, key, tmp_path / "new")


def test_a_personal_class_keeps_its_rows_and_the_rest_is_the_new_bases(slot: Path, new: Path) -> None:
    old, base = open_model(newest(slot)), open_model(new / "learner")
    made = rebase.rebased(base, old)
    assert rebase.personal(base, old) == ("8",)
    assert made.card.classes == (*base.card.classes, *(c for c in ["8"] if c not in base.card.classes))
    at, was = made.card.classes.index("8"), old.card.classes.index("8")
    name = f"{made.net.logits}.weight"
    assert np.array_equal(made.weights[name][at], old.weights[name][was])
    others = [k for k in base.card.seen if k != at]
    assert np.array_equal(made.weights[name][others], base.weights[name][others])
    assert all(
        np.array_equal(a, base.weights[k])
        for k, a in made.weights.items()
        if not k.removeprefix("momentum.").startswith(made.net.logits)
    )
    assert all(np.array_equal(a, base.live[k]) for k, a in made.live.items())


def test_the_memory_has_the_devices_samples_and_all_classes(slot: Path, new: Path) -> None:
    old, base = open_model(newest(slot)), open_model(new / "learner")
    made = rebase.rebased(base, old)
    memory = made.memory
    assert memory is not None
    assert memory.capacity == memory.size == 90
    names = [made.card.classes[k] for k in memory.y]
    assert set(names) == {made.card.classes[k] for k in made.card.seen}
    assert names.count("8") == 10  # an even share, though the old memory had fewer
    pairs = {(i, x.tobytes()) for i, x in zip(memory.ids.tolist(), memory.x, strict=True)}
    assert len(pairs) == len({i for i, _ in pairs}) == len({x for _, x in pairs})  # an id is one sample's
    shared = ("8", "3")
    to, source = ([m.card.classes.index(n) for n in shared] for m in (made, old))
    was = {
        (x.tobytes(), old.card.classes[y], tuple(z))
        for x, y, z in zip(old.memory.x, old.memory.y, old.memory.logits[:, source], strict=True)
    }
    now = {(x.tobytes(), n, tuple(z)) for x, n, z in zip(memory.x, names, memory.logits[:, to], strict=True)}
    assert now <= was


def test_own_samples_are_those_that_came_with_no_bundle(slot: Path, base: Path) -> None:
    first, now = open_model(base).memory, open_model(newest(slot)).memory
    own = rebase.own_samples(first, now)
    assert 0 < len(own) < now.size
    taught = {x.tobytes() for given in (samples([8], 40), samples([3], 20, 100)) for x in given.x}
    assert {now.x[k].tobytes() for k in own} <= taught
    assert len(rebase.own_samples(first, first)) == 0
    assert len(rebase.own_samples(None, None)) == 0


@given(st.lists(st.integers(0, 4), max_size=60), st.integers(0, 40), st.integers(0, 2**32))
def test_a_choice_is_even_by_class(y: list[int], capacity: int, seed: int) -> None:
    chosen = rebase.balanced(np.array(y, np.int64), capacity, np.random.default_rng(seed))
    assert len(chosen) == min(len(y), capacity)
    assert sorted(set(chosen.tolist())) == chosen.tolist()
    had, got = np.bincount(y, minlength=5), np.bincount(np.array(y, np.int64)[chosen], minlength=5)
    assert all(n == had[k] or n >= got.max() - 1 for k, n in enumerate(got))


def test_what_does_not_fit_is_refused(slot: Path, new: Path) -> None:
    old, base = open_model(newest(slot)), open_model(new / "learner")
    with pytest.raises(ConfigError, match="keeps no replay memory"):
        rebase.rebased(base._replace(memory=None), old)
    with pytest.raises(ConfigError, match="classifier is masked"):
        rebase.rebased(base._replace(live={**base.live, base.net.logits: np.ones((4, 4), bool)}), old)
    with pytest.raises(ConfigError, match="takes samples of"):
        rebase.rebased(base._replace(net=replace(base.net, input=(1, 9, 9))), old)


# on the disk


def carried(slot: Path, new: Path, relearn: int = 0) -> carry.Carried:
    return carry.carry(slot, slot / "lessons", new, new / "lessons", relearn)


def test_the_runtime_opens_it_as_the_newest_lesson_and_goes_on(slot: Path, new: Path) -> None:
    done = carried(slot, new)
    assert done.classes == ("8",)
    assert done.samples >= 10
    assert done.waiting == 0
    run = newest(new)
    assert run == new / "lessons/001"
    assert lesson.finished(run)
    model = open_model(run)
    assert "8" in [model.card.classes[k] for k in model.card.seen]
    assert right(model, samples(range(8), 40, test=True)) > 0.9
    after = teach(new / "lessons", run, samples([8, 3], 20, 40))
    assert right(open_model(after), samples([8], 40, test=True)) > right(model, samples([8], 40, test=True))


def test_relearning_fits_the_rows_to_the_new_features(slot: Path, new: Path, tmp_path: Path, later: Path, key: Path) -> None:
    carried(slot, new)
    other = unpacked(later, key, tmp_path / "other")
    done = carried(slot, other, relearn=4)
    assert done.classes == ("8",)
    both = [right(open_model(newest(at)), samples([8], 40, test=True)) for at in (new, other)]
    assert both[1] > max(0.4, both[0])
    assert right(open_model(newest(other)), samples(range(8), 40, test=True)) > 0.9
    assert not (newest(other) / "lesson.npz").exists()


def test_it_is_not_packed_and_what_follows_counts_its_own_samples_only(slot: Path, new: Path, tmp_path: Path) -> None:
    carried(slot, new)
    given = {"slot": str(new), "lessons": str(new / "lessons"), "packed": [], "values": "int8", "out": str(tmp_path / "out")}
    assert packing.main(given) == {}
    teach(new / "lessons", newest(new), samples([2], 60, 60))
    said = packing.main(given)
    assert said["lesson"] == "002"
    from edgecl.update import peek

    head = peek((tmp_path / "out").read_bytes())
    assert head.base == open_model(new / "learner").card.snapshot
    assert dict(zip(head.classes, head.samples, strict=True))["8"] == 0
    assert 50 < dict(zip(head.classes, head.samples, strict=True))["2"] <= 60
    assert packing.main({**given, "packed": [said["snapshot"]]}) == {}


def test_a_lesson_too_short_for_the_memory_counts_for_all_classes(slot: Path, new: Path) -> None:
    carried(slot, new)
    learned = open_model(newest(new))
    assert learned.memory is not None
    counts = packing._since(learned, int(learned.memory.ids.max()), 18)
    assert counts == {learned.card.classes[k]: 2 for k in learned.card.seen}


def test_a_personal_class_without_a_sample_in_the_memory_keeps_its_rows(base: Path, key: Path, new: Path, tmp_path: Path) -> None:
    """A reservoir of a long stream may keep none of a short lesson."""
    here = unpacked(base, key, tmp_path / "here")
    teach(here / "lessons", here / "learner", samples([8], 3), epochs=3)
    was = open_model(newest(here))
    assert was.memory is not None
    assert was.card.classes.index("8") not in was.memory.y
    assert carried(here, new, relearn=3).classes == ("8",)
    model = open_model(newest(new))
    assert "8" in rebase.seen_names(model)
    name = f"{model.net.logits}.weight"
    rows = [m.weights[name][m.card.classes.index("8")] for m in (model, was)]
    assert np.array_equal(rows[0], rows[1])  # and nothing was trained over it


def test_nothing_is_carried_where_nothing_was_learned(base: Path, key: Path, new: Path, tmp_path: Path) -> None:
    fresh = unpacked(base, key, tmp_path / "fresh")
    assert carried(fresh, new) == carry.NOTHING
    assert not (new / "lessons").exists()
    assert packing.newest_of_its_own(fresh, fresh / "lessons") is None


def test_samples_that_wait_come_along(slot: Path, new: Path, tmp_path: Path) -> None:
    here = copied(slot, tmp_path / "here")
    model = open_model(newest(here))
    given = samples([5], 4, 120)
    lesson.begin(here / "lessons/003", model, lesson.prepare(model, given))  # killed before it was learned
    pending = Pending(here / "lessons", model.card)
    for x in samples([6], 3, 120).x:
        pending.add(Sample(x, "6"))
    pending.close()
    for _ in range(2):  # the second time after a cut
        done = carried(here, new)
        assert done.waiting == 7
        found = Pending(new / "lessons", open_model(newest(new)).card).recover()
        assert [s.label for s in found] == ["5"] * 4 + ["6"] * 3
        assert {s.x.tobytes() for s in found} == {x.tobytes() for x in (*given.x, *samples([6], 3, 120).x)}
    assert lesson.finished(here / "lessons/002")
    assert not lesson.finished(here / "lessons/003")


@pytest.mark.parametrize("fate", FATES)
def test_a_power_cut_leaves_a_folder_that_opens(
    slot: Path, new: Path, tmp_path: Path, fate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where lessons lie outside of the slot. Every 17th call is cut; the next try makes it whole."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    folder = tmp_path / "kept"
    for at in count(1 + FATES.index(fate), 17):
        power = Power(at)
        with pytest.MonkeyPatch.context() as patch:
            power(patch)
            with suppress(PowerCut):
                carry.carry(slot, slot / "lessons", new, folder)
        if not power.off:
            break
        power.settle(fate)
        for number in lessons.numbers(folder):
            assert lesson.finished(lessons.at(folder, number)), at
            assert packing.newest_of_its_own(new, folder) is None, at
        shutil.rmtree(folder, ignore_errors=True)
    assert at > 40
    assert json.loads((folder / packing.REBASED).read_text())["snapshot"] == packing.snapshot_of(folder / "001")
