"""`edgecl hub serve` as a process: it merges by itself while it serves, and says what keeps it from starting."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from cli.cli_cases import environment
from hub_cases import Fleet, bare
from test_merge_job import open_hub, send_all, targets

from edgecl.hub import place, repository, serve, store
from edgecl.types import ConfigError, StoreError


def test_it_merges_by_itself(made_hub: Path, fleet: Fleet, tmp_path: Path) -> None:
    root = tmp_path / "hub"
    shutil.copytree(made_hub, root)
    text = (root / "hub.yaml").read_text()
    (root / "hub.yaml").write_text(text.replace("every_seconds: 900", "every_seconds: 1"))
    hub = open_hub(root)
    send_all(hub, fleet)
    command = [sys.executable, "-m", "edgecl", "hub", "serve", str(root), "--port", "0"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment())
    assert child.stdout is not None
    try:
        line = next(x for x in child.stdout if "serves on" in x)
        url = line.split("serves on ")[1].split()[0]
        until = time.monotonic() + 120
        while (now := store.current(hub.engine)) is None or not now.published or now.number < 2:
            assert time.monotonic() < until
            assert httpx.get(f"{url}/tuf/metadata/timestamp.json", trust_env=False).status_code == 200
            time.sleep(0.2)
        assert list(targets(hub)) == ["models/0001.edgecl.gz", "models/0002.edgecl.gz"]
        signed = httpx.get(f"{url}/v1/time?nonce={'ab' * 16}", trust_env=False).json()
        assert abs(signed["signed"]["time"] - time.time()) < 60
        assert next(x for x in child.stdout if x.startswith("merge: ")).startswith("merge: model 2 of 3 updates")
    finally:
        os.kill(child.pid, signal.SIGTERM)
        assert child.wait(30) == 0
        child.stdout.close()
        hub.engine.dispose()


def test_what_keeps_it_from_starting(made_hub: Path, tmp_path: Path) -> None:
    root = tmp_path / "hub"
    shutil.copytree(made_hub, root)
    (root / "keys/timestamp.pem").chmod(0o644)
    with pytest.raises(ConfigError, match=r"timestamp\.pem: others than its owner"):
        serve.open_service(root)
    (root / "keys/timestamp.pem").chmod(0o600)
    text = (root / "hub.yaml").read_text()
    (root / "hub.yaml").write_text(text.replace("rules: {}", "rules: {colour: 1}"))
    with pytest.raises(ConfigError, match="colour"):
        serve.open_service(root)
    (root / "hub.yaml").write_text(text)
    (root / "updates").rmdir()
    with pytest.raises(StoreError, match="updates: is missing"):
        serve.open_service(root)


def test_a_second_one_leaves_the_uploads_of_the_first_alone(tmp_path: Path) -> None:
    here = bare(tmp_path / "hub")
    (here.uploads / f"{'a' * 32}.part").write_bytes(b"x")  # its envelope is just being written
    with place.alone(here, "serve"), pytest.raises(StoreError, match="another process"):
        serve.serve(here.root, "127.0.0.1", 0, print)
    assert here.part("a" * 32).exists()


# ---- jobs beside the server ----


def jobs(monkeypatch: pytest.MonkeyPatch, code: str, enough: Callable[[list[str]], bool], **constants: float) -> list[str]:
    """What the jobs' thread says until `enough`, with a child of Python `code` in place of the merge; "" is a missing program."""
    for name, value in {"TICK_SECONDS": 0.01, **constants}.items():
        monkeypatch.setattr(serve, name, value)
    monkeypatch.setattr(serve, "_command", lambda root: [sys.executable, "-c", code] if code else ["/absent/program"])
    said: list[str] = []
    stop, here = threading.Event(), SimpleNamespace(root=Path("hub"))
    service = SimpleNamespace(place=here, settings=SimpleNamespace(merging=SimpleNamespace(every_seconds=0)))
    thread = threading.Thread(target=serve._jobs, args=(service, stop, said.append), daemon=True)
    thread.start()
    until = time.monotonic() + 60
    while thread.is_alive() and not enough(said) and time.monotonic() < until:
        time.sleep(0.01)
    stop.set()
    thread.join(20)
    assert not thread.is_alive()
    assert enough(said), said
    return said


@pytest.fixture
def refreshed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders whose timestamps were looked at."""
    folders: list[Path] = []
    monkeypatch.setattr(repository, "refresh_timestamp", folders.append)
    return folders


def test_timestamps_are_kept_young_without_a_merge(monkeypatch: pytest.MonkeyPatch, refreshed: list[Path]) -> None:
    jobs(monkeypatch, "", lambda said: len(refreshed) > 2 and len(said) > 2, REFRESH_SECONDS=0.0)
    assert set(refreshed) == {Path("hub")}


def test_a_timestamp_that_fails_ends_no_merge(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(root: Path) -> bool:
        raise StoreError("keys: no space left")

    monkeypatch.setattr(repository, "refresh_timestamp", fail)
    said = jobs(monkeypatch, "print('one')", lambda said: said.count("merge: one") > 1)
    assert said.count("timestamp: keys: no space left") == 1  # the next a minute later


def test_a_job_that_can_not_start_is_said(monkeypatch: pytest.MonkeyPatch, refreshed: list[Path]) -> None:
    said = jobs(monkeypatch, "", lambda said: len(said) > 1)
    assert said[1].startswith("merge: can't be started: ")
    assert refreshed == [Path("hub")]  # once at the start, then each hour


def test_what_a_job_says_fills_no_pipe(monkeypatch: pytest.MonkeyPatch, refreshed: list[Path]) -> None:
    said = jobs(monkeypatch, "print('x' * 300_000 + 'end')", lambda said: len(said) > 0)
    assert said[0].endswith("xend")
    assert len(said[0]) <= 1000 + len("merge: ")


def test_a_job_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, refreshed: list[Path]) -> None:
    said = jobs(monkeypatch, "import time; time.sleep(600)", lambda said: len(said) > 1, JOB_SECONDS=0.5)
    assert said[0] == "merge: took more than 0.5 s and was ended"
