"""F3: the run folder around its snapshots: config.yaml, metrics.jsonl, ledger.json and the lock.

Every function raises StoreError in one line where a file can't be written or read; if the disk is to blame and the run
has a good snapshot, the line names it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from edgecl import files
from edgecl.store import naming_last_good
from edgecl.types import StoreError

CONFIG, METRICS, LOCK = "config.yaml", "metrics.jsonl", ".lock"


class _Dumper(yaml.SafeDumper):
    """No anchors: a list that is used twice is written twice, for people to read."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """PyYAML reads three rare line breaks back as spaces unless they are escaped."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if set(text) & set("\x85\u2028\u2029") else None)


_Dumper.add_representer(str, _represent_text)


def create_run(path: Path, config: Mapping[str, Any]) -> None:
    """Makes the folder with its config.yaml (plain values; tuples come back as lists). Call it before `lock_run`.

    Raises StoreError if the folder holds a run, or is no run but not empty.
    """
    try:
        text = yaml.dump(dict(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
        data = text.encode()
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        raise StoreError(f"{path / CONFIG}: can't hold the config: {' '.join(f'{e}'.split())}") from e
    with files.naming(path):
        absent = [p for p in (path, *path.parents) if not p.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for made in absent:
            files.sync(made.parent)
    _check_free(path)  # before the lock, which leaves a file
    with lock_run(path):
        _check_free(path)  # another process may have been faster
        files.write_atomic(path / CONFIG, data)


def _check_free(path: Path) -> None:
    with files.naming(path):
        names = os.listdir(path)
    if CONFIG in names:
        raise StoreError(f"{path}: holds a run already; resume it, or name another folder")
    # What a killed `create_run` leaves does not count.
    others = [n for n in names if n != LOCK and not re.fullmatch(rf"\.{re.escape(CONFIG)}\..*\.tmp", n)]
    if others:
        raise StoreError(f"{path}: is no run folder, and not empty (it holds {min(others)!r}); name another")


def read_config(run: Path) -> dict[str, Any]:
    """config.yaml as it was given to `create_run`, but with lists for tuples."""
    path = run / CONFIG
    if run.is_dir() and not path.exists():
        raise StoreError(f"{run}: is no run folder (no {CONFIG})")
    with files.naming(path):
        data = path.read_bytes()
    try:
        config = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError) as e:
        raise StoreError(f"{path}: is not YAML: {' '.join(str(e).split())}") from e
    if not isinstance(config, dict):
        raise StoreError(f"{path}: holds no keys and values")
    return config


def write_json(run: Path, name: str, obj: Any) -> None:
    """Writes `obj` as the file `name` (ledger.json) of the run folder, whole or not at all."""
    try:
        text = json.dumps(obj, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
        data = text.encode()
    except (TypeError, ValueError, RecursionError) as e:
        raise StoreError(f"{run / name}: not JSON: {e}") from e
    with naming_last_good(run):
        files.write_atomic(run / name, data)


@contextmanager
def lock_run(run: Path) -> Iterator[None]:
    """No other process is in a `lock_run` of the same folder during the block. A killed process holds nothing,
    unless a child that it forked meanwhile lives on.

    Raises StoreError, at once, that names the process that holds it.
    """
    path = run / LOCK
    with files.naming(path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with files.naming(path):
            _take(run, fd)
        yield
    finally:
        os.close(fd)  # the file stays: removing it would let two processes lock two files of that name


def _take(run: Path, fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(fd, 20).decode(errors="replace").strip()
        raise StoreError(f"{run}: is in use by process {holder or '(unknown)'}") from None
    os.truncate(fd, 0)
    files.write_all(fd, f"{os.getpid()}\n".encode())


class Metrics:
    """metrics.jsonl: one line of JSON an event, written at once. `offset` is its length in bytes so far."""

    def __init__(self, run: Path, fd: int, offset: int) -> None:
        self._run, self._path, self._fd = run, run / METRICS, fd
        self.offset = offset

    @classmethod
    def open(cls, run: Path, offset: int | None = None) -> Metrics:
        """Opens the file to append to, and makes it if absent; an end that a crash tore is cut off.

        With `offset`, as a snapshot remembers it, all that was written later is cut off too, so that a resumed run
        has the file of an unbroken one. Raises StoreError if the file holds no line that ends there.
        """
        path = run / METRICS
        with naming_last_good(run), files.naming(path):
            path.touch()
            end = _line_end(path, sys.maxsize if offset is None else offset)
            if offset not in (None, end):
                raise StoreError(f"{path}: is damaged: no line ends at byte {offset}, where the snapshot goes on")
            os.truncate(path, end)
            files.sync(run)
            return cls(run, os.open(path, os.O_WRONLY | os.O_APPEND), end)

    def write(self, event: Mapping[str, Any]) -> None:
        """Appends one event, of JSON's types and finite numbers; all of it, or nothing if StoreError is raised."""
        try:
            line = json.dumps(dict(event), allow_nan=False).encode() + b"\n"
        except (TypeError, ValueError, RecursionError) as e:
            raise StoreError(f"{self._path}: not JSON: {e}") from e
        with naming_last_good(self._run), files.naming(self._path):
            try:
                files.write_all(self._fd, line)
            except OSError:
                with suppress(OSError):  # what failed first is what counts; the next `open` heals the rest
                    os.ftruncate(self._fd, self.offset)
                raise
        self.offset += len(line)

    def sync(self) -> None:
        """Returns once all events are on the disk. Call it before a snapshot remembers `offset`."""
        with naming_last_good(self._run), files.naming(self._path):
            os.fsync(self._fd)

    def close(self) -> None:
        """No write may follow."""
        os.close(self._fd)

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _line_end(path: Path, limit: int) -> int:
    """Where the last whole line ends that ends at `limit` or before, in bytes."""
    end = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n") or end + len(line) > limit:
                break
            end += len(line)
    return end


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """All events; a torn last line is left out, and a run without the file has none. StoreError names a bad line."""
    path = run / METRICS
    with files.naming(path):
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [_event(path, number, line) for number, line in enumerate(lines, 1)]


def _event(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict):
        raise StoreError(f"{path}: line {number} is no JSON object")
    return event
