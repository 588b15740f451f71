"""Which tests `make test` leaves to `make slow`: servers, browsers, kills, and lines that stall."""

from __future__ import annotations

import pytest

SLOW = {
    "hub": "test_browser test_fuzz test_kills test_merge_job test_postgresql test_serve test_upload_power_cuts".split(),
    "sync": (
        "test_attacks test_client test_end_to_end test_fetcher test_rebase test_service test_trust_attacks test_trust_faults "
        "test_uploading"
    ).split(),
}


@pytest.hookimpl(tryfirst=True)  # before pytest looks at -m
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        rooms = {r for r in SLOW if r in item.path.parts}
        if any(item.path.stem in SLOW[r] for r in rooms):
            item.add_marker(pytest.mark.slow)
