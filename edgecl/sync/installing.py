"""A pulled bundle into the idle slot, with what was learned here: runs in a process of its own (child.py).

The slot in use keeps its lessons folder locked meanwhile, so that nothing is learned there that would stay behind.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edgecl import bundle, files, runfolder, slots
from edgecl.bundle.selftest import check
from edgecl.model import open_model
from edgecl.runtime import lessons
from edgecl.runtime import place as places
from edgecl.sync import child
from edgecl.sync.packing import newest_of_its_own, snapshot_of
from edgecl.sync.place import Config, Place, lessons_of
from edgecl.types import EdgeclError, StoreError

CARRIED = "carried.json"
CARRIED_BYTES = 64 << 10


def main(given: dict[str, Any]) -> dict[str, Any]:
    """`confirm`: a second self-test of the slot in use ends its trial. Else `bundle`, `key`, `down` are installed below `root`.

    → `slot`, `tested` and `carried`; or `again`: why something has to be packed first.
    """
    place, config = Place(Path(given["root"])), Config(**given["config"])
    if given.get("confirm"):
        return _confirm(place, config)
    old = place.slot()
    if old is None:
        done = bundle.install(Path(given["bundle"]), place.root, Path(given["key"]), venv=config.venv)
        return {"slot": done.slot.name, "tested": done.tested, "carried": {}}
    if config.lessons:
        real(lessons_of(config, old))
    with _quiet(lessons_of(config, old)) as folder:
        newest = newest_of_its_own(old, folder)
        if newest is not None and snapshot_of(newest) not in given["packed"]:
            return {"again": f"lesson {newest.name} is not packed yet"}
        return _install(place, config, old, folder, given)


def _install(place: Place, config: Config, old: Path, folder: Path, given: dict[str, Any]) -> dict[str, Any]:
    out = Path(given["down"]) / CARRIED
    files.write_atomic(out, b"{}")
    told = {"old": str(old), "old_lessons": str(folder), "config": _tokenless(given), "out": str(out), "relearn": config.relearn}
    command = [*child.python("from edgecl.sync.installing import carry_into; carry_into()"), json.dumps(told)]
    done = bundle.install(Path(given["bundle"]), place.root, Path(given["key"]), venv=config.venv, command=command)
    carried = json.loads(files.read_bounded(out, CARRIED_BYTES))
    return {"slot": done.slot.name, "tested": done.tested, "carried": carried}


def _tokenless(given: dict[str, Any]) -> dict[str, Any]:
    """A command's arguments are for every user to read."""
    return {**given["config"], "token": ""}


def carry_into() -> None:
    """The last step before a switch, with the filled slot behind the command: what was learned comes along.

    Where the bundle brings its own program, that one does it: it knows the format of what it will open.
    """
    child.end_with_parent()
    told, slot = json.loads(sys.argv[1]), Path(sys.argv[2])
    own = slot / "venv" / "bin" / "python"
    if own.exists() and not told.get("own"):
        code = "from edgecl.sync.installing import carry_into; carry_into()"
        os.execv(own, [str(own), "-I", "-c", code, json.dumps({**told, "own": True}), str(slot)])
    from edgecl.sync.carry import carry

    try:
        config = Config(**told["config"])
        folder, before = lessons_of(config, slot), Path(told["old_lessons"])
        if config.lessons:
            real(folder)
        done = carry(Path(told["old"]), before, slot, folder, told["relearn"])
        hand_over(config, folder, before)
        files.write_atomic(Path(told["out"]), json.dumps(done._asdict()).encode())
    except EdgeclError as e:
        sys.exit(" ".join(str(e).split()))  # on standard error; the code is 1


def hand_over(config: Config, *folders: Path) -> None:
    """Gives what root wrote in folders of `config.lessons` to the user who owns that, and who learns there.

    That user can put links there and rename what is there at any time. So nothing is followed, what is given away was opened
    first, and a file that has another name somewhere stays root's. Raises StoreError where a folder is a link.
    """
    if not config.lessons or os.geteuid():
        return
    with files.naming(Path(config.lessons)):
        top = os.open(config.lessons, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for folder in folders:
                real(folder)
                with suppress(FileNotFoundError):  # there was nothing to carry
                    _give(top, folder.name, os.fstat(top))
        finally:
            os.close(top)


def real(folder: Path) -> None:
    """StoreError where the folder of lessons is a link: what root writes there would come to lie somewhere else."""
    if folder.is_symlink():
        raise StoreError(f"{folder}: is a link; lessons are kept in a folder of their own")


def _give(top: int, name: str, owner: os.stat_result) -> None:
    """All below `name` in the folder that `top` has open."""
    for _, _, names, fd in os.fwalk(name, follow_symlinks=False, dir_fd=top):
        _own(fd, owner)
        for entry in names:
            with suppress(FileNotFoundError):
                if stat.S_ISREG(os.stat(entry, dir_fd=fd, follow_symlinks=False).st_mode):
                    _give_file(fd, entry, owner)


def _give_file(folder: int, name: str, owner: os.stat_result) -> None:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    try:
        found = os.fstat(fd)
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
            _own(fd, owner)
    finally:
        os.close(fd)


def _own(fd: int, owner: os.stat_result) -> None:
    if os.fstat(fd).st_uid == 0:
        os.fchown(fd, owner.st_uid, owner.st_gid)


@contextmanager
def _quiet(folder: Path) -> Iterator[Path]:
    """Nobody learns in the folder meanwhile. Raises StoreError where somebody does."""
    if not folder.is_dir():  # who begins now makes it; there is nothing in it yet
        yield folder
        return
    try:
        with runfolder.lock_run(folder):
            yield folder
    except StoreError as e:
        if "is in use" not in str(e):
            raise
        raise StoreError(
            f"{e}: it learns there; the new model is installed once it has stopped (see 'before' in config.json)"
        ) from None


def _confirm(place: Place, config: Config) -> dict[str, Any]:
    """The bundle's self-test once more, and the newest lesson opened: then the slot in use is on trial no longer."""
    slot = slots.boot(place.root)  # counts as a start: after three that failed the other slot is in use again
    tested = check(slot, bundle.read_manifest(slot))
    found = places.find(slot)
    newest = lessons.newest(found, lessons_of(config, slot))
    if newest is not None:
        open_model(newest)
    slots.confirm(place.root)
    return {"slot": slot.name, "tested": tested}
