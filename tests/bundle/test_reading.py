"""What is no bundle as its owner signed it is refused in one line, and nothing of it is left."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from bundle_cases import archive, foreign, members, resigned

from edgecl import bundle
from edgecl.bundle import Entry, container
from edgecl.bundle.manifest import FILES, TOTAL_BYTES, check_files, check_path, decode
from edgecl.types import EdgeclError, StoreError

ROOT = Path(__file__).resolve().parents[2]


def refused(data: bytes, public: Path, folder: Path) -> str:
    """The line that all ways of opening these bytes end with."""
    path = folder / "bad.edgecl"
    path.write_bytes(data)
    with pytest.raises(EdgeclError) as e:
        bundle.verify(path, public)
    with pytest.raises(EdgeclError) as opened:
        bundle.open_bundle(path, public)
    assert str(opened.value) == str(e.value)
    assert sorted(p.name for p in folder.iterdir()) == ["bad.edgecl"]
    assert "\n" not in str(e.value)
    assert str(path) in str(e.value)
    return str(e.value)


def test_a_whole_one(made: Path, public: Path, tmp_path: Path) -> None:
    head = bundle.verify(made, public)
    assert bundle.inspect(made) == head
    folder = bundle.open_bundle(made, public, tmp_path / "opened")
    assert {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == dict(members(made))
    assert bundle.verify_folder(folder, public) == head
    before = folder.stat().st_mtime_ns
    assert bundle.open_bundle(made, public, tmp_path / "opened") == folder
    assert folder.stat().st_mtime_ns == before


def test_every_flipped_bit_of_what_is_not_a_file(made: Path, public: Path, tmp_path: Path) -> None:
    """Headers, manifest, signature, padding and end: a bit of every third byte; then some of the files' bytes."""
    data, path, folder = made.read_bytes(), tmp_path / "x.edgecl", tmp_path
    body = data.index(b"ustar", 3 * 512) + 255  # of the first file after the signature
    at = [*range(0, body, 3), *range(body, len(data), 4099), *range(len(data) - 1030, len(data), 7)]
    for i in at:
        path.write_bytes(data[:i] + bytes([data[i] ^ 1 << i % 8]) + data[i + 1 :])
        with pytest.raises(StoreError):
            bundle.verify(path, public)
    assert folder.exists()


def test_cut_off_anywhere(made: Path, public: Path, tmp_path: Path) -> None:
    data = made.read_bytes()
    for size in (0, 1, 511, 512, 700, len(data) // 2, len(data) - 1024, len(data) - 512, len(data) - 1):
        assert "cut off" in refused(data[:size], public, tmp_path)
    assert "behind its end" in refused(data + b"\0", public, tmp_path)


def change(listed: list[tuple[str, bytes]], action: str) -> list[tuple[str, bytes]]:
    name, body = listed[-1]
    actions: dict[str, list[tuple[str, bytes]]] = {
        "missing": listed[:-1],
        "extra": [*listed, ("zzz", b"")],
        "other order": [*listed[:-2], listed[-1], listed[-2]],
        "twice": [*listed, listed[-1]],
        "longer": [*listed[:-1], (name, body + b"x")],
        "changed": [*listed[:-1], (name, body[:-1] + b"x")],
        "no signature": [listed[0], *listed[2:]],
        "manifest later": [listed[1], listed[0], *listed[2:]],
    }
    return actions[action]


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("missing", "is missing"),
        ("extra", "'zzz', which is not in its manifest"),
        ("other order", "is missing"),
        ("twice", "not in its manifest"),
        ("longer", "not the"),
        ("changed", "its sha256 is not"),
        ("no signature", "manifest.sig is not where"),
        ("manifest later", "manifest.json is not where"),
    ],
)
def test_other_files_than_the_manifests(made: Path, public: Path, tmp_path: Path, action: str, said: str) -> None:
    assert said in refused(archive(change(members(made), action)), public, tmp_path)


def test_the_wrong_key(made: Path, tmp_path: Path) -> None:
    bundle.keygen(tmp_path / "other.pem")
    with pytest.raises(StoreError, match=r"was signed by key [0-9a-f]{16}, not by [0-9a-f]{16}"):
        bundle.verify(made, tmp_path / "other.pub")


def test_another_key_with_the_right_ones_name(made: Path, public: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    bundle.keygen(tmp_path / "keys/other.pem")
    data, right = resigned(made, tmp_path / "keys/other.pem"), bundle.inspect(made).key
    shutil.move(tmp_path / "keys", tmp_path.parent / f"{tmp_path.name}-keys")
    forged = re.sub(rb"ed25519 [0-9a-f]{16}", f"ed25519 {right}".encode(), data)
    assert "damaged or forged" in refused(forged, public, tmp_path)


def test_packed_by_another_program(made: Path, public: Path, tmp_path: Path) -> None:
    assert "a header is not as edgecl writes it" in refused(foreign(made), public, tmp_path)


@pytest.mark.parametrize("kind", [b"1", b"2", b"5", b"x", b"L", b"S"])
def test_no_links_folders_and_extensions(made: Path, public: Path, tmp_path: Path, kind: bytes) -> None:
    data = bytearray(made.read_bytes())
    at = bytes(data).index(b"card.json\0")
    data[at + 156 : at + 157] = kind
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    assert "a header is not" in refused(bytes(data), public, tmp_path)


def test_a_newer_format(made: Path, private: Path, public: Path, tmp_path: Path) -> None:
    assert "bundle format 2, but this edgecl reads format 1" in refused(resigned(made, private, format=2), public, tmp_path)


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "/x",
        "a/../x",
        "a\\x",
        "",
        "a//x",
        "a/",
        "./x",
        ".x",
        "-x",
        "a b",
        "ä",
        "x\0",
        "x\n",
        "C:x",
        "x" * 101,
        "a/" + "x" * 101,
        "a" * 156 + "/x",
        "a/.b",
    ],
)
def test_paths_that_escape(made: Path, private: Path, public: Path, tmp_path: Path, path: str) -> None:
    with pytest.raises(StoreError, match="no path for a bundle"):
        check_path("x", path)
    files = json.loads(dict(members(made))["manifest.json"])["files"]
    changed = resigned(made, private, files={**files, path: files["card.json"]})
    assert "no path for a bundle" in refused(changed, public, tmp_path)


