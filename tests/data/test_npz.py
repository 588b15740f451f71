"""A user's own .npz: layouts, statistics, and every way in which it can be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecl.data import joint, load_stream, npz
from edgecl.types import DataError

Arrays = dict[str, Any]


def arrays(*shape: int) -> Arrays:
    """Twelve training and six test samples of three classes."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (18, *shape), dtype=np.uint8)
    y = np.arange(18) % 3
    return {"x_train": x[:12], "y_train": y[:12], "x_test": x[12:], "y_test": y[12:]}


def save(folder: Path, content: Arrays) -> str:
    path = folder / "mine.npz"
    np.savez(path, **content)
    return str(path)


@pytest.mark.parametrize(
    ("shape", "layout", "stored"),
    [
        ((8, 9), "", (1, 8, 9)),
        ((8, 9, 3), "", (3, 8, 9)),
        ((3, 8, 9), "", (3, 8, 9)),
        ((8, 9, 1), "", (1, 8, 9)),
        ((3, 8, 1), "", (3, 8, 1)),  # both could be: channels first
        ((3, 8, 1), "NHWC", (1, 3, 8)),
        ((6, 8, 9), "NCHW", (6, 8, 9)),
        ((6, 8, 9), "NHWC", (9, 6, 8)),
    ],
)
def test_layouts(tmp_path: Path, shape: tuple[int, ...], layout: str, stored: tuple[int, ...]) -> None:
    content = arrays(*shape)
    stream = load_stream(save(tmp_path, content | ({"layout": layout} if layout else {})))
    assert stream.shape == stored
    assert stream.name == "mine"
    first = content["x_train"].reshape(12, *shape)
    same = stored[1:] == shape or stored == shape
    assert np.array_equal(joint(stream).tasks[0].train.x, first.reshape(12, *stored) if same else first.transpose(0, 3, 1, 2))


def test_classes_ids_and_statistics(tmp_path: Path) -> None:
    content = arrays(4, 4, 3)
    stream = load_stream(save(tmp_path, content | {"classes": np.array(["a", "b", "c"])}))
    assert stream.class_names == ("a", "b", "c")
    assert stream.groups == ((0, 1), (2,))
    ids = np.concatenate([s.ids for s in (*(t.train for t in stream.tasks), *stream.tests)])
    assert sorted(ids) == list(range(18))
    value = content["x_train"] / 255
    assert stream.preprocess.mean == pytest.approx(value.mean(axis=(0, 1, 2)))
    assert stream.preprocess.std == pytest.approx(value.std(axis=(0, 1, 2)))
    assert (stream.preprocess.pad, stream.preprocess.flip) == (0, False)


def test_statistics_do_not_depend_on_the_subset_and_a_constant_channel_has_std_1(tmp_path: Path) -> None:
    content = arrays(4, 4, 3)
    content["x_train"][..., 1] = 51
    path = save(tmp_path, content)
    whole, part = load_stream(path), load_stream(path, samples_per_class=1)
    assert whole.preprocess == part.preprocess
    assert whole.preprocess.mean[1] == pytest.approx(0.2)
    assert whole.preprocess.std[1] == 1.0


def test_names_are_counted_without_classes(tmp_path: Path) -> None:
    assert load_stream(save(tmp_path, arrays(4, 4))).class_names == ("0", "1", "2")


def test_a_relative_path_lies_under_the_root(tmp_path: Path) -> None:
    save(tmp_path, arrays(4, 4))
    assert load_stream("mine.npz", str(tmp_path)).name == "mine"


WRONG: dict[str, tuple[Arrays, str]] = {
    "dtype": ({"x_train": np.zeros((12, 4, 4), np.float32)}, r"x_train is float32 \(12, 4, 4\), not uint8"),
    "axes": ({"x_test": np.zeros((6, 16), np.uint8)}, r"x_test is uint8 \(6, 16\)"),
    "empty": ({"x_train": np.zeros((0, 4, 4), np.uint8)}, r"x_train is uint8 \(0, 4, 4\)"),
    "two shapes": ({"x_test": np.zeros((6, 5, 4), np.uint8)}, r"two shapes: x_train \(12, 4, 4\) and x_test \(6, 5, 4\)"),
    "length": ({"y_train": np.zeros(11, np.int64)}, "x_train has 12 samples, y_train has 11"),
    "float labels": ({"y_test": np.zeros(6)}, r"y_test is float64 \(6,\), not integers"),
    "label axes": ({"y_test": np.zeros((6, 1), np.int64)}, r"y_test is int64 \(6, 1\)"),
    "negative": ({"y_train": np.arange(12) % 3 - 1}, "y_train: sample 0 has label -1"),
    "huge label": ({"y_train": np.r_[np.arange(11) % 3, 10**15]}, "y_train: sample 11 has label 1000000000000000"),
    "unsigned": ({"y_train": np.array([*(np.arange(11) % 3), 2**64 - 1], np.uint64)}, "y_train: sample 11 has label"),
    "new in test": ({"y_test": np.r_[np.arange(5) % 3, 3]}, r"y_test: sample 5 has label 3, not 0\.\.2"),
    "too few names": ({"classes": np.array(["a", "b"])}, r"y_train: sample 2 has label 2, not 0\.\.1"),
    "unused name": ({"classes": np.array(["a", "b", "c", "d"])}, r"class 3 \(d\) has no training sample"),
    "same names": ({"classes": np.array(["a", "a", "c"])}, "classes is <U1"),
    "number names": ({"classes": np.arange(3)}, r"classes is int64 \(3,\)"),
    "objects": ({"classes": np.array(["a", None], object)}, "not a readable .npz of plain arrays"),
    "no channels": ({"x_train": np.zeros((12, 4, 4, 5), np.uint8)}, 'add layout="NCHW" or "NHWC"'),
    "layout": ({"x_train": np.zeros((12, 4, 4, 5), np.uint8), "layout": "HWC"}, "layout is 'HWC'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(tmp_path: Path, case: str) -> None:
    change, text = WRONG[case]
    with pytest.raises(DataError, match=text) as caught:
        load_stream(save(tmp_path, arrays(4, 4) | change))
    assert "mine.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", npz.KEYS)
def test_a_missing_array_is_named(tmp_path: Path, key: str) -> None:
    content = arrays(4, 4)
    del content[key]
    with pytest.raises(DataError, match=f"no array '{key}'"):
        load_stream(save(tmp_path, content))


def test_files_that_are_no_npz(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        load_stream(str(tmp_path / "none.npz"))
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(DataError, match=r"folder\.npz: not a readable \.npz"):
        load_stream(str(tmp_path / "folder.npz"))
    path = Path(save(tmp_path, arrays(8, 8)))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"mine\.npz: not an \.npz"):
        load_stream(str(path))
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match=r"mine\.npz: not an \.npz"):
        load_stream(str(path))


def test_a_damaged_array_is_refused(tmp_path: Path) -> None:
    path = Path(save(tmp_path, arrays(8, 8)))
    content = bytearray(path.read_bytes())
    content[300:340] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a readable"):
        load_stream(str(path))
