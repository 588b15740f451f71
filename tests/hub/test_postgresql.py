"""The same code on a PostgreSQL server, which the test starts; skipped where Debian's package postgresql is not installed."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_cases import Device, bare, served
from sqlalchemy import Engine, inspect, text

from edgecl.hub import store
from edgecl.hub.settings import Limits
from edgecl.hub.store.updates import Judged, New, insert, judged
from edgecl.types import StoreError

FOUND = sorted(Path("/usr/lib/postgresql").glob("*/bin")) if Path("/usr/lib/postgresql").is_dir() else []
pytestmark = pytest.mark.skipif(not FOUND, reason="no PostgreSQL server: apt-get install postgresql")


def as_user(command: list[str]) -> list[str]:
    """PostgreSQL does not run as root."""
    return ["runuser", "-u", user(), "--", *command] if os.getuid() == 0 else command


def user() -> str:
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return "nobody"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database of a server of our own, on a port of loopback."""
    folder = Path("/tmp") / f"edgecl-postgresql-{os.getpid()}"  # short: a socket's path is bounded
    folder.mkdir(mode=0o700)
    if os.getuid() == 0:
        shutil.chown(folder, user())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data, bin_ = folder / "data", FOUND[-1]
    make = [str(bin_ / "initdb"), "-D", str(data), "-U", "edgecl", "--auth=trust", "-E", "UTF8", "--no-sync"]
    subprocess.run(as_user(make), check=True, capture_output=True, cwd="/")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
    control = [str(bin_ / "pg_ctl"), "-D", str(data), "-l", str(folder / "log"), "-w", "-o", options]
    subprocess.run(as_user([*control, "start"]), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
    try:
        yield f"postgresql+psycopg://edgecl@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run(as_user([*control, "-m", "immediate", "stop"]), check=True, capture_output=True, cwd="/")
        shutil.rmtree(folder)


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = store.connect(url)
    store.prepare(engine)
    yield engine
    engine.dispose()


def test_devices_and_updates(engine: Engine) -> None:
    assert "updates" in inspect(engine).get_table_names()
    token = store.add_token(engine, store.Token(uses=2), "ann")
    about = {"name": "pi", "machine": "aarch64", "edgecl": "0.1.0"}
    one = store.enroll(engine, token, bytes(32), about, 9, 9)
    assert store.enroll(engine, token, bytes(32), about, 9, 9) == one
    assert store.approve(engine, one.id, "ann").state == "approved"
    new = New(one.id, 1, "ab" * 32, 1000)
    for changed, taken in ((new, True), (new, True), (new._replace(sha256="cd" * 32), False)):
        with store.writing(engine) as db:
            assert insert(db, changed) is taken
    assert store.stored_bytes(engine, one.id, 90) == (1000, 1000)
    assert [u.sequence for u in store.stored(engine, one.id, 10)] == [1]
    assert store.senders(engine) == [one.id]
    with store.writing(engine) as db:
        judged(db, [Judged(one.id, 1, "merged", model=2, classes=("ü", "b"), samples=7, accuracy=0.5)])
    found = store.update(engine, one.id, 1)
    assert found is not None
    assert (found.state, found.model, found.classes, found.accuracy) == ("merged", 2, ("ü", "b"), 0.5)
    assert [e.what for e in store.audit(engine)] == ["approve", "enroll", "token"]


def test_a_hub_over_http(url: str, tmp_path: Path) -> None:
    with served(bare(tmp_path / "hub", Limits(free_bytes=1), url).root) as (address, service):
        device = Device(tmp_path, address).joined(service)
        for n, size in ((1, 10), (2, 300_000)):
            assert device.send(n, bytes(size)).json() == {"state": "stored"}
            assert device.send(n, bytes(size)).json()["state"] == "stored"
        assert device.send(1, b"other").status_code == 409
        assert device.report(health="ok\0", other="é\0" * 200).status_code == 200
        assert [u.sequence for u in store.updates(service.engine, device.id)] == [2, 1]


def test_a_commit_is_on_the_disk(engine: Engine) -> None:
    with engine.connect() as db:
        assert db.execute(text("show fsync")).scalar() == "on"
        assert db.execute(text("show synchronous_commit")).scalar() == "on"


def test_a_database_that_is_away(url: str) -> None:
    engine = store.connect(url.replace("edgecl@", "edgecl:secret@").rpartition(":")[0] + ":1/x")
    with pytest.raises(StoreError) as error:
        store.devices(engine)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)
