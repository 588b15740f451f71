"""A small network that has learned ten digits, for all tests of the device's side."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_cases import SPARCL, begun, to_end


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder; tests only read it."""
    run = tmp_path_factory.mktemp("learned") / "run"
    to_end(*begun(run, *SPARCL))
    return run
