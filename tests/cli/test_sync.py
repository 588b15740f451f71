"""`edgecl sync`: what it prints, its exit codes, its one-line errors. What it does is tested in tests/sync."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from edgecl.cli import cli
from edgecl.cli.sync import _parsed, _text
from edgecl.sync.outbox import Outbox
from edgecl.sync.place import Config, Place, State, write_config, write_state
from edgecl.types import ConfigError, DataError, EdgeclError

DEVICE = "0123456789abcdef"


def run(*args: str) -> None:
    cli.main(args=["sync", *args], prog_name="edgecl", standalone_mode=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Enrolled at a hub that is not there, with an update that waits and one that was set aside."""
    here = Place(tmp_path / "root")
    here.folder.mkdir(parents=True)
    write_config(here, Config("http://127.0.0.1:1", DEVICE, "token", "kitchen", bytes_a_day=5000))
    waits = {"push": "425: waits for the operator's approval"}
    write_state(here, State("pending", {"day": 1, "up": 1234, "down": 5}, waits=waits, time=1.8e9))
    outbox = Outbox(here.outbox, 1000)
    for number in (1, 2):
        (here.folder / "packed").write_bytes(b"x" * 100)
        item = outbox.put(here.folder / "packed", f"{number}" * 64, f"{number}" * 64)
    outbox.set_aside(item, "413: too large")
    return here.root


def test_status_as_json(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("status", "--place", str(root), "--json")
    said = json.loads(capsys.readouterr().out)
    assert said["device"] == DEVICE
    assert said["state"] == "pending"
    assert said["slot"].startswith("nothing is installed")
    assert said["waiting"] == [{"sequence": 1, "bytes": 100, "begun": False}]
    assert said["set_aside"] == [{"sequence": 2, "why": "413: too large"}]
    assert said["waits_for"] == {"push": "425: waits for the operator's approval"}
    assert said["bytes_today"] == {"up": 1234, "down": 5, "of": 5000}


def test_status_for_people(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("status", "--place", str(root))
    said = capsys.readouterr().out
    for part in ("kitchen", "pending", "waits for the operator's approval", "413: too large", "up: 1,234"):
        assert part in said
    assert "{" not in said


def test_status_changes_nothing(root: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    (root / "sync/outbox/000009.update").write_bytes(b"of a put that is under way")
    run("status", "--place", str(root), "--json")
    assert (root / "sync/outbox/000009.update").exists()
    assert {p: p.stat().st_mtime_ns for p in before if p.is_file()} == {p: t for p, t in before.items() if p.is_file()}


@pytest.mark.parametrize("command", ["push", "pull"])
def test_what_it_waits_for_is_the_error(root: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecl.sync.client.time.sleep", lambda seconds: None)
    from edgecl.sync import device

    device.make_key(Place(root).key)
    Place(root).first_root.write_bytes(b"{}")
    monkeypatch.setattr("edgecl.sync.rules.backoff", lambda *a, **k: 0.0)
    with pytest.raises(DataError) as error:
        run(command, "--place", str(root))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("command", ["push", "pull", "run", "status"])
def test_a_root_that_is_not_enrolled(tmp_path: Path, command: str) -> None:
    with pytest.raises(ConfigError, match="is not enrolled"):
        run(command, "--place", str(tmp_path))


DAMAGE = [
    "{",
    "[]",
    "{}",
    '{"url": 1}',
    '{"colour": "red"}',
    '{"url": "x", "device": "d", "token": "t", "name": "n", "trial": "no"}',
]


@pytest.mark.parametrize("text", DAMAGE)
def test_a_damaged_configuration_is_named(root: Path, text: str) -> None:
    Place(root).config.write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json"):
        run("status", "--place", str(root))


def test_a_damaged_state_is_only_forgotten(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Place(root).state.write_text("{")
    run("status", "--place", str(root), "--json")
    assert json.loads(capsys.readouterr().out)["state"].startswith("not heard of")


def test_http_to_another_machine_is_warned_of(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = Place(root)
    write_config(here, Config("http://192.0.2.1", DEVICE, "token", "kitchen"))
    with pytest.raises(ConfigError, match="--insecure-http"):
        run("push", "--place", str(root))
    assert "without TLS" in capsys.readouterr().err


@pytest.mark.parametrize("token", ["hello", "edgecl-join:" + base64.urlsafe_b64encode(b"{}").decode()])
def test_a_wrong_token_is_one_line(tmp_path: Path, token: str) -> None:
    with pytest.raises(EdgeclError, match="join token"):
        run("enroll", token, "--place", str(tmp_path / "root"))


def test_keys_are_set_by_their_type() -> None:
    sets = ["bytes_a_day=5000", "every=60", "venv=true", "trial=selftest", "before="]
    assert dict(map(_parsed, sets)) == {"bytes_a_day": 5000, "every": 60.0, "venv": True, "trial": "selftest", "before": ""}
    for wrong in ("bytes_a_day=many", "venv=yes", "colour=red", "every"):
        with pytest.raises(ConfigError, match="--set"):
            _parsed(wrong)


def test_values_as_text() -> None:
    assert _text({"a": 12345, "b": None, "c": []}) == "a: 12,345, b: –, c: –"
    assert _text(True) == "True"
    assert _text({"time": 1_795_560_478, "snapshot": "7b0d809551e2f8f6"}) == "time: 2026-11-24 22:47 UTC, snapshot: 7b0d809551e2"
    assert _text(0, "time") == "–"
