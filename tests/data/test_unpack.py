"""Unpacking, from an archive put there by hand: what is kept, and archives that mean harm."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from edgecl.data.fetch import Archive, Progress, fetch
from edgecl.types import DataError

FILES = {"a.bin": bytes(range(256)) * 1000, "b.bin": b"b" * 1000}


def member(name: str, content: bytes = b"", **attributes: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, content


def pack(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


A, B = (member(f"set/{name}", content) for name, content in FILES.items())
GOOD = pack(member("set", type=tarfile.DIRTYPE), member("set/readme.html", b"?"), A, B)


def unpacked(content: bytes, root: Path) -> list[Progress]:
    """Nothing listens at the archive's address: asking for it would fail."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "set.tar.gz").write_bytes(content)
    hashes = {"sha256": hashlib.sha256(content).hexdigest()}
    return list(
        fetch(
            Archive("http://nowhere.invalid/set.tar.gz", len(content), hashes, "set", {n: len(c) for n, c in FILES.items()}), root
        )
    )


def read(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_an_archive_put_there_by_hand_is_used_and_kept(tmp_path: Path) -> None:
    assert unpacked(GOOD, tmp_path)[-1].path == tmp_path / "set"
    assert read(tmp_path / "set") == FILES
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set", "set.tar.gz"]


def test_a_wrong_archive_put_there_by_hand_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "set.tar.gz").write_bytes(GOOD)
    with pytest.raises(DataError, match=r"its md5 is .*; remove it"):
        list(fetch(Archive("http://nowhere.invalid/set.tar.gz", len(GOOD), {"md5": "0" * 32}, "set", {}), tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["set.tar.gz"]


def test_an_incomplete_folder_is_made_whole_and_keeps_what_else_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.bin").write_bytes(b"half")
    (tmp_path / "set" / "mine.txt").write_bytes(b"mine")
    unpacked(GOOD, tmp_path)
    assert read(tmp_path / "set") == FILES | {"mine.txt": b"mine"}


def test_what_a_killed_run_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / "set.unpacking").mkdir()
    (tmp_path / "set.unpacking" / "a.bin").write_bytes(b"half")
    unpacked(GOOD, tmp_path)
    assert read(tmp_path / "set") == FILES
    assert not (tmp_path / "set.unpacking").exists()


HARM: dict[str, tuple[bytes, str]] = {
    "missing": (pack(A), "has no set/b.bin"),
    "escape": (pack(A, member("set/../../b.bin", b"b")), "has no set/b.bin"),
    "elsewhere": (pack(A, member("../set/b.bin", b"b"), member("/set/b.bin", b"b")), "has no set/b.bin"),
    "symbolic link": (
        pack(A, member("set/b.bin", type=tarfile.SYMTYPE, linkname="a.bin")),
        "set/b.bin is no file of at most 1000",
    ),
    "hard link": (pack(A, member("set/b.bin", type=tarfile.LNKTYPE, linkname="set/a.bin")), "set/b.bin is no file"),
    "folder": (pack(A, member("set/b.bin", type=tarfile.DIRTYPE)), "set/b.bin is no file"),
    "device": (pack(A, member("set/b.bin", type=tarfile.CHRTYPE)), "set/b.bin is no file"),
    "too long": (pack(A, member("set/b.bin", b"b" * 1001)), "set/b.bin is no file of at most 1000 bytes"),
    "cut": (pack(A, B)[:-100], "end"),
    "no archive": (b"x" * 5000, "not a gzip file"),
}


@pytest.mark.parametrize("case", HARM)
def test_an_archive_that_means_harm_writes_nothing(tmp_path: Path, case: str) -> None:
    content, text = HARM[case]
    with pytest.raises(DataError, match=text) as caught:
        unpacked(content, tmp_path / "in" / "root")
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.rglob("*") if p.name not in ("in", "root")] == ["set.tar.gz"]


def test_the_first_of_two_members_of_one_name_counts(tmp_path: Path) -> None:
    unpacked(pack(A, B, member("set/a.bin", b"other")), tmp_path)
    assert read(tmp_path / "set") == FILES
