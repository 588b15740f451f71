"""A run of seconds, and what a lesson made of it: five digits known, five more taught, and one class that is the device's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from run_cases import SPARCL, digits, finished, to_end

from edgecl import bundle, lesson, session
from edgecl.lesson import Labelled
from edgecl.model import Model, open_model
from edgecl.update import Base, Update, difference


def teach(run: Path, base: Model, task: int, rename: dict[str, str]) -> Model:
    """A lesson of a task of the digits, of which some are called otherwise."""
    stream = digits(5, 20)
    train = stream.tasks[task].train
    labels = [rename.get(name, name) for name in (stream.class_names[k] for k in train.y)]
    lesson.begin(run, base, lesson.prepare(base, Labelled(np.asarray(train.x[:]), labels, train.ids)))
    setup, state = session.resume(run)
    to_end(setup, state)
    return open_model(run)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """What a device was installed with: five digits, and no room for more."""
    run = tmp_path_factory.mktemp("update") / "run"
    finished(run, *SPARCL, "train={momentum: 0.9, epochs: 3}", "data={classes_per_task: 5, samples_per_class: 20, tasks: 1}")
    return open_model(run)


@pytest.fixture(scope="session")
def learned(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Five digits more, one of them under a name of the device's own."""
    return teach(tmp_path_factory.mktemp("learned") / "001", model, 1, {"9": "nine of mine"})


@pytest.fixture(scope="session")
def base(model: Model) -> Base:
    return Base.of(model)


@pytest.fixture(scope="session")
def update(model: Model, learned: Model) -> Update:
    return difference(model, learned)


@pytest.fixture(scope="session")
def private(tmp_path_factory: pytest.TempPathFactory) -> Path:
    key = tmp_path_factory.mktemp("keys") / "key.pem"
    bundle.keygen(key)
    return key


@pytest.fixture(scope="session")
def public(private: Path) -> bytes:
    """The 32 bytes of the public key."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    return load_pem_public_key(private.with_suffix(".pub").read_bytes()).public_bytes(Encoding.Raw, PublicFormat.Raw)
