"""The folder of lessons: what waits for the next one survives whatever ends the process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecl.card import Card
from edgecl.runtime import lessons
from edgecl.runtime.lessons import Pending, Sample
from edgecl.types import Preprocess, StoreError

CARD = Card("n", (1, 2, 3), ("0",), (0,), Preprocess((0.5,), (0.5,)), "a" * 64, "0.1")


def some(n: int, first: int = 0) -> list[Sample]:
    return [Sample(np.full((1, 2, 3), first + i, np.uint8), f"class {first + i}") for i in range(n)]


def gathered(folder: Path, samples: list[Sample]) -> Pending:
    pending = Pending(folder, CARD)
    pending.recover()
    for sample in samples:
        pending.add(sample)
    return pending


def same(a: list[Sample], b: list[Sample]) -> bool:
    return [s.label for s in a] == [s.label for s in b] and all(np.array_equal(p.x, q.x) for p, q in zip(a, b, strict=True))


def test_a_new_process_finds_what_one_gathered(tmp_path: Path) -> None:
    gathered(tmp_path, some(3))  # not closed: as after a kill
    again = Pending(tmp_path, CARD)
    assert same(again.recover(), some(3))
    assert again.number == 1


def test_a_torn_line_is_left_out(tmp_path: Path) -> None:
    gathered(tmp_path, some(3)).close()
    path = tmp_path / "pending-001.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    assert same(Pending(tmp_path, CARD).recover(), some(2))


def test_lines_after_a_torn_one_count(tmp_path: Path) -> None:
    gathered(tmp_path, some(2)).close()
    path = tmp_path / "pending-001.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    gathered(tmp_path, some(1, first=7)).close()
    assert same(Pending(tmp_path, CARD).recover(), [*some(1), *some(1, first=7)])


def test_what_a_lesson_has_taken_counts_no_more(tmp_path: Path) -> None:
    pending = gathered(tmp_path, some(2))
    pending.turn(2)
    pending.add(some(1, first=9)[0])
    assert same(Pending(tmp_path, CARD).recover(), [*some(2), *some(1, first=9)])  # lesson 1 has not begun yet
    (tmp_path / "001").mkdir()  # killed before it could remove the file
    again = Pending(tmp_path, CARD)
    assert same(again.recover(), some(1, first=9))
    assert [p.name for p in tmp_path.glob("pending-*")] == ["pending-002.jsonl"]
    again.forget(2)
    assert list(tmp_path.glob("pending-*")) == []


@pytest.mark.parametrize("line", [b"{}\n", b'{"label": "a", "pixels": "eJw="}\n', b'{"label": "", "pixels": ""}\n', b"what\n"])
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    gathered(tmp_path, some(1)).close()
    path = tmp_path / "pending-001.jsonl"
    path.write_bytes(path.read_bytes() + line)
    with pytest.raises(StoreError, match=r"pending-001\.jsonl: line 2: "):
        Pending(tmp_path, CARD).recover()


def test_only_the_newest_lessons_stay(tmp_path: Path) -> None:
    for n in (1, 2, 3, 1000):
        lessons.at(tmp_path, n).mkdir()
        (lessons.at(tmp_path, n) / "file").touch()
    (tmp_path / "002.stopped").mkdir()
    lessons.prune(tmp_path)
    assert lessons.numbers(tmp_path) == [3, 1000]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["002.stopped", "003", "1000"]
