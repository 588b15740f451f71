"""F4: two slots, `slots/a` and `slots/b`, of which the link `current` names one: an update is there whole or not at all.

An update fills the slot that is not in use, has it tested, and renames a link. At whatever moment the power goes, `current`
names a slot that is whole and tested: the old one or the new. A new slot is on trial until `confirm`: `boot`, called before
each start of what runs in it, counts, and returns to the old slot when the tries are used up. What is in a slot does not
matter here. POSIX only.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from edgecl import files
from edgecl.types import StoreError

NAMES = ("a", "b")
SLOTS, CURRENT, TRIES, LOCK = "slots", "current", "boot-tries", ".slots.lock"
LIMIT = 3  # starts of a slot on trial

Step = Callable[[Path], object]
"""Is given a slot's folder; raises what it likes where the slot is no good."""


def current(root: Path) -> Path | None:
    """The slot in use, or None where nothing is installed. Raises StoreError where `current` is not such a link."""
    link = root / CURRENT
    if not link.is_symlink():
        if link.exists():
            raise StoreError(f"{link}: is no link to a slot")
        return None
    with files.naming(link):
        name = os.readlink(link)
    if name not in [f"{SLOTS}/{n}" for n in NAMES]:
        raise StoreError(f"{link}: leads to {name!r}, which is no slot")
    return root / name


def install(root: Path, fill: Step, test: Step) -> Path:
    """Makes what `fill` writes into an empty folder, and `test` then accepts, the slot in use; the slot's path.

    What either raises goes on to the caller, and the slot in use stays. If there was one, the new slot is on trial.
    Raises StoreError where the disk fails, another process installs, or the slot in use is on trial itself: the other
    one is then the only one that is known to work.
    """
    with files.naming(root):
        (root / SLOTS).mkdir(parents=True, exist_ok=True)
    with _locked(root):
        was = current(root)
        if was is not None and on_trial(root) is not None:
            raise StoreError(f"{was}: is on trial and not confirmed yet; confirm it, or roll back, before the next install")
        new = _other(root, was)
        _sweep(root)
        _place(new, fill, test)
        if was is not None:
            _write_tries(root, new, 0)  # first: it says nothing of the slot in use until the link is renamed
        _switch(root, new)
    return new


def boot(root: Path, limit: int = LIMIT) -> Path:
    """Counts a start of the slot in use if it is on trial, and returns to the other slot at the start after `limit` of them.

    The slot to start. Raises StoreError where nothing is installed.
    """
    with _locked(root):
        slot, tries = _must(root), on_trial(root)
        if tries is None:
            return slot
        if tries >= limit and _other(root, slot).is_dir():
            return _return(root, slot)
        _write_tries(root, slot, tries + 1)
        return slot


def confirm(root: Path) -> Path:
    """The slot in use works: it is on trial no longer. Raises StoreError where nothing is installed."""
    with _locked(root):
        slot = _must(root)
        _end_trial(root)
        return slot


def rollback(root: Path) -> Path:
    """Makes the other slot the one in use; its path. Raises StoreError where there is none."""
    with _locked(root):
        return _return(root, _must(root))


def on_trial(root: Path) -> int | None:
    """Starts of the slot in use so far if it is on trial, else None."""
    path, slot = root / TRIES, current(root)
    if slot is None or not path.exists():
        return None
    with files.naming(path), path.open("rb") as file:
        text = file.read(64).decode("ascii", "replace")
    match = re.fullmatch(r"([ab]) ([0-9]{1,9})\n", text)
    if not match:  # a damaged card: better one start too few than a loop without end
        return LIMIT
    return int(match[2]) if match[1] == slot.name else None


def _other(root: Path, slot: Path | None) -> Path:
    return root / SLOTS / (NAMES[1] if slot is not None and slot.name == NAMES[0] else NAMES[0])


def _must(root: Path) -> Path:
    slot = current(root)
    if slot is None:
        raise StoreError(f"{root}: nothing is installed there")
    return slot


def _return(root: Path, slot: Path) -> Path:
    other = _other(root, slot)
    if not other.is_dir():
        raise StoreError(f"{root}: there is no other slot to return to")
    _switch(root, other)
    _end_trial(root)
    return other


def _sweep(root: Path) -> None:
    """Takes away what killed installs left: the space may be needed now."""
    with files.naming(root / SLOTS):
        for path in (root / SLOTS).glob(".[ab].*"):
            shutil.rmtree(path)


def _place(slot: Path, fill: Step, test: Step) -> None:
    """Fills, tests and syncs a folder, and only then gives it the slot's name, in place of what had it."""
    tmp, old = slot.with_name(f".{slot.name}.tmp"), slot.with_name(f".{slot.name}.old")
    try:
        with files.naming(slot):
            tmp.mkdir()
        fill(tmp)
        test(tmp)
        _sync_all(tmp)
        with files.naming(slot):
            if slot.is_dir():  # loses its name before its first file, so that it is never seen in part
                os.replace(slot, old)
            os.replace(tmp, slot)
            files.sync(slot.parent)
    finally:
        for path in (tmp, old):
            shutil.rmtree(path, ignore_errors=True)


def _sync_all(folder: Path) -> None:
    with files.naming(folder):
        for at, _, names in os.walk(folder, topdown=False):
            for path in (*(Path(at, n) for n in names), Path(at)):
                if not path.is_symlink():
                    files.sync(path)


def _switch(root: Path, slot: Path) -> None:
    link, tmp = root / CURRENT, root / f".{CURRENT}.tmp"
    with files.naming(link):
        with suppress(FileNotFoundError):
            os.unlink(tmp)
        os.symlink(f"{SLOTS}/{slot.name}", tmp)
        os.replace(tmp, link)
        files.sync(root)


def _write_tries(root: Path, slot: Path, tries: int) -> None:
    files.write_atomic(root / TRIES, f"{slot.name} {tries}\n".encode())


def _end_trial(root: Path) -> None:
    with files.naming(root / TRIES):
        with suppress(FileNotFoundError):
            os.unlink(root / TRIES)
        files.sync(root)


def _locked(root: Path) -> AbstractContextManager[None]:
    """No other process is in such a block of the same root. Raises StoreError at once where one is."""
    return files.locked(root / LOCK, f"{root}: another process is installing there")
