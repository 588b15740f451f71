"""Which tests `make test` leaves to `make slow`: servers, browsers, kills, and lines that stall."""

from __future__ import annotations

import pytest

HUB = ("browser", "fuzz", "kills", "merge_job", "postgresql", "serve", "upload_power_cuts")
SYNC = ("attacks", "client", "end_to_end", "fetcher", "rebase", "service", "trust_attacks", "trust_faults", "uploading")
SLOW = {"hub": {f"test_{name}" for name in HUB}, "sync": {f"test_{name}" for name in SYNC}}


@pytest.hookimpl(tryfirst=True)  # before pytest looks at -m
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        rooms = {r for r in SLOW if r in item.path.parts}
        if any(item.path.stem in SLOW[r] for r in rooms):
            item.add_marker(pytest.mark.slow)
