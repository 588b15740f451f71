"""Snapshots: what goes in comes out, and damage never does."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecl import store
from edgecl.store import Snapshot
from edgecl.types import ConfigError, StoreError

FILES = ("weights.safetensors", "masks.safetensors", "memory.safetensors", "state.json")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def example(number: int) -> Snapshot:
    """A snapshot that tells its number in every part."""
    rng = np.random.default_rng(number)
    weights = {
        "conv.weight": np.frombuffer(rng.bytes(80), np.float32),  # any bits, NaNs among them
        "bn.batches": np.array(number, np.int64),
        "empty": np.zeros((0, 3), np.float32),
    }
    masks = {"conv.weight": rng.random((20, 3)) < 0.5, "fc": np.array(True), "none": np.zeros((2, 0), bool)}
    memory = {"x": rng.integers(0, 256, (3, 1, 2, 2), np.uint8), "y": rng.integers(0, 10, 3), "seen": np.array(number)}
    state = {"step": number, "rate": 0.1 * number, "rng": rng.bit_generator.state}  # integers of 128 bits
    return Snapshot(weights, masks, memory, state)


def same(a: Snapshot, b: Snapshot) -> bool:
    """Names in order, types, shapes, bits, and the state."""
    parts = zip(a[:3], b[:3], strict=True)
    bits = [[[(k, v.dtype, v.shape, v.tobytes()) for k, v in part.items()] for part in pair] for pair in parts]
    return all(x == y for x, y in bits) and a.state == b.state


def saved(run: Path, *numbers: int) -> Path:
    for n in numbers:
        store.save(run, n, example(n))
    return run


def names(run: Path) -> list[str]:
    return sorted(os.listdir(run / "snapshots"))


# Round trips


def test_round_trip(tmp_path: Path) -> None:
    assert store.latest(tmp_path) is None
    path = store.save(tmp_path, 7, example(7))
    assert path == tmp_path / "snapshots" / "007"
    assert sorted(os.listdir(path)) == sorted(FILES)
    assert store.latest(tmp_path) == store.last_good(tmp_path) == 7
    back = store.load(tmp_path, 7)
    assert same(back, example(7))
    assert all(a.flags.writeable for part in back[:3] for a in part.values())


@settings(max_examples=40, deadline=None)
@given(state=st.dictionaries(st.text(max_size=5), json_values, max_size=4))
def test_any_state_comes_back(tmp_path_factory: pytest.TempPathFactory, state: dict[str, Any]) -> None:
    run = tmp_path_factory.mktemp("run")
    path = store.save(run, 1, Snapshot({}, {}, {}, state))
    assert store.load(run, 1) == Snapshot({}, {}, {}, state)
    assert json.loads((path / "state.json").read_text())["state"] == state


def test_random_numbers_go_on(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rng.random(5)
    store.save(tmp_path, 1, Snapshot({}, {}, {}, {"rng": rng.bit_generator.state}))
    again = np.random.default_rng()
    again.bit_generator.state = store.load(tmp_path, 1).state["rng"]
    assert np.array_equal(rng.random(9), again.random(9))


def test_equal_snapshots_are_equal_bytes(tmp_path: Path) -> None:
    for run in (tmp_path / "a", tmp_path / "b"):
        run.mkdir()
        saved(run, 1)
    for name in FILES:
        assert len({(tmp_path / run / "snapshots" / "001" / name).read_bytes() for run in "ab"}) == 1


@pytest.mark.parametrize("value", [(1, 2), [(1,)], {1: 2}, float("nan"), float("inf"), {1}, np.int64(1), np.zeros(2)])
def test_a_state_that_json_would_change_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(StoreError, match=r"001/state.json: .*JSON"):
        store.save(tmp_path, 1, Snapshot({}, {}, {}, {"a": 1, "key": value}))
    assert names(tmp_path) == []


def test_an_array_that_does_not_fit_is_named_with_its_file(tmp_path: Path) -> None:
    bad = {"fc": np.array([None])}
    for snapshot, part in [(Snapshot(bad, {}, {}, {}), 0), (Snapshot({}, bad, {}, {}), 1), (Snapshot({}, {}, bad, {}), 2)]:
        with pytest.raises(StoreError, match=rf"001/{FILES[part]}: .*'fc'"):
            store.save(tmp_path, 1, snapshot)
    assert names(tmp_path) == []


# Order and space


def test_the_newest_stay(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2, 3)
    assert names(tmp_path) == ["002", "003"]
    store.save(tmp_path, 1000, example(4), keep=3)
    assert names(tmp_path) == ["002", "003", "1000"]
    assert store.latest(tmp_path) == 1000
    store.save(tmp_path, 1001, example(5), keep=1)
    assert names(tmp_path) == ["1001"]


def test_what_killed_saves_left_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    for name in (".002.tmp", ".000.old", ".mine", "notes", "0003"):
        shutil.copytree(tmp_path / "snapshots" / "001", tmp_path / "snapshots" / name)
    assert store.latest(tmp_path) == 1
    saved(tmp_path, 2)
    assert names(tmp_path) == [".mine", "0003", "001", "002", "notes"]


def test_numbers_rise(tmp_path: Path) -> None:
    saved(tmp_path, 4)
    for number in (3, 4, -1):
        with pytest.raises(StoreError, match=f"snapshots: {number} is not above the newest snapshot, 4$"):
            store.save(tmp_path, number, example(number % 7))
    with pytest.raises(ConfigError, match=r"keep is 0"):
        store.save(tmp_path, 5, example(5), keep=0)
    assert same(store.load(tmp_path, 4), example(4))


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no snapshot 005; it has none$"):
        store.load(tmp_path, 5)
    saved(tmp_path, 1, 2)
    with pytest.raises(StoreError, match=r"no snapshot 005; it has 001, 002$"):
        store.load(tmp_path, 5)
    with pytest.raises(StoreError, match=r"nowhere/snapshots: no such file or directory$"):
        store.save(tmp_path / "nowhere", 1, example(1))


# Damage


def damaged(run: Path, name: str, data: bytes) -> str:
    """What `load` says when snapshot 2's file holds `data`."""
    path = run / "snapshots" / "002" / name
    good = path.read_bytes()
    path.write_bytes(data)
    try:
        with pytest.raises(StoreError) as e:
            store.load(run, 2)
    finally:
        path.write_bytes(good)
    return str(e.value)


