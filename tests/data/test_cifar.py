"""CIFAR-10: files in the official format, tiny ones always, the real ones where $EDGECL_DATA has them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edgecl.data import cifar, load_stream
from edgecl.data.streams import build
from edgecl.types import DataError

RECORDS = 20
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A root with a tiny CIFAR-10 under it, in the official format: labels 0..9 twice a file."""
    folder = tmp_path / cifar.FOLDER
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in (*cifar.TRAIN_FILES, cifar.TEST_FILE):
        records = rng.integers(0, 256, (RECORDS, cifar.RECORD), dtype=np.uint8)
        records[:, 0] = np.arange(RECORDS) % 10
        (folder / name).write_bytes(records.tobytes())
    (folder / cifar.META_FILE).write_text("\n".join(NAMES) + "\n\n")
    return tmp_path


def test_records_become_samples(tiny: Path) -> None:
    source = cifar.load(str(tiny), records=RECORDS)
    stream = build(source)
    raw = np.concatenate([np.fromfile(tiny / cifar.FOLDER / n, np.uint8) for n in (*cifar.TRAIN_FILES, cifar.TEST_FILE)])
    raw = raw.reshape(-1, cifar.RECORD)
    assert stream.class_names == tuple(NAMES)
    for part in (*(t.train for t in stream.tasks), *stream.tests):
        assert np.array_equal(part.y, raw[part.ids, 0])
        assert np.array_equal(part.x.reshape(len(part), -1), raw[part.ids, 1:])
        assert part.x.shape[1:] == (3, 32, 32)
    assert sorted(np.concatenate([t.ids for t in stream.tests])) == list(range(5 * RECORDS, 6 * RECORDS))


def test_any_order_of_positions_can_be_read(tiny: Path) -> None:
    train = cifar.load(str(tiny), records=RECORDS).train
    index = np.random.default_rng(0).permutation(5 * RECORDS)
    assert np.array_equal(train.take(index).x, train.read(np.arange(5 * RECORDS))[index])


def test_what_is_missing_and_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECL_DATA", str(tmp_path / "variable"))
    with pytest.raises(DataError, match=r"variable.cifar-10-batches-bin \(no data_batch_1\.bin\).*edgecl data get cifar10"):
        load_stream("cifar10")
    with pytest.raises(DataError, match=r"argument.*--data-root, else \$EDGECL_DATA, else ~/\.cache/edgecl"):
        load_stream("cifar10", str(tmp_path / "argument"))
    monkeypatch.delenv("EDGECL_DATA")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(DataError, match=r"home.\.cache.edgecl.cifar"):
        load_stream("cifar10")


@pytest.mark.parametrize("name", [*cifar.TRAIN_FILES, cifar.TEST_FILE, cifar.META_FILE])
def test_each_missing_file_is_named(tiny: Path, name: str) -> None:
    assert cifar.find(str(tiny), records=RECORDS) == tiny / cifar.FOLDER
    (tiny / cifar.FOLDER / name).unlink()
    assert cifar.find(str(tiny), records=RECORDS) is None
    with pytest.raises(DataError, match=f"no {name}"):
        cifar.load(str(tiny), records=RECORDS)


@pytest.mark.parametrize("size", [0, cifar.RECORD - 1, RECORDS * cifar.RECORD - 1, (RECORDS - 1) * cifar.RECORD])
def test_a_wrong_size_is_named(tiny: Path, size: int) -> None:
    os.truncate(tiny / cifar.FOLDER / "data_batch_3.bin", size)
    assert cifar.find(str(tiny), records=RECORDS) is None
    with pytest.raises(DataError, match=rf"data_batch_3\.bin: {size} bytes, not {RECORDS} records of 3073"):
        cifar.load(str(tiny), records=RECORDS)


def test_a_label_out_of_range_is_named(tiny: Path) -> None:
    with (tiny / cifar.FOLDER / "data_batch_2.bin").open("r+b") as file:
        file.seek(7 * cifar.RECORD)
        file.write(b"\x0a")
    with pytest.raises(DataError, match=r"data_batch_2\.bin: labels: sample 7 has label 10, not 0\.\.9"):
        cifar.load(str(tiny), records=RECORDS)


@pytest.mark.parametrize("text", [b"", b"a\nb\n", b"\xff\xfe\x00", b"dog\n" * 10])
def test_wrong_class_names_are_refused(tiny: Path, text: bytes) -> None:
    (tiny / cifar.FOLDER / cifar.META_FILE).write_bytes(text)
    with pytest.raises(DataError, match=cifar.META_FILE):
        cifar.load(str(tiny), records=RECORDS)


@pytest.mark.skipif(cifar.find() is None, reason="no CIFAR-10 under $EDGECL_DATA")
def test_the_real_files() -> None:
    stream = load_stream("seq-cifar10", samples_per_class=100)
    assert stream.class_names == tuple(NAMES)
    assert stream.groups == ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))
    assert [len(t.train) for t in stream.tasks] == [200] * 5
    assert [len(t) for t in stream.tests] == [2000] * 5
    x = np.concatenate([t.x[::4] for t in stream.tests]) / 255
    assert x.mean(axis=(0, 2, 3)) == pytest.approx(cifar.PREPROCESS.mean, abs=0.01)
    assert x.std(axis=(0, 2, 3)) == pytest.approx(cifar.PREPROCESS.std, abs=0.01)
