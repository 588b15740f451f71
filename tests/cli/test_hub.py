"""`edgecl hub` from a run to a device that is let in."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cli_cases import Cli, environment

RUN = ("--net", "mlp", "--method", "er", "--samples-per-class", "20", "--epochs", "2", "--set", "engine.threads=1")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from edgecl.cli import main

    folder = tmp_path_factory.mktemp("cli") / "run"
    with pytest.raises(SystemExit):
        main(["train", *RUN, "--quiet", "--run", str(folder)])
    return folder


@pytest.fixture(scope="module")
def held_out(run: Path) -> Path:
    from edgecl import session
    from edgecl.model import recorded_config

    stream = session.read_stream(recorded_config(run))
    test, path = stream.tests[0], run.parent / "test.npz"
    np.savez(path, x=np.asarray(test.x[:]), y=np.array([stream.class_names[k] for k in test.y]))
    return path


@pytest.fixture
def hub(cli: Cli, run: Path, held_out: Path) -> Path:
    made = cli("hub", "init", "hub", "--model", str(run), "--held-out", str(held_out), "--url", "http://10.0.0.1:8470")
    assert (made.code, made.err) == (0, "")
    assert "move it off this machine" in made.out
    return Path("hub")


def test_commands(cli: Cli, hub: Path) -> None:
    from edgecl.hub import place, settings, store

    text = cli("hub", "token", "hub", "--uses", "2", "--note", "shed").out.strip()
    said = json.loads(base64.urlsafe_b64decode(text.removeprefix("edgecl-join:")))
    assert said["url"] == "http://10.0.0.1:8470"
    assert len(said["root"]) == 64
    here = place.opened(hub)
    engine = store.connect(settings.database_url(here, settings.read(here)))
    about = {"name": "pi", "machine": "aarch64", "edgecl": "0.1.0"}
    device = store.enroll(engine, said["token"], bytes(32), about, 9, 9)
    assert cli("hub", "devices", "hub", "--state", "pending").out.startswith(f"{device.id}  pending")
    assert cli("hub", "approve", "hub", device.id).out == f"{device.id}: approved\n"
    assert json.loads(cli("hub", "devices", "hub", "--json").out)[0]["state"] == "approved"
    assert "revoked" in cli("hub", "revoke", "hub", device.id).out
    again = cli("hub", "approve", "hub", device.id)
    assert (again.code, "enrol anew" in again.err) == (2, True)
    assert cli("hub", "updates", "hub", "--json").out == "[]\n"
    assert cli("hub", "merge", "hub", "--json").out == "[]\n"
    assert "given to hub init" in cli("hub", "models", "hub").out
    assert cli("hub", "share", "hub", "kestrel").out == "kestrel: shared from the next merge on; no device has taught it so far\n"
    back = cli("hub", "rollback", "hub", "1")
    assert (back.code, "is what devices have" in back.err) == (2, True)
    assert [e.what for e in store.audit(engine)] == [
        "share", "revoke", "approve", "enroll", "token", "published", "model",
    ]  # fmt: skip
    engine.dispose()


def test_operators(cli: Cli, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    from edgecl.hub import place, settings, store

    monkeypatch.setattr(sys, "stdin", io.StringIO("correct horse battery\n"))
    assert cli("hub", "user", "hub", "ann", "--password-stdin").code == 0
    monkeypatch.setattr(sys, "stdin", io.StringIO("short\n"))
    assert "10 to 1000 characters" in cli("hub", "user", "hub", "bob", "--password-stdin").err
    here = place.opened(hub)
    engine = store.connect(settings.database_url(here, settings.read(here)))
    assert store.operators(engine) == ["ann"]
    checks = [("ann", "correct horse battery"), ("ann", "wrong"), ("bob", "correct horse battery"), ("", "")]
    assert [store.check_operator(engine, *c) for c in checks] == [True, False, False, False]
    assert cli("hub", "user", "hub", "ann", "--remove").out == "ann: removed\n"
    assert cli("hub", "user", "hub", "ann", "--remove").code == 2
    engine.dispose()


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["serve", "absent"], 4, "absent: is no hub's folder"),
        (["devices", "absent"], 4, "edgecl hub init absent"),
        (["init", "x", "--model", "absent", "--held-out", "absent.npz"], 4, "absent"),
        (["approve", "hub", "0123456789abcdef"], 2, "is not enrolled here"),
        (["devices", "hub", "--state", "foo"], 2, "'foo' is not one of"),
        (["serve", "hub", "--host", "192.0.2.1"], 2, "--host 192.0.2.1 --port 8470: cannot assign requested address"),
    ],
)
def test_errors_name_what_is_wrong(cli: Cli, hub: Path, args: list[str], code: int, said: str) -> None:
    ran = cli("hub", *args)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err


def test_settings_out_of_bounds(cli: Cli, hub: Path) -> None:
    text = (hub / "hub.yaml").read_text()
    for old, new, said in (
        ("attempts: 3", "attempts: 0", "merging.attempts is 0"),
        ("attempts: 3", "attempts: x", "merging.attempts is 'x'"),
        ("attempts: 3", "atempts: 3", "unknown key merging.atempts"),
        ("bundle_target: host", "bundle_target: [1]", "bundle_target is [1]"),
        (text, "[", "is not YAML"),
        (text, "- 1", "the top is no mapping"),
        ("database: ''", "database: mssql+pyodbc://x/y", "pyodbc"),
        ("database: ''", "database: 'no url'", "is not one"),
    ):
        (hub / "hub.yaml").write_text(text.replace(old, new))
        ran = cli("hub", "models", "hub")
        assert ran.code == 2
        assert said in ran.err, ran.err


def test_serve_and_stop(hub: Path) -> None:
    """A process of its own, which merges by itself, and ends when it is asked to."""
    text = (hub / "hub.yaml").read_text().replace("every_seconds: 900", "every_seconds: 1")
    (hub / "hub.yaml").write_text(text)
    command = [sys.executable, "-m", "edgecl", "hub", "serve", "hub", "--port", "0"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment())
    assert child.stdout is not None
    said = [child.stdout.readline() for _ in range(3)]
    assert "move it off this machine" in said[0] + said[1]  # root.pem and targets.pem
    assert "serves on http://127.0.0.1:" in said[2]
    second = subprocess.run([*command], capture_output=True, text=True, env=environment(), timeout=60)
    assert (second.returncode, "another process is at it (serve)" in second.stderr) == (4, True)
    time.sleep(0.5)
    os.kill(child.pid, signal.SIGTERM)
    assert child.wait(30) == 0
    child.stdout.close()
