"""What root gives to the user who learns, and what it does not; what others can read of it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgecl import bundle
from edgecl.sync import installing
from edgecl.sync.installing import hand_over
from edgecl.sync.place import Config, Place
from edgecl.types import StoreError

USER = 12345
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as edgecl-sync.service is")


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """The user's, with a folder that root has made."""
    (tmp_path / "kept" / "own" / "001").mkdir(parents=True)
    (tmp_path / "kept" / "own" / "001" / "state.json").write_text("{}")
    os.chown(tmp_path / "kept", USER, USER)
    return tmp_path / "kept"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "secret").write_text("root's")
    return tmp_path / "etc" / "secret"


def give(kept: Path, name: str = "own") -> None:
    hand_over(Config("http://127.0.0.1:1", "0" * 16, "t", "pi", lessons=str(kept)), kept / name)


def owner(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid


@root_only
def test_what_root_wrote_becomes_the_users(kept: Path) -> None:
    give(kept)
    assert {owner(p) for p in kept.rglob("*")} == {(USER, USER)}
    give(kept, "absent")


@root_only
def test_a_folder_that_is_a_link_is_refused(kept: Path, secret: Path) -> None:
    (kept / "planted").symlink_to(secret.parent)
    with pytest.raises(StoreError, match="planted: is a link"):
        give(kept, "planted")
    assert owner(secret) == owner(secret.parent) == (0, 0)


@root_only
def test_nothing_behind_a_link_changes_its_owner(kept: Path, secret: Path) -> None:
    (kept / "own" / "folder").symlink_to(secret.parent)
    (kept / "own" / "file").symlink_to(secret)
    os.link(secret, kept / "own" / "second-name")
    os.mkfifo(kept / "own" / "pipe")
    give(kept)
    assert owner(secret) == owner(secret.parent) == (0, 0)
    assert owner(kept / "own" / "001" / "state.json") == (USER, USER)


@root_only
def test_what_belongs_to_a_third_stays_theirs(kept: Path) -> None:
    other = kept / "own" / "001" / "state.json"
    os.chown(other, 4321, 4321)
    give(kept)
    assert owner(other) == (4321, 4321)


def test_the_join_token_is_in_no_commands_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def install(*args: object, command: list[str], **more: object) -> SimpleNamespace:
        seen.extend(command)
        return SimpleNamespace(slot=tmp_path / "b", tested=1)

    monkeypatch.setattr(bundle, "install", install)
    config = Config("http://127.0.0.1:1", "0" * 16, "very-secret", "pi")
    given = {"config": asdict(config), "down": str(tmp_path), "bundle": "x", "key": "y"}
    installing._install(Place(tmp_path), config, tmp_path / "a", tmp_path / "a" / "lessons", given)
    assert "very-secret" not in " ".join(seen)
    assert Config(**json.loads(seen[-1])["config"]) == replace(config, token="")
