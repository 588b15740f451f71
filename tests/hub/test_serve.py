"""`edgecl hub serve` as a process: it merges by itself while it serves, and says what keeps it from starting."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from cli.cli_cases import environment
from hub_cases import Fleet, bare
from test_merge_job import open_hub, send_all, targets

from edgecl.hub import place, serve, store
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
