"""What a record says of where it was made."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edgecl import environment


def test_peak_memory_is_the_process_own() -> None:
    """A child of a large parent must not inherit its peak, as ru_maxrss does on Linux."""
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux tells a process its own peak")
    child = f"{sys.executable!r}, '-c', 'from edgecl import environment; print(environment.peak_rss())'"
    code = f"import subprocess; fat = b'x' * 400_000_000; print(subprocess.check_output([{child}]).decode())"
    peak = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert 1e6 < peak < 200e6
    assert environment.peak_rss() > 1e6
