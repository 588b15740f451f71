"""The reservoir: equal chances, rows that belong together, and snapshots that go on as if nothing had happened."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecl.memory import Reservoir, deflated, inflated
from edgecl.types import ConfigError, DataError, StoreError

FEW = settings(max_examples=60, deadline=None)
seeds = st.integers(0, 2**32 - 1)
batches = st.lists(st.integers(0, 9), max_size=12)
SHAPE, CLASSES = (2, 3, 1), 4


def items(first: int, n: int) -> tuple[np.ndarray, ...]:
    """n samples of the stream, each telling its id in all of its arrays."""
    ids = np.arange(first, first + n, dtype=np.int64)
    x = np.broadcast_to((ids % 251).astype(np.uint8)[:, None, None, None], (n, *SHAPE))
    return x, ids % 7, ids, np.broadcast_to(ids[:, None].astype(np.float32), (n, CLASSES))


def filled(seed: int, capacity: int, sizes: list[int]) -> Reservoir:
    rng, memory = np.random.default_rng(seed), Reservoir.empty(capacity, SHAPE, CLASSES)
    for n in sizes:
        memory.add(rng, *items(memory.seen, n))
    return memory


def same(a: Reservoir, b: Reservoir) -> bool:
    return all(np.array_equal(v, b.arrays()[k]) for k, v in a.arrays().items())


@FEW
@given(seeds, st.integers(1, 12), batches)
def test_rows_belong_together(seed, capacity, sizes):
    memory = filled(seed, capacity, sizes)
    assert memory.seen == sum(sizes)
    assert memory.size == min(capacity, sum(sizes))
    ids = memory.ids[: memory.size]
    assert len(set(ids.tolist())) == memory.size  # no sample twice
    assert ((ids >= 0) & (ids < memory.seen)).all()
    assert (memory.ids[memory.size :] == -1).all()
    np.testing.assert_array_equal(memory.y[: memory.size], ids % 7)
    np.testing.assert_array_equal(memory.x[: memory.size, 1, 2, 0], ids % 251)
    np.testing.assert_array_equal(memory.logits[: memory.size, 3], ids)
    if sum(sizes) <= capacity:
        np.testing.assert_array_equal(ids, np.arange(sum(sizes)))


@FEW
@given(seeds, st.integers(1, 12), batches)
def test_batches_do_not_matter(seed, capacity, sizes):
    """The same stream in other batches gives the same memory, bit for bit: one draw an item, in order."""
    assert same(filled(seed, capacity, sizes), filled(seed, capacity, [1] * sum(sizes)))


@FEW
@given(seeds, st.integers(1, 12), st.integers(0, 60))
def test_against_algorithm_r(seed, capacity, n):
    """Vitter's algorithm R written item by item."""
    rng, slots = np.random.default_rng(seed), np.full(capacity, -1)
    for i in range(n):
        j = i if i < capacity else int(rng.integers(0, np.array([i + 1]))[0])
        if j < capacity:
            slots[j] = i
    np.testing.assert_array_equal(filled(seed, capacity, [n]).ids, slots)


@pytest.mark.parametrize("sizes", [[1] * 40, [7, 7, 7, 7, 7, 5], [40]])
def test_every_item_has_the_same_chance(sizes):
    rng, held, rounds = np.random.default_rng(0), np.zeros(40), 1500
    for _ in range(rounds):
        memory = Reservoir.empty(8, (1, 1, 1), 1)
        for n in sizes:
            x, y, ids, logits = items(memory.seen, n)
            memory.add(rng, x[:, :1, :1], y, ids, logits[:, :1])
        held[memory.ids] += 1
    expected = rounds * 8 / 40
    chi2 = ((held - expected) ** 2).sum() / (expected * 0.8) * 39 / 40  # 8 of 40 without replacement
    assert chi2 < 72.1  # 39 degrees of freedom, p = 0.001


