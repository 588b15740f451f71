"""A key pair, a run of seconds, and bundles of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecl import bundle, session
from edgecl import config as configs
from edgecl.bundle import Wish
from edgecl.train import train

SMALL = {
    "data": {"name": "digits", "samples_per_class": 40, "classes_per_task": 5},
    "net": {"name": "small_cnn", "width": 8},
    "train": {"epochs": 8, "batch": 16, "rate": 0.05, "snapshot_every": 8},
    "memory": {"capacity": 30},
    "mask": {"sparsity": 0.5},
    "engine": {"threads": 1},
}


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks of five digits; two snapshots."""
    folder = tmp_path_factory.mktemp("bundle") / "run"
    config = configs.resolve("digits", [SMALL])
    stream = session.read_stream(config)
    for _ in train(*session.begin(folder, session.make(config, stream, set(configs.dotted(SMALL))), stream)):
        pass
    return folder


@pytest.fixture(scope="session")
def private(tmp_path_factory: pytest.TempPathFactory) -> Path:
    key = tmp_path_factory.mktemp("keys") / "key.pem"
    bundle.keygen(key)
    return key


@pytest.fixture(scope="session")
def public(private: Path) -> Path:
    return private.with_suffix(".pub")


@pytest.fixture(scope="session")
def made(run: Path, private: Path) -> Path:
    """For this machine, of the newest snapshot."""
    out = run.parent / "made.edgecl"
    bundle.create(run, out, private, Wish("host"))
    return out


@pytest.fixture(scope="session")
def newer(run: Path, private: Path) -> Path:
    """Another one."""
    out = run.parent / "newer.edgecl"
    bundle.create(run, out, private, Wish("host", limits={"cpu_percent": 50}))
    return out
