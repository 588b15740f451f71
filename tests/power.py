"""A disk whose power goes. What was not synced may be there, may be there empty, or may not be there at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

KEPT, EMPTIED, LOST = "kept", "emptied", "lost"
FATES = (KEPT, EMPTIED, LOST)
"""Of what was not synced: all of it stands; names stand, but files are empty; names come and go as if nothing had happened."""


class PowerCut(BaseException):
    """No handler of errors runs when the power goes; after it, no call changes the disk."""


class Power:
    """Patches the calls that change the disk; the power goes at the `at`-th, of which a write still writes half."""

    def __init__(self, at: int, *, deaf: bool = False) -> None:
        self.at, self.deaf, self.calls, self.off = at, deaf, 0, False  # deaf: no sync is heard
        self._undo: list[tuple[Path, Path, Callable[[], None]]] = []  # folder whose sync makes it last, path, how to take it back
        self._dirty: set[Path] = set()  # files with bytes that were not synced

    def __call__(self, patch: pytest.MonkeyPatch) -> None:
        for name in ("open", "write", "fsync", "replace", "mkdir", "unlink", "rmdir", "symlink"):
            patch.setattr(os, name, self._wrap(name, getattr(os, name)))

    def _wrap(self, name: str, real: Any) -> Any:
        act = getattr(self, f"_{name}", None)

        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "open" and not args[1] & os.O_CREAT:
                return real(*args, **kwargs)
            if self.off:
                raise PowerCut
            self.calls += 1
            if self.calls == self.at:
                self.off = True
                if name == "write":
                    self._write(real, args[0], bytes(args[1])[: len(args[1]) // 2])
                raise PowerCut
            return act(real, *args, **kwargs) if act else real(*args, **kwargs)

        return call

    def _record(self, path: Path, undo: Callable[[], None]) -> None:
        self._undo.append((path.parent, path, undo))

    def _open(self, real: Any, path: Any, *args: Any, **kwargs: Any) -> int:
        path = Path(path)
        if not path.exists():
            self._record(path, lambda: path.unlink(missing_ok=True))
            self._dirty.add(path)
        return int(real(path, *args, **kwargs))

    def _write(self, real: Any, fd: int, data: Any) -> int:
        self._dirty.add(Path(os.readlink(f"/proc/self/fd/{fd}")))
        return int(real(fd, data))

    def _fsync(self, real: Any, fd: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        if not self.deaf:
            self._dirty.discard(path)
            self._undo = [u for u in self._undo if u[0] != path]

    def _mkdir(self, real: Any, path: Any, *args: Any, **kwargs: Any) -> None:
        real(path, *args, **kwargs)
        self._record(Path(path), lambda: shutil.rmtree(path, ignore_errors=True))

    def _symlink(self, real: Any, target: Any, path: Any) -> None:
        real(target, path)
        self._record(Path(path), lambda: Path(path).unlink(missing_ok=True))

    def _unlink(self, real: Any, path: Any, *, dir_fd: int | None = None) -> None:
        full = _full(path, dir_fd)
        restore = _keep(full)
        real(path, dir_fd=dir_fd)
        self._record(full, restore)

    def _rmdir(self, real: Any, path: Any, *, dir_fd: int | None = None) -> None:
        full = _full(path, dir_fd)
        real(path, dir_fd=dir_fd)
        self._record(full, lambda: full.mkdir(exist_ok=True))

    def _replace(self, real: Any, source: Any, target: Any) -> None:
        source, target = Path(source), Path(target)
        restore = _keep(target)
        real(source, target)
        moved = {p: target / p.relative_to(source) for p in self._dirty if p == source or source in p.parents}
        self._dirty = {moved.get(p, p) for p in self._dirty}

        def undo() -> None:
            os.rename(target, source)
            restore()

        self._record(target, undo)

    def settle(self, fate: str) -> None:
        """The disk as it is found when the power is back. Call it when nothing is patched any more."""
        if fate == EMPTIED:
            for path in self._dirty:
                if path.is_file() and not path.is_symlink():
                    path.write_bytes(b"")
        if fate == LOST:
            for _, _, undo in reversed(self._undo):
                undo()


def cut(at: int, fate: str, act: Callable[[], object], *, deaf: bool = False) -> bool:
    """Whether the power went in `act` at call `at`; the disk is as it is found afterwards."""
    power = Power(at, deaf=deaf)
    with pytest.MonkeyPatch.context() as patch:
        power(patch)
        with suppress(PowerCut):
            act()
    if power.off:
        power.settle(fate)
    return power.off


def _full(path: Any, dir_fd: int | None) -> Path:
    return Path(path) if dir_fd is None else Path(os.readlink(f"/proc/self/fd/{dir_fd}"), path)


def _keep(path: Path) -> Callable[[], None]:
    """How to make again what is at `path` now."""
    if path.is_symlink():
        said = os.readlink(path)
        return lambda: path.symlink_to(said)
    if path.is_file():
        data, mode = path.read_bytes(), path.stat().st_mode

        def write() -> None:
            if path.parent.is_dir():
                path.write_bytes(data)
                path.chmod(mode)

        return write
    if path.is_dir():
        return lambda: path.mkdir(exist_ok=True)
    return lambda: None
