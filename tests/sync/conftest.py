"""A base that knows eight digits, a later one, a key that signs bundles, and a device that has learned a ninth."""

from __future__ import annotations

from pathlib import Path

import pytest
from sync_cases import learn_base, newest, samples, teach, unpacked

from edgecl import bundle


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For what is made once."""
    return tmp_path_factory.mktemp("sync")


@pytest.fixture(scope="session")
def key(made: Path) -> Path:
    """Signs bundles."""
    bundle.keygen(made / "key.pem")
    return made / "key.pem"


@pytest.fixture(scope="session")
def base(made: Path) -> Path:
    """The hub's first model."""
    return learn_base(made / "base")


@pytest.fixture(scope="session")
def later(made: Path, base: Path) -> Path:
    """The hub's next one: the base, after others have taught it more of the same."""
    return teach(made / "later", base, samples(range(8), 20, 60), epochs=2)


@pytest.fixture(scope="session")
def slot(made: Path, base: Path, key: Path) -> Path:
    """An unpacked bundle in which digits 8 was taught, as a personal class, and more of digit 3. Tests copy it."""
    folder = unpacked(base, key, made / "slot")
    teach(folder / "lessons", folder / "learner", samples([8], 40))
    teach(folder / "lessons", newest(folder), samples([3], 20, 100))
    return folder
