"""The loop: its pauses, its end, its size; and a clock that shows 1970 or next decade."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hub_here import Device, new_hub, served
from sync_cases import newest, samples, teach

from edgecl.hub import store
from edgecl.hub.service import Service
from edgecl.sync import rules, service
from edgecl.sync.child import python
from edgecl.sync.client import HubTime
from edgecl.sync.place import Place, read_state

MAIN = "from edgecl.cli import main; main()"


@pytest.fixture(scope="module")
def made_hub(made: Path, base: Path) -> Path:
    return new_hub(made / "hub_of_service", base)


@pytest.fixture
def hub(made_hub: Path, tmp_path: Path) -> Iterator[Service]:
    shutil.copytree(made_hub, tmp_path / "hub")
    with served(tmp_path / "hub") as opened:
        yield opened


@pytest.fixture
def pi(hub: Service, tmp_path: Path) -> Device:
    return Device.joined(tmp_path / "pi", hub, hub.port, trial="selftest", every=1.0)


def sync(*args: str, code: str = MAIN) -> subprocess.Popen[str]:
    return subprocess.Popen([*python(code), "sync", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(child: subprocess.Popen[str], kind: str) -> dict[str, Any]:
    """The first event of a kind that it prints."""
    assert child.stdout is not None
    for text in child.stdout:
        event: dict[str, Any] = json.loads(text)
        if event["event"] == kind:
            return event
    raise AssertionError(child.stderr.read() if child.stderr else "")


# pauses


def fake(waits: dict[str, str], allowance: int | None = None, every: float = 900.0) -> Any:
    given = {"state": SimpleNamespace(waits=waits), "config": SimpleNamespace(every=every), "rng": random.Random(1)}
    return SimpleNamespace(**given, allowance=lambda: allowance)


def test_rounds_are_spread() -> None:
    client = fake({})
    pauses = [service.interval(client, 0, None) for _ in range(500)]
    assert 720 <= min(pauses) < 750
    assert 1050 < max(pauses) <= 1080


def test_failures_come_back_sooner_at_first_and_never_storm() -> None:
    client = fake({"push": "no route"})
    assert all(1.0 <= service.interval(client, 1, None) <= 3.0 for _ in range(100))
    assert max(service.interval(client, 30, None) for _ in range(100)) > 700


def test_the_hub_may_ask_for_a_longer_pause_up_to_the_cap() -> None:
    assert service.interval(fake({"push": "busy"}), 1, 2000.0) == 2000.0
    assert service.interval(fake({"push": "busy"}), 1, 1e9) == rules.CAP


def test_a_day_without_bytes_left_is_asked_about_once_an_hour() -> None:
    assert service.interval(fake({"push": "spent"}, allowance=0), 1, None) == service.EMPTY


# its life


def test_it_learns_of_a_lesson_sends_it_stays_small_and_stops_when_asked(hub: Service, pi: Device) -> None:
    child = sync("run", "--place", str(pi.root), "--json")
    try:
        assert until(child, "installed")["model"] == 1
        teach(pi.slot / "lessons", newest(pi.slot), samples([3], 20))
        assert until(child, "sent")["sequence"] == 1
        peak = next(line for line in Path(f"/proc/{child.pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
        began = time.monotonic()
        child.terminate()
        assert until(child, "stopped") == {"event": "stopped", "why": "asked to"}
        assert child.wait(20) == 0
        assert time.monotonic() - began < 15  # a process of its own may have to end too
    finally:
        child.kill()
        child.wait()
    assert int(peak.split()[1]) <= 64 << 10, peak  # kB
    assert len(store.updates(hub.engine)) == 1
    assert read_state(Place(pi.root)).pushed["sequence"] == 1


def test_kills_lose_nothing(hub: Service, pi: Device) -> None:
    """Killed at any moment, again and again; the lesson is on the hub once."""
    assert pi.do("pull") == ""
    teach(pi.slot / "lessons", newest(pi.slot), samples([3], 20))
    draw = random.Random(5)
    for _ in range(6):
        child = sync("run", "--place", str(pi.root), "--json")
        time.sleep(draw.uniform(0.5, 3.0))
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert pi.do("push") == ""
    assert pi.do("push") == ""
    (update,) = store.updates(hub.engine)
    assert update.state == "stored"


def test_two_at_once_are_refused(hub: Service, pi: Device) -> None:
    from edgecl.sync.place import alone

    with alone(Place(pi.root)):
        child = sync("push", "--place", str(pi.root))
        _, said = child.communicate()
    assert child.returncode == 4
    assert said.splitlines() == [f"edgecl: error: {pi.root}/sync: another edgecl sync is at work there"]


# clocks

CLOCK = """
import time, datetime
real, shift = time.time, {shift!r}
time.time = lambda: real() + shift
class Shifted(datetime.datetime):
    @classmethod
    def now(cls, tz=None): return cls.fromtimestamp(real() + shift, tz)
datetime.datetime = Shifted
"""


@pytest.mark.parametrize("shift", [-1.7e9, 10 * 365 * 86400.0])
def test_a_wrong_clock_loses_nothing(hub: Service, pi: Device, shift: float) -> None:
    code = CLOCK.format(shift=shift) + MAIN
    child = sync("run", "--place", str(pi.root), "--json", "--rounds", "1", code="exec(" + repr(code) + ")")
    said, wrong = child.communicate(timeout=120)
    events = [json.loads(text) for text in said.splitlines()]
    assert [e["model"] for e in events if e["event"] == "installed"] == [1], wrong
    teach(pi.slot / "lessons", newest(pi.slot), samples([3], 20))
    child = sync("run", "--place", str(pi.root), "--json", "--rounds", "1", code="exec(" + repr(code) + ")")
    said, wrong = child.communicate(timeout=120)
    assert [e["sequence"] for e in map(json.loads, said.splitlines()) if e["event"] == "sent"] == [1], wrong
    assert len(store.updates(hub.engine)) == 1
    assert abs(read_state(Place(pi.root)).time - time.time()) < 600  # by the hub, not by its own clock


def test_between_two_statements_only_the_time_since_boot_counts() -> None:
    from datetime import datetime, timezone

    boot = [100.0]
    clock = HubTime(lambda root: datetime.fromtimestamp(5000, timezone.utc), lambda: boot[0])
    assert clock.now() is None
    assert clock(None).timestamp() == 5000
    boot[0] = 160.0
    assert clock.now() == 5060.0


def test_help_and_import_load_nothing_heavy() -> None:
    heavy = ("tuf", "urllib3", "cryptography", "edgecl.hub")
    code = f"import sys, edgecl.sync, edgecl.cli.sync; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("module", ["client", "service", "pulling", "carry", "packing", "installing", "enrolling", "status"])
def test_a_device_needs_no_hub(module: str) -> None:
    strange = ("edgecl.hub", "edgecl.merge", "torch")
    code = f"import sys, edgecl.sync.{module}; sys.exit(any(m.startswith({strange}) for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