@pytest.mark.parametrize(
    "path",
    ["x", "a/b.c", "wheels/numpy-2.4.6-cp311-cp311-manylinux_2_27_aarch64.whl", "a+b!", "x" * 100, "y" * 155 + "/" + "x" * 100],
)
def test_paths_that_do_not(path: str) -> None:
    check_path("x", path)


@pytest.mark.parametrize(
    "names", [("a", "A"), ("a/x", "A/y"), ("a", "a/b"), ("Manifest.json",), ("manifest.sig",), ("manifest.json/a",), ("a/b", "A")]
)
def test_names_that_no_folder_holds_together(names: tuple[str, ...]) -> None:
    with pytest.raises(StoreError, match=r"of that name|upper and lower case"):
        check_files("x", {n: Entry(0, "0" * 64) for n in names})


def test_sizes_are_bounded(made: Path, public: Path, private: Path, tmp_path: Path) -> None:
    one = Entry(TOTAL_BYTES // 4, "0" * 64)
    check_files("x", {f"f{i}": one for i in range(4)})
    with pytest.raises(StoreError, match="4 GiB in all"):
        check_files("x", {f"f{i}": one for i in range(5)})
    with pytest.raises(StoreError, match="more than 2 GiB"):
        check_files("x", {"a": Entry((1 << 31) + 1, "0" * 64)})
    with pytest.raises(StoreError, match=f"more than {FILES} files"):
        check_files("x", {f"f{i}": Entry(0, "0" * 64) for i in range(FILES + 1)})
    huge = container.header("manifest.json", 1 << 30) + bytes(512)
    assert "at most 1048576" in refused(huge, public, tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"target": 1},
        {"machine": "a" * 41},
        {"files": []},
        {"files": {"card.json": {"bytes": 1.5, "sha256": "0" * 64}}},
        {"files": {"card.json": {"bytes": -1, "sha256": "0" * 64}}},
        {"files": {"card.json": {"bytes": 1, "sha256": "0" * 63}}},
        {"files": {"card.json": {"bytes": 1, "sha256": "0" * 64, "more": 1}}},
        {"limits": {"memory_bytes": True}},
        {"selftest": {"source": "memory", "samples": [0], "predicted": []}},
        {"selftest": {"source": "none", "samples": [0], "predicted": [0]}},
        {"selftest": {"source": "memory", "samples": list(range(17)), "predicted": list(range(17))}},
        {"unknown": 1},
        {"format": "1"},
    ],
)
def test_a_manifest_with_a_wrong_value(
    made: Path, private: Path, public: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    assert "manifest.json" in refused(resigned(made, private, **changes), public, tmp_path)


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{", b"[" * 10_000, b"\xff", b'{"format": 1, "format": 1}', b"1" * 5000])
def test_no_manifest(data: bytes) -> None:
    with pytest.raises(StoreError, match=r"manifest\.json"):
        decode("x", data)


def test_a_changed_folder(made: Path, public: Path, tmp_path: Path) -> None:
    def tampered(act: Callable[[Path], object]) -> str:
        shutil.rmtree(tmp_path / "opened", ignore_errors=True)
        folder = bundle.open_bundle(made, public, tmp_path / "opened")
        act(folder)
        with pytest.raises(StoreError) as e:
            bundle.open_bundle(made, public, tmp_path / "opened")
        return str(e.value)

    assert "card.json: is damaged" in tampered(lambda f: (f / "card.json").write_bytes(b"x"))
    assert "no such file" in tampered(lambda f: (f / "card.json").unlink())
    assert "no file of this bundle" in tampered(lambda f: (f / "learner/more").write_bytes(b""))
    assert "no file of this bundle" in tampered(lambda f: (f / "link").symlink_to("/"))
    assert "is damaged" in tampered(
        lambda f: (f / "card.json").rename(f.parent / "c") and (f / "card.json").symlink_to(f.parent / "c")
    )
    assert "forged" in tampered(lambda f: (f / "manifest.json").write_bytes(b"{}"))


def test_a_short_soak() -> None:
    command = [sys.executable, str(ROOT / "tools/fuzz_bundle"), "--cases", "200", "--seed", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["cases"] >= 200
    assert record["by_kind"]["intact"]["refused"] == 0
    assert record["by_kind"]["flip"]["refused"] == record["by_kind"]["flip"]["cases"]
    assert len(record["reasons"]) > 8
