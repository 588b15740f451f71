"""A merged model as a run folder: opened, bundled and learned on as any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from merge_cases import learned, sent
from run_cases import SPARCL, finished, to_end

from edgecl import lesson, session, store
from edgecl.bundle import Wish, create, keygen
from edgecl.lesson import Labelled
from edgecl.merge import Merged, Settings, merge, write_run
from edgecl.model import open_model
from edgecl.types import ConfigError, StoreError
from edgecl.update import Base

HOW = (*SPARCL, "train.momentum=0.9", "train.epochs=2", "data.tasks=1")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that knows the digits 0 to 4, with room for no more."""
    run = tmp_path_factory.mktemp("base") / "run"
    finished(run, *HOW)
    return run


def merged(run: Path, *new: str) -> Merged:
    of = Base.of(open_model(run))
    counts = dict.fromkeys((*of.classes, *new), 9)
    return merge(of, [sent(learned(of, d, counts), f"d{d}") for d in range(3)], Settings())


def test_it_opens_as_what_was_merged(tmp_path: Path, base: Path) -> None:
    made, was = merged(base), open_model(base)
    assert write_run(tmp_path / "0002", base, made) == tmp_path / "0002"
    now = open_model(tmp_path / "0002")
    assert (now.net, now.config, now.card.classes, now.card.seen) == (was.net, was.config, was.card.classes, was.card.seen)
    assert now.card.snapshot != was.card.snapshot
    for k, a in Base.of(now).weights.items():
        np.testing.assert_array_equal(a, made.weights[k])
    assert all((now.live[k] == made.live[k]).all() for k in was.live)
    assert not any(a.any() for k, a in now.weights.items() if k.startswith("momentum."))
    assert was.memory is not None
    assert now.memory is not None
    for k, a in was.memory.arrays().items():
        np.testing.assert_array_equal(now.memory.arrays()[k], a)
    assert now.state["rng"] == was.state["rng"]


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, base: Path) -> None:
    made = merged(base, "mug")
    a, b = (write_run(tmp_path / n, base, made) for n in "ab")
    files = [sorted(p.relative_to(run) for p in run.rglob("*") if p.is_file()) for run in (a, b)]
    assert files[0] == files[1]
    assert all((a / p).read_bytes() == (b / p).read_bytes() for p in files[0])


@pytest.mark.parametrize("roomy", [False, True])
def test_new_classes_are_known_and_learned_on(tmp_path: Path, base: Path, roomy: bool) -> None:
    if roomy:
        base = tmp_path / "roomy"
        finished(base, *HOW, "net.capacity=6")
    write_run(tmp_path / "0002", base, merged(base, "mug", "lid"))
    now = open_model(tmp_path / "0002")
    assert (now.net.classes, now.card.classes[5:], now.card.seen) == (7, ("mug", "lid"), tuple(range(7)))
    rng = np.random.default_rng(0)
    given = Labelled(rng.integers(0, 256, (20, 1, 8, 8), np.uint8), ["lid"] * 10 + ["pan"] * 10)
    lesson.begin(tmp_path / "lesson", now, lesson.prepare(now, given, changes={"train": {"epochs": 1}}))
    to_end(*session.resume(tmp_path / "lesson"))
    assert open_model(tmp_path / "lesson").card.classes[5:] == ("mug", "lid", "pan")
    again = write_run(tmp_path / "0003", tmp_path / "lesson", merged(tmp_path / "lesson", "tin"))
    assert open_model(again).card.seen == tuple(range(9))


def test_a_bundle_is_made_of_it(tmp_path: Path, base: Path) -> None:
    run = write_run(tmp_path / "0002", base, merged(base, "mug"))
    private = tmp_path / "keys.pem"
    keygen(private)
    manifest = create(run, tmp_path / "model.edgecl", private, Wish("rpi"))
    assert manifest.selftest.samples


def test_what_is_refused(tmp_path: Path, base: Path) -> None:
    made = merged(base)
    write_run(tmp_path / "0002", base, made)
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(StoreError, match="exists already"):
        write_run(tmp_path / "0002", base, made)
    with pytest.raises(ConfigError, match="its classes are not those that were merged on"):
        write_run(tmp_path / "0003", base, replace_classes(made))
    with pytest.raises(ConfigError, match="is not what was merged on"):
        write_run(tmp_path / "0003", base, made._replace(weights={k: a[:1] for k, a in made.weights.items()}))
    with pytest.raises(StoreError, match="no snapshot yet"):
        write_run(tmp_path / "0003", tmp_path / "keys", made)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def replace_classes(made: Merged) -> Merged:
    return made._replace(classes=made.classes[::-1])


def test_a_run_within_a_task_is_refused(tmp_path: Path, base: Path) -> None:
    cut, number = tmp_path / "cut", store.latest(base) or 0
    write_run(cut, base, merged(base))
    found = store.load(base, number)
    store.save(cut, 2, found._replace(state={**found.state, "step": 3}))
    with pytest.raises(ConfigError, match="lies within a task"):
        write_run(tmp_path / "0003", cut, merged(base))
