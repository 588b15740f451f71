"""The command line in a process of its own: the same package, wherever one stands when it is called."""

from __future__ import annotations

import sys
from pathlib import Path

import edgecl

_CODE = "import sys; sys.path[0] = {!r}; from edgecl.cli import main; main()"


def command(*args: str) -> list[str]:
    """What runs `edgecl ARGS`. With `python -m` a checkout in the working directory would come before what is installed."""
    return [sys.executable, "-c", _CODE.format(str(Path(edgecl.__file__).resolve().parents[1])), *args]
