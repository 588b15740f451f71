"""The files of deploy/bundle/, which a bundle for a board carries: how it is installed there, and what starts it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgecl import files
from edgecl.bundle.targets import CPU, MEMORY

LEARNS_WITH = 80  # percent of the memory limit that is the budget of learning: the system kills what passes the limit
INSTALL, RUN, LEARN, SYNC = "install.sh", "edgecl-run.service", "edgecl-learn.service", "edgecl-sync.service"


def services(limits: Mapping[str, int], learns: bool) -> dict[str, bytes | Path]:
    """install.sh and the systemd units, with the limits filled in."""
    budget = f"{limits[MEMORY] * LEARNS_WITH // 100 // 10**6}MB"
    folder, values = _folder(), {"@MEMORY@": str(limits[MEMORY]), "@CPU@": f"{limits[CPU]}%", "@BUDGET@": budget}
    found: dict[str, bytes | Path] = {}
    for name in (INSTALL, RUN, *([LEARN, SYNC] if learns else [])):
        with files.naming(folder / name):
            text = (folder / name).read_text(encoding="utf-8")
        for key, value in values.items():
            text = text.replace(key, value)
        found[name] = text.encode()
    return found


def _folder() -> Path:
    """Inside an installed package, else in the checkout."""
    package = Path(__file__).parents[1]
    installed = package / "_deploy" / "bundle"
    return installed if installed.is_dir() else package.parent / "deploy" / "bundle"