@FEW
@given(seeds, st.integers(1, 12), st.integers(0, 30), st.integers(0, 30))
def test_draw(seed, capacity, held, n):
    memory, rng = filled(seed, capacity, [held]), np.random.default_rng(seed)
    index = memory.draw(rng, n)
    assert index.dtype == np.int64
    assert len(index) == (n if held else 0)
    if len(index):
        times = np.bincount(index, minlength=memory.size)
        assert times.max() - times.min() <= 1  # never one sample twice while another waits
        assert index.max() < memory.size


def test_draw_from_nothing_leaves_the_generator_alone():
    rng = np.random.default_rng(0)
    assert len(Reservoir.empty(3, SHAPE, CLASSES).draw(rng, 5)) == 0
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state


@FEW
@given(seeds, st.integers(1, 12), batches, batches)
def test_a_snapshot_goes_on_the_same(seed, capacity, before, after):
    memory, rng = filled(seed, capacity, before), np.random.default_rng(seed)
    snapshot = memory.arrays()
    copy, other = Reservoir.from_arrays(snapshot), np.random.default_rng(seed)
    for n in after:
        memory.add(rng, *items(memory.seen, n))
        copy.add(other, *items(copy.seen, n))
    assert same(memory, copy)
    assert same(filled(seed, capacity, before), Reservoir.from_arrays(snapshot))  # a copy, not a view


def test_capacity_below_one_is_named():
    with pytest.raises(ConfigError, match=r"memory\.capacity is 0"):
        Reservoir.empty(0, SHAPE, CLASSES)


def test_nbytes():
    assert Reservoir.empty(500, (3, 32, 32), 10).nbytes == 500 * (3072 + 8 + 8 + 40)


@pytest.mark.parametrize(("place", "name"), [(0, "x"), (1, "y"), (2, "ids"), (3, "logits")])
def test_rows_that_do_not_fit_are_named(place, name):
    memory = Reservoir.empty(3, SHAPE, CLASSES)
    good = items(0, 2)
    for wrong in (good[place].astype(np.float64), good[place][:, None]):
        with pytest.raises(DataError, match=f"memory: '{name}' is"):
            memory.add(np.random.default_rng(0), *good[:place], wrong, *good[place + 1 :])
    assert memory.seen == 0


def test_a_damaged_snapshot_is_named():
    good = filled(0, 3, [5]).arrays()
    for name, wrong in [("ids", good["ids"][:2]), ("x", good["x"][0, 0, 0, 0]), ("logits", good["y"]), ("seen", np.array([-1]))]:
        with pytest.raises(StoreError, match=f"'{name}'"):
            Reservoir.from_arrays(good | {name: wrong})
    with pytest.raises(StoreError, match="no array 'y'"):
        Reservoir.from_arrays({k: v for k, v in good.items() if k != "y"})


# ---- deflated ----


@FEW
@given(seeds, st.integers(1, 5), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))
def test_deflated_pixels_come_back(seed, m, c, h, w):
    x = np.random.default_rng(seed).integers(0, 256, (m, c, h, w), dtype=np.uint8)
    np.testing.assert_array_equal(inflated({**deflated(x), "y": np.zeros(m, np.int64)}), x)


def test_a_deflated_memory_comes_back():
    memory = filled(1, 5, [3, 9])
    assert same(Reservoir.from_arrays(memory.arrays(compress=True)), memory)


@pytest.mark.parametrize(
    "change",
    [
        {"x.shape": np.array([5, 2, 3, 2], np.int64)},  # more pixels than there are
        {"x.shape": np.array([5, 2, 3], np.int64)},
        {"x.shape": np.array([4, 2, 3, 1], np.int64)},
        {"x.shape": np.array([5, 1 << 14, 1 << 14, 2], np.int64)},
        {"x.deflated": np.frombuffer(zlib.compress(bytes(10_000_000)), np.uint8)},  # unpacks to more: never all in memory
        {"x.deflated": np.frombuffer(b"no zlib stream", np.uint8)},
        {"x.deflated": np.zeros(0, np.uint8)},
    ],
    ids=range(7),
)
def test_damaged_deflated_pixels_are_refused(change):
    with pytest.raises(StoreError, match=r"memory: x\."):
        Reservoir.from_arrays({**filled(1, 5, [9]).arrays(compress=True), **change})