@pytest.mark.parametrize("name", FILES)
def test_damage_is_found_wherever_it_is(tmp_path: Path, name: str) -> None:
    good = (saved(tmp_path, 2) / "snapshots" / "002" / name).read_bytes()
    draw = random.Random(0)
    for n in range(0, len(good), 3):
        flipped = bytearray(good)
        flipped[n] ^= 1 << draw.randrange(8)
        for data in (bytes(flipped), good[:n]):
            assert damaged(tmp_path, name, data).startswith(f"{tmp_path}/snapshots/002/{name}: ")
    assert "bytes" in damaged(tmp_path, name, good + b"\0") or name == "state.json"
    assert same(store.load(tmp_path, 2), example(2))


@pytest.mark.parametrize("name", FILES)
def test_the_way_back_is_named(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, 1, 2) / "snapshots" / "002" / name
    assert damaged(tmp_path, name, b"").endswith("; remove snapshots/002 to resume from 001")
    path.unlink()
    with pytest.raises(StoreError) as e:
        store.load(tmp_path, 2)
    assert str(e.value) == f"{path}: no such file or directory; remove snapshots/002 to resume from 001"
    path.mkdir()
    with pytest.raises(StoreError, match=f"{name}: is a directory; remove snapshots/002 to resume from 001"):
        store.load(tmp_path, 2)
    assert store.latest(tmp_path) == 2
    assert store.last_good(tmp_path) == 1
    shutil.rmtree(tmp_path / "snapshots" / "002")
    assert same(store.load(tmp_path, store.latest(tmp_path) or 0), example(1))


def test_the_way_back_leads_over_damaged_ones_to_a_good_one_or_is_not_there(tmp_path: Path) -> None:
    for n in (1, 2, 3):
        store.save(tmp_path, n, example(n), keep=3)
    for n in (2, 3):
        (tmp_path / "snapshots" / f"{n:03d}" / "memory.safetensors").unlink()
    with pytest.raises(StoreError, match=r"; remove snapshots/003 and snapshots/002 to resume from 001$"):
        store.load(tmp_path, 3)
    with pytest.raises(StoreError, match=r"no such file or directory$"):  # 3 would still be the newest
        store.load(tmp_path, 2)
    shutil.rmtree(tmp_path / "snapshots" / "001")
    with pytest.raises(StoreError, match=r"no such file or directory$"):
        store.load(tmp_path, 3)


def resealed(run: Path, **changes: Any) -> None:
    """Snapshot 2's state.json as another program would write it."""
    path = run / "snapshots" / "002" / "state.json"
    body = json.loads(path.read_bytes())
    del body["checksum"]
    path.write_bytes(store._seal(body | changes))


def test_another_format_is_named_and_not_thrown_away(tmp_path: Path) -> None:
    resealed(saved(tmp_path, 1, 2), format=2)
    with pytest.raises(StoreError, match=r"state.json: snapshot format 2, but this edgecl reads format 1$"):
        store.load(tmp_path, 2)


@pytest.mark.parametrize("changes", [{"files": {}}, {"files": 1}, {"state": 1}, {"files": {FILES[0]: {"bytes": "x"}}}])
def test_a_state_of_another_shape_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    resealed(saved(tmp_path, 1, 2), **changes)
    with pytest.raises(StoreError, match=r"state.json: is no snapshot's state.*resume from 001$"):
        store.load(tmp_path, 2)
    path = tmp_path / "snapshots" / "002" / "state.json"
    for text in ("[]", '"a"', "{}", "[" * 100_000):
        path.write_text(text)
        with pytest.raises(StoreError, match=r"state.json: is damaged.*resume from 001$"):
            store.load(tmp_path, 2)
