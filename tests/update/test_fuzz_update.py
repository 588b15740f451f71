"""A short form of `make soak`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_short_soak() -> None:
    command = [sys.executable, str(ROOT / "tools/fuzz_update"), "--cases", "300", "--seed", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["cases"] >= 300
    assert set(found["reasons"]) > {"accepted", "cut off", "zlib"}
    assert "other" not in found["reasons"]
