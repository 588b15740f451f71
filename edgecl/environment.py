"""What a record must say of where it was made."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import edgecl

PACKAGES = ("numpy", "torch", "safetensors", "array-api-compat")


def describe() -> dict[str, Any]:
    """Machine, versions and, in a checkout, the commit; without importing any package."""
    return {
        "edgecl": edgecl.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def commit() -> str | None:
    """The checkout's commit, with `-dirty` when files differ; None where edgecl is not in a checkout."""
    root = Path(edgecl.__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
        result = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None


def cpu_name() -> str:
    """As the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.processor()


def peak_rss() -> int:
    """Largest resident size of this process so far, in bytes: since its start, where the system tells (Linux)."""
    import resource

    with suppress(OSError, StopIteration):  # ru_maxrss of a child starts at its parent's size there
        return _status("VmHWM:")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident() -> int:
    """Resident size of this process now, in bytes; where the system does not tell, its largest so far."""
    with suppress(OSError, StopIteration):
        return _status("VmRSS:")
    return peak_rss()


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
