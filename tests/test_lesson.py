"""A lesson goes on from a snapshot: bit for bit as the stream itself would have, with new classes, killed or not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from run_cases import SPARCL, begun, digits, events, finished, left_in, to_end

from edgecl import lesson, measure, session, store, taught
from edgecl.lesson import Labelled
from edgecl.model import Model, open_model
from edgecl.train import Stopped, train
from edgecl.types import BudgetError, ConfigError, DataError, StoreError

TWO = "data={classes_per_task: 5, samples_per_class: 20}"
FULL = (*SPARCL, "train={momentum: 0.9, schedule: cosine, epochs: 3}", TWO)
FIRST = (*FULL, "data.tasks=1", "net.capacity=10")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that knows the digits 0 to 4, with room for ten."""
    run = tmp_path_factory.mktemp("base") / "run"
    finished(run, *FIRST)
    return run


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without room for more."""
    run = tmp_path_factory.mktemp("narrow") / "run"
    finished(run, *FULL, "data.tasks=1")
    return run


def samples(task: int = 1, split: str = "train") -> Labelled:
    """Those of a task of the digits, by name."""
    stream = digits(5, 20)
    found = stream.tasks[task].train if split == "train" else stream.tests[task]
    return Labelled(np.asarray(found.x[:]), [stream.class_names[k] for k in found.y], found.ids)


def both_tests() -> Labelled:
    parts = [samples(t, "test") for t in (0, 1)]
    return Labelled(np.concatenate([p.x for p in parts]), [*parts[0].labels, *parts[1].labels])


def teach(run: Path, model: Model, given: Labelled, **options: Any) -> list[dict[str, Any]]:
    lesson.begin(run, model, lesson.prepare(model, given, **options))
    setup, state = session.resume(run)
    said = to_end(setup, state)
    session.result(setup, state)
    return said


def test_a_lesson_is_the_stream_that_goes_on(tmp_path: Path, base: Path) -> None:
    """Its weights, masks, memory and test results are those of a run that was never cut."""
    finished(tmp_path / "whole", *FULL)
    as_it_was = {"train": {"bias_correction": False}}
    teach(tmp_path / "lesson", open_model(base), samples(), held_out=both_tests(), changes=as_it_was)
    whole, own = open_model(tmp_path / "whole"), open_model(tmp_path / "lesson")
    assert whole.weights.keys() == own.weights.keys()
    for name, a in whole.weights.items():
        np.testing.assert_array_equal(own.weights[name], a, err_msg=name)
    for name, live in whole.live.items():
        np.testing.assert_array_equal(own.live[name], live)
    assert whole.memory is not None
    assert own.memory is not None
    for name, a in whole.memory.arrays().items():
        np.testing.assert_array_equal(own.memory.arrays()[name], a)
    assert own.state["rng"] == whole.state["rng"]
    assert own.card.classes == whole.card.classes
    assert own.card.seen == whole.card.seen == tuple(range(10))
    before, after = events(tmp_path / "lesson", "task")
    assert after["class_il"] == events(tmp_path / "whole", "task")[-1]["class_il"]
    assert before["class_il"][0] == events(tmp_path / "whole", "task")[1]["class_il"][0]
    result = json.loads((tmp_path / "lesson" / "result.json").read_text())
    assert result["class_il_forgetting"] == pytest.approx(before["class_il"][0] - after["class_il"][0])


def test_the_first_tasks_alone_are_those_of_the_whole_run(tmp_path: Path, base: Path) -> None:
    finished(tmp_path / "whole", *FULL, "train.snapshot_every=3")
    whole, own = (store.load(run, n) for run, n in ((tmp_path / "whole", 1), (base, store.latest(base) or 0)))
    assert all(np.array_equal(own.weights[k], a) for k, a in whole.weights.items())
    assert open_model(base).card.classes == ("0", "1", "2", "3", "4")


def test_killed_at_any_step_it_ends_the_same(tmp_path: Path, base: Path) -> None:
    model, changes = open_model(base), {"train": {"snapshot_every": 2}}
    teach(tmp_path / "unbroken", model, samples(), changes=changes)
    lesson.begin(tmp_path / "killed", model, lesson.prepare(model, samples(), changes=changes))
    for steps in (1, 5, 9, 14):
        setup, state = session.resume(tmp_path / "killed")  # as a new process would: the one before is just gone
        running = train(setup, state)
        for _ in range(steps):
            next(running)
    setup, state = session.resume(tmp_path / "killed")
    to_end(setup, state)
    session.result(setup, state)
    mine, theirs = (left_in(tmp_path / name) for name in ("killed", "unbroken"))
    assert mine == theirs


def test_a_classifier_without_room_grows(tmp_path: Path, narrow: Path) -> None:
    model = open_model(narrow)
    assert (model.net.classes, model.card.classes) == (5, ("0", "1", "2", "3", "4"))
    mugs = replace(samples(), labels=["mug"] * 60 + ["cup"] * 40)
    prepared = lesson.prepare(model, mugs)
    lesson.begin(tmp_path / "lesson", model, prepared)
    first = open_model(tmp_path / "lesson")
    assert (first.net.classes, first.card.classes[5:], first.card.seen) == (7, ("mug", "cup"), (0, 1, 2, 3, 4))
    logits = first.net.logits
    np.testing.assert_array_equal(first.weights[f"{logits}.weight"][:5], model.weights[f"{logits}.weight"])
    rows = first.weights[f"{logits}.weight"][5:]
    assert 0 < np.abs(rows).max() <= 1 / np.sqrt(rows.shape[1])
    np.testing.assert_array_equal(first.weights[f"momentum.{logits}.weight"][5:], 0)
    assert first.memory is not None
    assert model.memory is not None
    np.testing.assert_array_equal(first.memory.logits, np.pad(model.memory.logits, ((0, 0), (0, 2))))
    to_end(*session.resume(tmp_path / "lesson"))
    again = open_model(tmp_path / "lesson")
    assert again.card.seen == tuple(range(7))
    spoons = Labelled(samples(0).x, ["spoon"] * 50 + ["mug"] * 50)
    teach(tmp_path / "second", again, spoons)
    assert open_model(tmp_path / "second").card.classes[5:] == ("mug", "cup", "spoon")


def test_new_classes_are_set_right_where_nobody_says_otherwise(base: Path) -> None:
    model = open_model(base)
    train = lesson.prepare(model, samples()).plan.config.train
    assert (train.schedule, train.bias_correction, train.epochs) == ("cosine", True, model.config.train.epochs)
    assert not lesson.prepare(model, samples(0)).plan.config.train.bias_correction  # no class is new
    wanted = {"train": {"schedule": "constant", "bias_correction": False}}
    train = lesson.prepare(model, samples(), changes=wanted).plan.config.train
    assert (train.schedule, train.bias_correction) == ("constant", False)


def test_a_lesson_ends_as_its_plan_says(tmp_path: Path, base: Path) -> None:
    prepared = lesson.prepare(open_model(base), samples())
    lesson.begin(tmp_path / "lesson", open_model(base), prepared)
    setup, state = session.resume(tmp_path / "lesson")
    said = to_end(setup, state)
    assert state.ledger.executed == prepared.plan.ledger.executed
    assert [e["task"] for e in said if e["event"] == "correction"] == [0]


def test_more_of_what_is_known(tmp_path: Path, base: Path) -> None:
    said = teach(tmp_path / "lesson", open_model(base), samples(0))
    assert open_model(tmp_path / "lesson").card.seen == (0, 1, 2, 3, 4)
    assert [len(e["class_il"]) for e in said if e["event"] == "task"] == [1, 1]


def test_what_it_was_tested_on_is_recorded(tmp_path: Path, base: Path) -> None:
    model = open_model(base)
    for name, options, old, new in (
        ("seen", {}, lesson.MEMORY, lesson.OWN),
        ("held", {"held_out": both_tests()}, lesson.HELD_OUT, lesson.HELD_OUT),
        ("half", {"held_out": samples(1, "test")}, lesson.MEMORY, lesson.HELD_OUT),
    ):
        lesson.begin(tmp_path / name, model, lesson.prepare(model, samples(), **options))
        said = yaml.safe_load((tmp_path / name / "config.yaml").read_text())["base"]
        assert said == {"snapshot": model.card.snapshot, "old_tests": old, "new_tests": new}


def test_a_budget_leaves_the_net_alone(base: Path) -> None:
    model = open_model(base)
    chosen = lesson.prepare(model, samples(), budget="25x").plan
    same = ("net", "memory", "tdm")
    assert [getattr(chosen.config, k) for k in same[2:]] == [getattr(model.config, k) for k in same[2:]]
    assert (chosen.config.net.width, chosen.config.mask) == (model.config.net.width, model.config.mask)
    assert chosen.ratio >= 25
    with pytest.raises(BudgetError, match="nearest possible"):
        lesson.prepare(model, samples(), budget="5000x")
    lesson.prepare(model, samples(), budget="4GB")
    with pytest.raises(BudgetError, match="nearest possible"):
        lesson.prepare(model, samples(), budget="1MB")


def test_its_snapshots_are_read_back_and_smaller(tmp_path: Path, base: Path) -> None:
    model = open_model(base)
    lesson.begin(tmp_path / "lesson", model, lesson.prepare(model, samples()))
    kept = store.load(tmp_path / "lesson", 1).memory
    assert "memory.x" not in kept
    assert model.memory is not None
    assert kept["memory.x.deflated"].nbytes < 0.6 * model.memory.x.nbytes
    first = open_model(tmp_path / "lesson").memory
    assert first is not None
    np.testing.assert_array_equal(first.x, model.memory.x)


def test_learned_samples_can_go(tmp_path: Path, base: Path) -> None:
    lesson.begin(tmp_path / "lesson", open_model(base), lesson.prepare(open_model(base), samples()))
    assert not lesson.finished(tmp_path / "lesson")
    to_end(*session.resume(tmp_path / "lesson"))
    assert lesson.finished(tmp_path / "lesson")
    lesson.forget_samples(tmp_path / "lesson")
    lesson.forget_samples(tmp_path / "lesson")
    assert open_model(tmp_path / "lesson").card.seen == tuple(range(10))
    with pytest.raises(DataError, match="no longer kept"):
        session.resume(tmp_path / "lesson")


def test_what_no_lesson_can_be_made_of(tmp_path: Path, base: Path) -> None:
    model = open_model(base)
    for given, says in (
        (Labelled(samples().x[:, :, 1:], samples().labels), "a lesson has 100 labels and samples uint8"),
        (Labelled(samples().x, ["a"]), "not uint8"),
        (Labelled(samples().x[:0], []), "0 labels"),
    ):
        with pytest.raises(DataError, match=says):
            lesson.prepare(model, given)
    with pytest.raises(DataError, match="neither known nor taught"):
        lesson.prepare(model, samples(0), held_out=samples(1))
    for changes in ({"net": {"width": 9}}, {"mask": {"sparsity": 0.1}}, {"memory": {"capacity": 9}}):
        with pytest.raises(ConfigError, match="a lesson keeps what its base has"):
            lesson.prepare(model, samples(), changes=changes)
    lesson.begin(tmp_path / "lesson", model, lesson.prepare(model, samples()))
    with pytest.raises(StoreError, match="exists already"):
        lesson.begin(tmp_path / "lesson", model, lesson.prepare(model, samples()))
    steps = iter([False] * 3 + [True])
    with pytest.raises(Stopped):
        to_end(*session.resume(tmp_path / "lesson"), stopping=lambda: next(steps))
    with pytest.raises(ConfigError, match="within a task"):
        lesson.prepare(open_model(tmp_path / "lesson"), samples())


def test_a_method_without_memory_is_refused(tmp_path: Path) -> None:
    finished(tmp_path / "run", "method=sgd", "train.epochs=1")
    with pytest.raises(ConfigError, match="replays nothing"):
        lesson.prepare(open_model(tmp_path / "run"), samples())


def test_damaged_samples_are_named(tmp_path: Path, base: Path) -> None:
    lesson.begin(tmp_path / "lesson", open_model(base), lesson.prepare(open_model(base), samples()))
    path = tmp_path / "lesson" / taught.FILE
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(StoreError, match=r"lesson\.npz: is damaged"):
        session.resume(tmp_path / "lesson")


def test_snapshots_at_most_once_in_so_many_seconds(tmp_path: Path) -> None:
    setup, state = begun(tmp_path / "run", "train.snapshot_seconds=1000000")
    to_end(setup, state)
    assert state.snapshots == len(setup.stream.tasks)  # one a task, and none between


def test_a_lesson_of_one_class_is_told_from_the_rest(tmp_path: Path, base: Path) -> None:
    one = replace(samples(), labels=["mug"] * 100)
    chosen = lesson.prepare(open_model(base), one).plan.config
    assert chosen.method == {**open_model(base).config.method, "class_mask": "seen"}
    finished(tmp_path / "ace", *FIRST, "method=er_ace")
    with pytest.raises(ConfigError, match="er_ace learns nothing from a lesson of one class"):
        lesson.prepare(open_model(tmp_path / "ace"), one)


def test_new_classes_need_no_new_calibration(tmp_path: Path, narrow: Path) -> None:
    model = open_model(narrow)
    lesson.begin(tmp_path / "lesson", model, lesson.prepare(model, replace(samples(), labels=["mug"] * 50 + ["cup"] * 50)))
    grown = open_model(tmp_path / "lesson")
    assert grown.net.classes > model.net.classes
    assert measure.key(*lesson.timed_like(grown)) == measure.key(*lesson.timed_like(model))


def test_a_frozen_prefix_stays_frozen(tmp_path: Path) -> None:
    """It was to freeze after the first task, and that is learned."""
    finished(tmp_path / "run", *FIRST, "freeze={until: pool1, after: 1}")
    model = open_model(tmp_path / "run")
    assert lesson.prepare(model, samples()).plan.config.freeze.after == 0
    teach(tmp_path / "lesson", model, samples())
    stem = next(iter(model.net.weights()))
    np.testing.assert_array_equal(open_model(tmp_path / "lesson").weights[stem], model.weights[stem])
