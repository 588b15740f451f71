"""The short form of tools/fuzz_hub.py."""

from __future__ import annotations

import importlib.util
from pathlib import Path

TOOL = Path(__file__).resolve().parents[2] / "tools/fuzz_hub.py"


def test_what_no_device_sends() -> None:
    spec = importlib.util.spec_from_file_location("fuzz_hub", TOOL)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    done, answers = tool.soak(0, 280, 3)
    assert set(done) == set(tool.KINDS)
    assert answers[500] == 0
    assert len(answers) > 6
