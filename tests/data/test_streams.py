"""Streams: every sample in its place once, whatever the set and the share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecl.data import load_stream
from edgecl.data.source import Source, Split, rank_in_class
from edgecl.data.streams import build, joint
from edgecl.types import I64, ConfigError, DataError, Preprocess, Stream


def source(train: list[int], test: list[int], classes: int) -> Source:
    """Samples of 1×1 whose pixel is their id, modulo 256."""

    def split(labels: list[int], first: int) -> Split:
        ids = np.arange(first, first + len(labels))
        x = (ids % 256).astype(np.uint8).reshape(-1, 1, 1, 1)
        return Split(np.asarray(labels, dtype=np.int64), ids, lambda index: x[index])

    names = tuple(f"c{k}" for k in range(classes))
    return Source("s", Path("s.npz"), names, split(train, 0), split(test, len(train)), Preprocess((0.0,), (1.0,)))


@st.composite
def sources(draw: st.DrawFn) -> Source:
    classes = draw(st.integers(1, 7))
    labels = st.lists(st.integers(0, classes - 1), max_size=30).map(lambda more: more + list(range(classes)))
    return source(draw(labels.flatmap(st.permutations)), draw(labels.flatmap(st.permutations)), classes)


def all_ids(stream: Stream) -> I64:
    return np.concatenate([s.ids for s in (*(t.train for t in stream.tasks), *stream.tests)])


@settings(deadline=None)
@given(sources(), st.data())
def test_tasks_partition_classes_and_samples(src: Source, data: st.DataObject) -> None:
    share = data.draw(st.integers(1, len(src.classes)))
    stream = build(src, share)
    assert [k for g in stream.groups for k in g] == list(range(len(src.classes)))
    assert {len(g) for g in stream.groups[:-1]} <= {share}
    assert 1 <= len(stream.groups[-1]) <= share
    assert [t.classes for t in stream.tasks] == list(stream.groups)
    assert [t.index for t in stream.tasks] == list(range(len(stream.groups)))
    assert sorted(all_ids(stream)) == list(range(len(src.train.y) + len(src.test.y)))
    for group, samples in zip(stream.groups * 2, [t.train for t in stream.tasks] + list(stream.tests), strict=True):
        assert set(samples.y) == set(group)
        assert np.all(np.diff(samples.ids) > 0)  # file order
        assert np.array_equal(samples.x[:, 0, 0, 0], samples.ids % 256)
        assert samples.y.dtype == samples.ids.dtype == np.int64


@settings(deadline=None)
@given(sources(), st.integers(1, 8))
def test_a_subset_keeps_the_first_of_each_class_with_their_ids(src: Source, n: int) -> None:
    whole, part = joint(build(src)) if len(src.classes) > 1 else build(src, 1), build(src, 1, n)
    full = whole.tasks[0].train
    for k, task in enumerate(part.tasks):
        assert np.array_equal(task.train.ids, full.ids[full.y == k][:n])
    assert sum(len(t) for t in part.tests) == len(src.test.y)


@settings(deadline=None)
@given(sources(), st.data())
def test_joint_merges_tasks_and_keeps_the_groups(src: Source, data: st.DataObject) -> None:
    stream = build(src, data.draw(st.integers(1, len(src.classes))))
    merged = joint(stream)
    assert len(merged.tasks) == 1
    assert merged.tasks[0].classes == tuple(range(len(src.classes)))
    assert (merged.groups, merged.tests, merged.name) == (stream.groups, stream.tests, stream.name)
    train = merged.tasks[0].train
    assert np.array_equal(train.ids, src.train.ids)
    assert np.array_equal(train.y, src.train.y)
    assert np.array_equal(train.x, src.train.read(np.arange(len(src.train.y))))


@settings(deadline=None)
@given(st.lists(st.integers(0, 5)))
def test_rank_in_class_counts_earlier_equals(labels: list[int]) -> None:
    rank = rank_in_class(np.asarray(labels, dtype=np.int64))
    assert rank.tolist() == [labels[:i].count(y) for i, y in enumerate(labels)]


def test_a_class_without_samples_is_named() -> None:
    with pytest.raises(DataError, match=r"s\.npz: class 1 \(c1\) has no training sample"):
        build(source([0, 2], [0, 1, 2], 3))
    with pytest.raises(DataError, match=r"class 2 \(c2\) has no test sample"):
        build(source([0, 1, 2], [0, 1], 3))


@pytest.mark.parametrize("share", [0, -1, 4])
def test_a_share_out_of_range_is_refused(share: int) -> None:
    with pytest.raises(ConfigError, match="take 1 to 3"):
        build(source([0, 1, 2], [0, 1, 2], 3), share)


def test_a_negative_subset_is_refused() -> None:
    with pytest.raises(ConfigError, match="samples_per_class is -1"):
        build(source([0, 1], [0, 1], 2), 2, -1)


def test_only_the_first_tasks() -> None:
    whole, part = load_stream("digits"), load_stream("digits", tasks=2)
    assert (part.class_names, part.groups) == (whole.class_names[:4], whole.groups[:2])
    assert [len(t.train) for t in part.tasks] == [len(t.train) for t in whole.tasks[:2]]
    assert len(part.tests) == 2
    for wrong in (-1, 6):
        with pytest.raises(ConfigError, match=r"data\.tasks"):
            load_stream("digits", tasks=wrong)
