"""The outbox: what is in it stays until the hub has it, at whatever write, sync or rename the power goes."""

from __future__ import annotations

import json
import os
import shutil
from itertools import count
from pathlib import Path

import pytest
from power import EMPTIED, FATES, cut

from edgecl.sync.outbox import Item, Outbox
from edgecl.types import StoreError

BASE, OTHER = "b" * 64, "c" * 64


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here needs the real disk to sync."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def box(folder: Path, quota: int = 1000) -> Outbox:
    return Outbox(folder / "outbox", quota)


def put(outbox: Outbox, data: bytes, base: str, snapshot: str) -> Item:
    file = outbox.folder.parent / "packed"
    file.write_bytes(data)
    return outbox.put(file, base, snapshot)


def payload(outbox: Outbox, item: Item) -> bytes:
    outbox.check(item)
    return outbox.read(item, 0, item.bytes)


def numbers(items: list[Item]) -> list[int]:
    return [i.sequence for i in items]


def test_what_was_put_is_there_for_the_next_process(tmp_path: Path) -> None:
    item = put(box(tmp_path), b"abc", BASE, "1" * 64)
    again = box(tmp_path)
    assert again.items() == [item]
    assert payload(again, item) == b"abc"
    assert item == Item(1, 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", BASE, "1" * 64)


def test_numbers_rise_and_are_never_used_again(tmp_path: Path) -> None:
    given = []
    for n in range(6):
        outbox = box(tmp_path)
        item = put(outbox, b"x" * n, BASE, f"{n}" * 64)
        given.append(item.sequence)
        (outbox.acknowledged if n % 2 else lambda i, o=outbox: o.set_aside(i, "no"))(item)
    assert given == [1, 2, 3, 4, 5, 6]


def test_a_later_lesson_takes_the_place_of_one_that_has_not_begun(tmp_path: Path) -> None:
    outbox = box(tmp_path)
    begun = put(outbox, b"1", BASE, "1" * 64)
    outbox.begin(begun)
    put(outbox, b"2", BASE, "2" * 64)
    other = put(outbox, b"3", OTHER, "3" * 64)
    last = put(outbox, b"4", BASE, "4" * 64)
    assert numbers(outbox.items()) == [1, other.sequence, last.sequence]
    assert not (tmp_path / "outbox" / "000002.update").exists()
    assert [s[0] for s in outbox.packed()] == ["1", "2", "3", "4"]


def test_a_full_outbox_refuses_and_keeps_what_it_has(tmp_path: Path) -> None:
    outbox = box(tmp_path, 10)
    put(outbox, b"x" * 6, BASE, "1" * 64)
    with pytest.raises(StoreError, match=r"5 B more would pass its quota of 10 B: 6 B wait"):
        put(outbox, b"x" * 5, OTHER, "2" * 64)
    assert numbers(outbox.items()) == [1]
    put(outbox, b"x" * 9, BASE, "3" * 64)  # in place of the first
    assert numbers(outbox.items()) == [2]


def test_what_is_set_aside_is_kept_with_its_reason_while_there_is_room(tmp_path: Path) -> None:
    outbox = box(tmp_path, 10)
    item = put(outbox, b"x" * 6, BASE, "1" * 64)
    outbox.set_aside(item, "413:\ntoo large")
    assert outbox.items() == []
    assert [(i.sequence, i.reason) for i in box(tmp_path, 10).aside()] == [(1, "413: too large")]
    assert (tmp_path / "outbox/aside/000001.update").read_bytes() == b"x" * 6
    put(outbox, b"x" * 5, BASE, "2" * 64)
    assert outbox.aside() == []


def test_what_is_acknowledged_goes_and_is_remembered(tmp_path: Path) -> None:
    outbox = box(tmp_path)
    outbox.acknowledged(put(outbox, b"abc", BASE, "1" * 64))
    assert sorted(p.name for p in (tmp_path / "outbox").iterdir()) == ["aside", "next", "sent.json"]
    assert box(tmp_path).last() == {"sequence": 1, "bytes": 3, "snapshot": "1" * 64}
    assert box(tmp_path).packed() == ["1" * 64]


DAMAGE: list[tuple[str, bytes, str]] = [
    ("000001.json", b"{", "not whole, or not JSON"),
    ("000001.json", b"[]", "not whole, or not JSON"),
    ("000001.json", b"{}", "lacks a key"),
    ("000001.json", b" " * 5000, "more than the 4096 bytes"),
    ("next", b"", "no number"),
    ("next", b"007\n", "no number"),
    ("sent.json", b"\0\0", "not whole, or not JSON"),
]


@pytest.mark.parametrize(("name", "data", "said"), DAMAGE)
def test_damage_is_named(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    put(box(tmp_path), b"abc", BASE, "1" * 64)
    (tmp_path / "outbox" / name).write_bytes(data)
    with pytest.raises(StoreError, match=said) as error:
        put(box(tmp_path), b"def", BASE, "2" * 64)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_changed_payload_is_found(tmp_path: Path) -> None:
    outbox = box(tmp_path)
    item = put(outbox, b"abc", BASE, "1" * 64)
    for data in (b"abd", b"ab", b"abcd", b""):
        (tmp_path / "outbox/000001.update").write_bytes(data)
        with pytest.raises(StoreError, match=r"000001\.update"):
            payload(outbox, item)


def test_a_card_of_another_number_is_not_taken(tmp_path: Path) -> None:
    outbox = box(tmp_path)
    put(outbox, b"abc", BASE, "1" * 64)
    shutil.copy(tmp_path / "outbox/000001.json", tmp_path / "outbox/000009.json")
    with pytest.raises(StoreError, match=r"000009\.json: is damaged"):
        outbox.items()


# the power


def used(folder: Path) -> list[int]:
    """Numbers that anybody may have seen."""
    return [json.loads(p.read_text())["sequence"] for p in folder.rglob("0*.json")]


@pytest.mark.parametrize("fate", FATES)
def test_put(tmp_path: Path, fate: str) -> None:
    for at in count(1):
        folder = tmp_path / str(at)
        first = put(box(folder), b"first", BASE, "1" * 64)
        if not cut(at, fate, lambda folder=folder: put(box(folder), b"second", BASE, "2" * 64)):
            break
        outbox = box(folder)
        found = outbox.items()
        assert found, at
        assert {payload(outbox, i) for i in found} <= {b"first", b"second"}, at
        if first not in found:
            assert payload(outbox, found[0]) == b"second", at
        third = put(outbox, b"third", OTHER, "3" * 64)
        assert third.sequence > max(numbers(found)), at
        assert sorted(p.name for p in (folder / "outbox").glob("*.update")) == [
            f"{i.sequence:06d}.update" for i in outbox.items()
        ]
        shutil.rmtree(folder)
    assert at > 15


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("act", ["acknowledged", "set_aside", "begin"])
def test_what_follows(tmp_path: Path, act: str, fate: str) -> None:
    more = ("no",) if act == "set_aside" else ()
    for at in count(1):
        folder = tmp_path / str(at)
        outbox = box(folder)
        item, other = put(outbox, b"first", BASE, "1" * 64), put(outbox, b"other", OTHER, "2" * 64)
        if not cut(at, fate, lambda o=outbox, item=item: getattr(o, act)(item, *more)):
            break
        outbox = box(folder)
        found = {i.sequence: i for i in outbox.items()}
        assert found[2] == other, at
        if 1 in found:
            assert payload(outbox, found[1]) == b"first", at
        elif act == "set_aside":
            assert numbers(outbox.aside()) == [1], at
            assert (folder / "outbox/aside/000001.update").read_bytes() == b"first", at
        else:
            assert (outbox.last() or {})["sequence"] == 1, at
        assert put(outbox, b"third", OTHER, "3" * 64).sequence == 3, at
        shutil.rmtree(folder)
    assert at > 3


def test_these_cuts_find_a_missing_sync(tmp_path: Path) -> None:
    """A payload that was not synced is found empty behind its card."""
    wrong = 0
    for at in count(1):
        folder = tmp_path / str(at)
        box(folder)
        if not cut(at, EMPTIED, lambda folder=folder: put(box(folder), b"only", BASE, "1" * 64), deaf=True):
            break
        try:
            outbox = box(folder)
            wrong += any(payload(outbox, i) != b"only" for i in outbox.items())
        except StoreError:
            wrong += 1
    assert wrong
