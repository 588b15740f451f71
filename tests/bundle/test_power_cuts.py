"""At whatever write, sync or rename the power goes: the slot in use is whole and tested, the old one or the new."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from power import EMPTIED, FATES, cut

from edgecl import bundle, files, slots


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here needs the real disk to sync: a killed process loses nothing that it wrote."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


FORK = multiprocessing.get_context("fork")


def fill(number: int) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "deep").mkdir()
        for i in range(3):
            files.write_chunks(folder / "deep" / f"{i}", [b"%d" % number * 100, b"%d" % i])

    return write


def content(slot: Path) -> int | None:
    """The number that a slot was filled with; None where it is not whole."""
    found = sorted(p.relative_to(slot).as_posix() for p in slot.rglob("*"))
    if found != ["deep", "deep/0", "deep/1", "deep/2"]:
        return None
    texts = [(slot / "deep" / f"{i}").read_text() for i in range(3)]
    number = texts[0][:1]
    return int(number) if texts == [number * 100 + str(i) for i in range(3)] else None


def in_use(root: Path) -> int | None:
    slot = slots.current(root)
    return None if slot is None else content(slot)


def put(root: Path, number: int) -> None:
    def test(folder: Path) -> None:
        assert content(folder) == number

    slots.install(root, fill(number), test)


def base(root: Path, installed: int) -> Path:
    """With 1, or with 1 and 2 of which 2 is in use, or empty."""
    root.mkdir()
    for number in range(1, installed + 1):
        put(root, number)
        slots.confirm(root)
    return root


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("installed", [0, 1, 2])
def test_install(tmp_path: Path, installed: int, fate: str) -> None:
    for at in count(1):
        root = base(tmp_path / str(at), installed)
        if not cut(at, fate, lambda root=root: put(root, 7)):
            break
        found = in_use(root)
        assert found in (installed or None, 7), at
        other = root / "slots" / ("b" if installed % 2 else "a")
        if found == 7 and installed:  # and there is a way back
            assert slots.on_trial(root) == 0, at
            assert content(slots.rollback(root)) == installed, at
        elif installed == 2:
            assert not other.exists() or content(other) in (1, 7), at
        put(root, 8)
        assert in_use(root) == 8
        assert sorted(p.name for p in (root / "slots").iterdir()) == (["a", "b"] if found else ["a"]), at
        shutil.rmtree(root)
    assert at > 20


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("tries", [0, slots.LIMIT])
def test_boot(tmp_path: Path, tries: int, fate: str) -> None:
    for at in count(1):
        root = base(tmp_path / str(at), 1)
        put(root, 2)
        for _ in range(tries):
            slots.boot(root)
        if not cut(at, fate, lambda root=root: slots.boot(root)):
            break
        assert in_use(root) in ((2,) if tries == 0 else (1, 2)), at
        for _ in range(slots.LIMIT + 1):  # a slot that never confirms is left, whatever was counted
            slots.boot(root)
        assert in_use(root) == 1, at
    assert at > 3


@pytest.mark.parametrize("fate", FATES)
def test_confirm_and_rollback(tmp_path: Path, fate: str) -> None:
    for action, outcomes in ((slots.confirm, (2,)), (slots.rollback, (1, 2))):
        for at in count(1):
            root = base(tmp_path / f"{action.__name__}{at}", 1)
            put(root, 2)
            if not cut(at, fate, lambda root=root, action=action: action(root)):
                break
            assert in_use(root) in outcomes, at
            action(root)
        assert at > 2


@pytest.mark.parametrize("fate", FATES)
def test_install_of_a_bundle(tmp_path: Path, made: Path, newer: Path, public: Path, fate: str) -> None:
    """The same with real ones, signature, unpacking and self-test among it."""
    digests = [bundle.verify(b, public).digest for b in (made, newer)]
    old = tmp_path / "old"
    bundle.install(made, old, public)
    for at in count(1):
        root = tmp_path / str(at)
        shutil.copytree(old, root, symlinks=True)
        if not cut(at, fate, lambda root=root: bundle.install(newer, root, public)):
            break
        slot = slots.current(root)
        assert slot is not None
        assert bundle.verify_folder(slot, public).digest in digests, at
        shutil.rmtree(root)
    assert at > 30


def keep_installing(root: Path, first: int) -> None:
    for n in count(first):
        put(root, n % 9 + 1)
        slots.confirm(root)


def test_kills(tmp_path: Path) -> None:
    draw, root = random.Random(1), base(tmp_path / "root", 1)
    seen = set()
    for n in range(25):
        child = FORK.Process(target=keep_installing, args=(root, n))
        child.start()
        time.sleep(draw.uniform(0.01, 0.06))
        child.kill()
        child.join()
        assert in_use(root) in range(1, 10)
        slots.confirm(root)
        seen.add(in_use(root))
    assert len(seen) > 2


def test_these_cuts_find_a_missing_sync(tmp_path: Path) -> None:
    found = []
    for at in count(1):
        root = base(tmp_path / str(at), 1)
        if not cut(at, EMPTIED, lambda root=root: put(root, 7), deaf=True):
            break
        found.append(in_use(root))
    assert None in found
