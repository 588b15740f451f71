"""kill -9 at any moment: nothing that was acknowledged is lost, and a merge comes to the same bytes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

from hub_cases import Fleet
from kill_cases import FORK, killed_under_load
from test_merge_job import open_hub, send_all, targets, tree

from edgecl.hub import store


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """The short form of tools/fuzz_hub.py --kills 1000."""
    found = killed_under_load(tmp_path / "hub", kills=15, clients=4)
    assert (found["lost"], found["wrong"]) == ([], [])
    assert found["acknowledged"] > 2


def merged(root: Path) -> None:
    hub = open_hub(root)
    hub.merge()
    hub.engine.dispose()


def test_a_killed_merge_ends_in_the_same_bytes(made_hub: Path, fleet: Fleet, tmp_path: Path) -> None:
    shutil.copytree(made_hub, tmp_path / "start")
    hub = open_hub(tmp_path / "start")
    send_all(hub, fleet)
    hub.engine.dispose()
    for name in ("whole", "killed"):
        shutil.copytree(tmp_path / "start", tmp_path / name)
    began = time.monotonic()
    merged(tmp_path / "whole")
    whole, draw, kills = time.monotonic() - began, random.Random(0), 0
    for _ in range(12):
        child = FORK.Process(target=merged, args=(tmp_path / "killed",))
        child.start()
        child.join(draw.uniform(0, 1.2 * whole))
        if child.exitcode is None:
            os.kill(child.pid or 0, signal.SIGKILL)
            kills += 1
        child.join()
    merged(tmp_path / "killed")
    hubs = [open_hub(tmp_path / name) for name in ("whole", "killed")]
    assert tree(hubs[0].here.model(2)) == tree(hubs[1].here.model(2))
    assert [[m.number for m in store.models(h.engine)] for h in hubs] == [[2, 1], [2, 1]]
    assert targets(hubs[0]) != {}
    assert [list(targets(h)) for h in hubs] == [["models/0001.edgecl.gz", "models/0002.edgecl.gz"]] * 2
    assert kills > 0
    for h in hubs:
        h.engine.dispose()
