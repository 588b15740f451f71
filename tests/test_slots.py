"""Two slots: which is filled, when a trial ends, what is refused. tests/bundle/test_power_cuts.py lets the power go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgecl import slots
from edgecl.types import DataError, StoreError


def put(root: Path, text: str) -> Path:
    return slots.install(root, lambda folder: (folder / "f").write_text(text), lambda folder: None)


def in_use(root: Path) -> str:
    return (root / "current/f").read_text()


def test_slots_take_turns(tmp_path: Path) -> None:
    for number, name in enumerate("abab"):
        assert put(tmp_path, str(number)) == tmp_path / "slots" / name
        assert in_use(tmp_path) == str(number)
        assert slots.confirm(tmp_path) == tmp_path / "slots" / name
    assert os.readlink(tmp_path / "current") == "slots/b"  # relative: the root may be moved


def test_the_first_is_not_on_trial(tmp_path: Path) -> None:
    put(tmp_path, "1")
    assert slots.on_trial(tmp_path) is None
    for _ in range(9):
        assert slots.boot(tmp_path) == tmp_path / "slots/a"


def test_a_slot_that_never_confirms_is_left(tmp_path: Path) -> None:
    put(tmp_path, "1")
    put(tmp_path, "2")
    found = []
    for _ in range(slots.LIMIT + 2):
        slots.boot(tmp_path)
        found.append(in_use(tmp_path))
    assert found == ["2"] * slots.LIMIT + ["1", "1"]
    assert slots.on_trial(tmp_path) is None
    put(tmp_path, "3")  # into the slot that failed
    assert (in_use(tmp_path), slots.rollback(tmp_path).name) == ("3", "a")


def test_a_slot_that_confirms_stays(tmp_path: Path) -> None:
    put(tmp_path, "1")
    put(tmp_path, "2")
    slots.boot(tmp_path)
    assert slots.on_trial(tmp_path) == 1
    slots.confirm(tmp_path)
    for _ in range(9):
        slots.boot(tmp_path)
    assert in_use(tmp_path) == "2"


def test_nothing_is_installed_over_the_only_good_slot(tmp_path: Path) -> None:
    put(tmp_path, "1")
    put(tmp_path, "2")
    with pytest.raises(StoreError, match="slots/b: is on trial"):
        put(tmp_path, "3")
    slots.rollback(tmp_path)
    put(tmp_path, "3")
    assert (in_use(tmp_path), (tmp_path / "slots/a/f").read_text()) == ("3", "1")


@pytest.mark.parametrize("step", ["fill", "test"])
def test_what_fails_leaves_both_slots(tmp_path: Path, step: str) -> None:
    def fails(folder: Path) -> None:
        raise DataError(f"no good: {folder.name}")

    put(tmp_path, "1")
    put(tmp_path, "2")
    slots.confirm(tmp_path)
    with pytest.raises(DataError, match=r"no good: \.a\.tmp"):
        slots.install(tmp_path, **{"fill": lambda f: None, "test": lambda f: None, step: fails})
    assert (in_use(tmp_path), (tmp_path / "slots/a/f").read_text()) == ("2", "1")
    assert sorted(p.name for p in (tmp_path / "slots").iterdir()) == ["a", "b"]


def test_only_one_at_a_time(tmp_path: Path) -> None:
    put(tmp_path, "1")

    def meanwhile(folder: Path) -> None:
        with pytest.raises(StoreError, match="another process"):
            put(tmp_path, "3")

    slots.install(tmp_path, meanwhile, lambda folder: None)


@pytest.mark.parametrize("text", ["", "b", "b x\n", "c 1\n", "b 1", "b -1\n", "b 1\n\n", "\0" * 99])
def test_a_damaged_count_ends_the_trial_at_the_next_start(tmp_path: Path, text: str) -> None:
    put(tmp_path, "1")
    put(tmp_path, "2")
    (tmp_path / "boot-tries").write_text(text)
    assert slots.boot(tmp_path) == tmp_path / "slots/a"


def test_no_other_slot(tmp_path: Path) -> None:
    for action in (slots.rollback, slots.boot, slots.confirm):
        with pytest.raises(StoreError, match="nothing is installed"):
            action(tmp_path)
    put(tmp_path, "1")
    with pytest.raises(StoreError, match="no other slot"):
        slots.rollback(tmp_path)


@pytest.mark.parametrize("target", ["/etc", "slots/c", "slots", "../a"])
def test_a_link_that_leads_elsewhere(tmp_path: Path, target: str) -> None:
    (tmp_path / "current").symlink_to(target)
    with pytest.raises(StoreError, match="no slot"):
        slots.current(tmp_path)
    with pytest.raises(StoreError, match="no slot"):
        put(tmp_path, "1")


def test_a_current_that_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "current").mkdir()
    with pytest.raises(StoreError, match="no link"):
        put(tmp_path, "1")
