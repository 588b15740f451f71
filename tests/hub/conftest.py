"""A base of five digits, held-out samples, and what devices made of it in lessons of a second each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hub_cases import Fleet
from run_cases import SPARCL, digits, finished, to_end

from edgecl import lesson, session
from edgecl.hub.settings import Settings
from edgecl.hub.setup import init
from edgecl.lesson import Labelled
from edgecl.model import Model, open_model


@pytest.fixture(scope="session")
def base_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five digits, a little trained, in a net with room for ten."""
    run = tmp_path_factory.mktemp("hub") / "run"
    finished(
        run, *SPARCL, "train={momentum: 0.9, epochs: 3}", "data={classes_per_task: 5, samples_per_class: 20, tasks: 1}",
        "net.capacity=10",
    )  # fmt: skip
    return run


@pytest.fixture(scope="session")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Test samples of all ten digits."""
    path = tmp_path_factory.mktemp("held-out") / "test.npz"
    stream = digits(5, 20)
    x = np.concatenate([np.asarray(t.x[:]) for t in stream.tests])
    y = np.concatenate([t.y for t in stream.tests])
    np.savez(path, x=x, y=np.array([stream.class_names[k] for k in y]))
    return path


def taught(base: Model, run: Path, task: int, part: slice, rename: dict[str, str]) -> Model:
    """A lesson of a part of a task's samples."""
    stream = digits(5, 60)
    train = stream.tasks[task].train
    labels = [rename.get(n, n) for n in (stream.class_names[k] for k in train.y[part])]
    lesson.begin(run, base, lesson.prepare(base, Labelled(np.asarray(train.x[part]), labels)))
    setup, state = session.resume(run)
    to_end(setup, state)
    return open_model(run)


@pytest.fixture(scope="session")
def fleet(base_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """Three devices that saw more of the digits known, and one that learned two new ones."""
    folder, base = tmp_path_factory.mktemp("fleet"), open_model(base_run)
    parts = [(0, slice(i, None, 3), {}) for i in range(3)]
    learned = [taught(base, folder / f"{i}", *p) for i, p in enumerate(parts)]
    new = taught(base, folder / "new", 1, slice(None, None, 2), {"9": "nine of mine"})
    return Fleet(base, learned, new)


@pytest.fixture(scope="session")
def made_hub(base_run: Path, held_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hub with model 1, to be copied."""
    root = tmp_path_factory.mktemp("made") / "hub"
    init(root, base_run, held_out, Settings(url="http://127.0.0.1:1"), lambda line: None)
    return root
