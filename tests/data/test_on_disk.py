"""Pixels left on the disk are what an array would hold, by every index; a file that shrinks is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecl import session
from edgecl.data import cifar, joint
from edgecl.data.source import OnDisk
from edgecl.data.streams import build
from edgecl.types import DataError, Samples, Stream

RECORDS = 40


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """CIFAR-10's files with 40 records of noise each."""
    rng, folder = np.random.default_rng(0), tmp_path / cifar.FOLDER
    folder.mkdir()
    for name in (*cifar.TRAIN_FILES, cifar.TEST_FILE):
        records = rng.integers(0, 256, (RECORDS, cifar.RECORD), dtype=np.uint8)
        records[:, 0] = np.arange(RECORDS) % 10
        (folder / name).write_bytes(records.tobytes())
    (folder / cifar.META_FILE).write_text("\n".join("abcdefghij"))
    return tmp_path


def streams(root: Path, samples_per_class: int = 0) -> tuple[Stream, Stream]:
    source = cifar.load(str(root), records=RECORDS)
    return build(source, 2, samples_per_class), build(source, 2, samples_per_class, lazy=True)


def splits(stream: Stream) -> list[Samples]:
    return [*(t.train for t in stream.tasks), *stream.tests]


@pytest.mark.parametrize("samples_per_class", [0, 7])
def test_read_on_demand_is_the_same(root: Path, samples_per_class: int) -> None:
    whole, lazy = streams(root, samples_per_class)
    rng = np.random.default_rng(1)
    for a, b in zip(splits(whole), splits(lazy), strict=True):
        assert isinstance(b.x, OnDisk)
        assert (a.x.shape, a.y.tolist(), a.ids.tolist()) == (b.x.shape, b.y.tolist(), b.ids.tolist())
        for index in (rng.integers(0, len(a), 9), rng.random(len(a)) < 0.5, slice(2, 6), slice(None), np.zeros(0, np.int64)):
            assert np.array_equal(a.x[index], b.x[index])
        assert np.array_equal(a.take(np.array([3, 1])).x, b.take(np.array([3, 1])).x)
    assert session.fingerprint(whole) == session.fingerprint(lazy)


def test_joint_stays_on_the_disk(root: Path) -> None:
    whole, lazy = (joint(s).tasks[0].train for s in streams(root))
    assert isinstance(lazy.x, OnDisk)
    assert np.array_equal(whole.x, lazy.x[:])
    assert whole.ids.tolist() == lazy.ids.tolist()


def test_a_file_that_shrinks_or_goes_is_named(root: Path) -> None:
    _, lazy = streams(root)
    path = root / cifar.FOLDER / cifar.TRAIN_FILES[2]
    path.write_bytes(path.read_bytes()[: 5 * cifar.RECORD])
    with pytest.raises(DataError, match=r"data_batch_3\.bin: ends before record"):
        lazy.tasks[0].train.x[:]
    path.unlink()
    with pytest.raises(DataError, match=r"data_batch_3\.bin: No such file"):
        lazy.tasks[0].train.x[:]
