"""A module imports only lower floors: the picture in docs/adr/0001-floors.md, kept true."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "edgecl"

FLOORS = [
    {"types"},
    {"files", "limits", "arrays", "tensors", "budget", "card"},
    {"data", "nets", "memory", "profiles", "metrics", "environment", "kernels"},
    {"masks", "curate", "cost"},
    {"engines"},
    {"methods"},
    {"config"},
    {"schedule", "layout", "ledger", "step"},
    {"forecast"},
    {"timing", "footprint", "recipe"},
    {"outlook"},
    {"plan"},
    {"store", "evaluate", "taught"},
    {"runfolder"},
    {"state", "model"},
    {"average", "correction", "holding"},
    {"train", "session", "export", "slots"},
    {"lesson", "bundle"},
    {"measure", "update"},
    {"runtime", "merge"},
    {"sync"},
    {"hub"},
    {"cli"},
    {"__main__"},
]
NO_TORCH = ["edgecl.config", "edgecl.plan", "edgecl.session", "edgecl.train", "edgecl.masks", "edgecl.ledger", "edgecl.methods"]
NO_TORCH += ["edgecl.export"]


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports(path: Path) -> set[str]:
    """First names below `edgecl` that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "edgecl":
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("edgecl."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("edgecl.")}
    return found - {"__version__"}


MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE or p.name != "__init__.py")
LEVEL = {name: i for i, names in enumerate(FLOORS) for name in names}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_only_lower_floors(path: Path) -> None:
    here = room(path)
    assert here in LEVEL, f"{here} stands on no floor: give it one in FLOORS"
    for other in imports(path) - {here}:
        assert other in LEVEL, f"{path.name} imports edgecl.{other}, which stands on no floor"
        assert LEVEL[other] < LEVEL[here], f"{here} (floor {LEVEL[here]}) imports {other} (floor {LEVEL[other]})"


def test_the_picture_is_of_this_house() -> None:
    assert {room(p) for p in MODULES} == set(LEVEL)


@pytest.mark.parametrize("module", NO_TORCH)
def test_the_loop_and_all_below_know_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
