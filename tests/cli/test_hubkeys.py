"""`edgecl hub keys`: what is shown, replaced and taken back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("tuf")

from hub.tuf_cases import CARD

from edgecl.cli.hubkeys import keys as command
from edgecl.hub import keys, repository
from edgecl.types import ConfigError


def run(*args: object) -> list[str]:
    done = CliRunner().invoke(command, [str(a) for a in args], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output.splitlines()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "hub"
    found.mkdir()
    repository.init(found)
    return found


def test_show(folder: Path, tmp_path: Path) -> None:
    lines = run("show", folder)
    assert [line.split()[0] for line in lines[:5]] == ["root", "targets", "snapshot", "timestamp", "models"]
    assert [line.split(":")[0] for line in lines[5:]] == [str(folder / "offline/root.pem"), str(folder / "offline/targets.pem")]
    assert all(row.key in line for row, line in zip(keys.listing(folder), lines, strict=False))
    shutil.move(folder / "offline", tmp_path / "stick")
    assert len(run("show", folder)) == 5


@pytest.mark.parametrize(
    ("role", "changed"), [(r, {r}) for r in keys.ROLES[:-1]] + [("online", set(keys.ROLES[2:5])), ("bundle", set())]
)
def test_rotate(folder: Path, tmp_path: Path, role: str, changed: set[str]) -> None:
    shutil.move(folder / "offline", stick := tmp_path / "stick")
    before, bundle = keys.listing(folder), repository.bundle_key(folder)
    run("rotate", folder, role, *(() if role == "bundle" else ("--offline", stick)))
    assert {b.role for a, b in zip(before, keys.listing(folder), strict=True) if a.key != b.key} == changed
    assert (repository.bundle_key(folder) != bundle) == (role == "bundle")


def test_revoke_and_renew(folder: Path, tmp_path: Path) -> None:
    assert "revoked" in run("revoke", folder)[0]
    assert "models     revoked" in run("show", folder)[4]
    (folder / "made").write_bytes(b"model")
    with pytest.raises(ConfigError, match="is revoked"):
        repository.publish(folder, folder / "made", {**CARD, "number": 1})
    before = keys.listing(folder)
    assert [line.split(":")[0] for line in run("renew", folder)] == ["root", "targets"]
    assert [b.version - a.version for a, b in zip(before, keys.listing(folder), strict=True)] == [1, 1, 1, 1, 0]
    with pytest.raises(ConfigError, match="--offline DIR"):
        run("renew", folder, "--offline", tmp_path / "nowhere")
