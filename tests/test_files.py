"""Files that are whole or absent: after a failure at any call, beside other writers, and with room for a part only."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecl import files
from edgecl.types import StoreError

FAILING = ("open", "write", "fsync", "replace")  # all that write_atomic asks of the system before the rename is done


def fail(monkeypatch: pytest.MonkeyPatch, name: str, code: int) -> None:
    def call(*args: Any, **kwargs: Any) -> Any:
        raise OSError(code, os.strerror(code), "elsewhere")

    monkeypatch.setattr(os, name, call)


@settings(max_examples=30, deadline=None)
@given(data=st.binary(max_size=300), old=st.none() | st.binary(max_size=300))
def test_a_write_replaces_all(tmp_path_factory: pytest.TempPathFactory, data: bytes, old: bytes | None) -> None:
    path = tmp_path_factory.mktemp("a") / "ledger.json"
    if old is not None:
        path.write_bytes(old)
    files.write_atomic(path, data)
    assert path.read_bytes() == data
    assert os.listdir(path.parent) == ["ledger.json"]
    assert files.sha256(path) == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("name", FAILING)
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_failed_write_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, old: bytes | None
) -> None:
    path = tmp_path / "ledger.json"
    if old is not None:
        path.write_bytes(old)
    with monkeypatch.context() as patch:
        fail(patch, name, errno.ENOSPC)
        with pytest.raises(StoreError) as e:
            files.write_atomic(path, b"new")
    assert str(e.value) == f"{path}: no space left on device"
    assert os.listdir(tmp_path) == ([] if old is None else ["ledger.json"])
    assert old is None or path.read_bytes() == old


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.EFBIG, "file too large"),
        (errno.EDQUOT, "disk quota exceeded"),
        (errno.EROFS, "read-only file system"),
        (errno.EACCES, "permission denied"),
    ],
)
def test_the_reason_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, reason: str) -> None:
    fail(monkeypatch, "write", code)
    with pytest.raises(StoreError, match=f"a.json: {reason}$"):
        files.write_atomic(tmp_path / "a.json", b"new")


def test_short_writes_are_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may take less than it is given."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    files.write_atomic(tmp_path / "a", b"0123456789")
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_two_writers_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    path, texts = tmp_path / "a", [bytes([i]) * 5000 for i in range(4)]
    threads = [threading.Thread(target=lambda t=t: [files.write_atomic(path, t) for _ in range(10)]) for t in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in texts
    assert os.listdir(tmp_path) == ["a"]


def test_a_new_file_has_the_mode_of_any_other(tmp_path: Path) -> None:
    """A temporary file's 0600 would hide the run from whoever serves its report."""
    files.write_atomic(tmp_path / "a", b"")
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def folder(path: Path) -> Path:
    (path / "deep").mkdir(parents=True)
    (path / "deep" / "a").write_bytes(b"a")
    (path / "b").write_bytes(b"b")
    return path


def test_replace_dir_syncs_all_before_the_name_and_the_name_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []  # inodes that are synced, 0 for the rename
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (steps.append(os.fstat(fd).st_ino), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (steps.append(0), replace(a, b)))
    tmp = folder(tmp_path / ".x.tmp")
    within = {p.stat().st_ino for p in (tmp, tmp / "b", tmp / "deep", tmp / "deep" / "a")}
    files.replace_dir(tmp, tmp_path / "x")
    assert set(steps[:-2]) == within
    assert steps[-2:] == [0, tmp_path.stat().st_ino]
    assert (tmp_path / "x" / "deep" / "a").read_bytes() == b"a"


def test_replace_dir_overwrites_nothing(tmp_path: Path) -> None:
    final = folder(tmp_path / "x")
    (final / "b").write_bytes(b"mine")
    with pytest.raises(StoreError, match=r"x: directory not empty$"):
        files.replace_dir(folder(tmp_path / ".x.tmp"), final)
    assert (final / "b").read_bytes() == b"mine"
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_failed_replace_dir_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    tmp = folder(tmp_path / ".x.tmp")
    fail(monkeypatch, name, errno.EIO)
    with pytest.raises(StoreError, match=r"x: input/output error$"):
        files.replace_dir(tmp, tmp_path / "x")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_synced_is_no_error_but_a_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").touch()
    fail(monkeypatch, "fsync", errno.EINVAL)
    files.sync(tmp_path)
    with pytest.raises(OSError, match=r"Invalid argument"):
        files.sync(tmp_path / "a")


def test_a_missing_file_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nothing: no such file or directory$"):
        files.sha256(tmp_path / "nothing")
