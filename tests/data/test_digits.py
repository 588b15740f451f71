"""Digits: against scikit-learn's own loader, and without scikit-learn."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from edgecl.data import digits, joint, load_stream
from edgecl.types import DataError


def test_pixels_and_labels_are_those_of_scikit_learn() -> None:
    bunch = pytest.importorskip("sklearn.datasets").load_digits()
    stream = joint(load_stream("seq-digits"))
    for part in (stream.tasks[0].train, *stream.tests):
        assert np.array_equal(part.y, bunch.target[part.ids])
        assert np.array_equal(part.x[:, 0], np.rint(bunch.images[part.ids] * 255 / 16))
    ids = np.concatenate([p.ids for p in (stream.tasks[0].train, *stream.tests)])
    assert sorted(ids) == list(range(1797))


def test_the_split_holds_out_a_fifth_of_each_class() -> None:
    stream = load_stream("digits", classes_per_task=1)
    for task, test in zip(stream.tasks, stream.tests, strict=True):
        assert len(test) == (len(task.train) + len(test)) // 5


def test_the_constants_are_those_of_the_training_split() -> None:
    x = joint(load_stream("digits")).tasks[0].train.x / 255
    assert digits.PREPROCESS.mean == pytest.approx([x.mean()], abs=5e-5)
    assert digits.PREPROCESS.std == pytest.approx([x.std()], abs=5e-5)
    assert (digits.PREPROCESS.pad, digits.PREPROCESS.flip) == (0, False)


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r'pip install "edgecl\[demo\]"'):
        load_stream("digits")


ROW = ",".join(["0"] * 64)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"not gzip", "gzip"),
        (gzip.compress(b"1,2,3\n4,5,6\n", mtime=0), "not rows of 64 pixels"),
        (gzip.compress(b"17" + ROW[1:].encode() + b",0\n" * 2, mtime=0), "DIFFERENT|pixels|columns"),
        (gzip.compress(f"{ROW},0\n{ROW},10\n".encode(), mtime=0), "sample 1 has label 10"),
        (gzip.compress(f"{ROW},a\n".encode(), mtime=0), "could not convert"),
        (gzip.compress(f"{ROW},0\n".encode() * 500, mtime=0)[:-20], "ended before|end-of-stream"),
    ],
)
def test_a_damaged_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "digits.csv.gz"
    path.write_bytes(content)
    monkeypatch.setattr(digits, "find", lambda root: path)
    with pytest.raises(DataError, match=text) as caught:
        digits.load()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
