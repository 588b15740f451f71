"""Work that needs much memory, in a process of its own: it opens networks, and ends. What asks for it stays small.

The child reads one JSON object and prints one: its answer, or an error with its exit code.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import edgecl
from edgecl.types import ConfigError, DataError, EdgeclError, StoreError

TASKS = {"pack": "edgecl.sync.packing", "install": "edgecl.sync.installing"}
"""Task → module whose `main` takes the object and returns the answer."""

ANSWER_BYTES = 1 << 20
NICE = 5  # predicting and learning go first
KINDS: dict[int, type[EdgeclError]] = {e.exit_code: e for e in (ConfigError, DataError, StoreError)}


def python(code: str) -> list[str]:
    """What runs some code beside this very package, wherever one stands."""
    return [sys.executable, "-c", f"import sys; sys.path[0] = {str(Path(edgecl.__file__).resolve().parents[1])!r}; {code}"]


def run(task: str, given: Mapping[str, Any], out: Path | None = None) -> dict[str, Any]:
    """Does a task and returns its answer; what it raises is raised here. `out`: a file that it writes its bytes to.

    Whatever ends this process ends the child too.
    """
    command = python(f"from edgecl.sync.child import serve; serve({task!r})")
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=as_child)
    try:
        answer, _ = child.communicate(json.dumps({**given, **({"out": str(out)} if out else {})}).encode())
    except BaseException:
        child.kill()
        child.wait()
        raise
    return _answer(task, child.returncode, answer)


def _answer(task: str, code: int, data: bytes) -> dict[str, Any]:
    try:
        said = json.loads(data[:ANSWER_BYTES])
    except ValueError:
        said = None
    if not isinstance(said, dict):
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        raise EdgeclError(f"sync: the process for '{task}' {how} and said nothing")
    if "error" in said:
        raise KINDS.get(said.get("code", 1), EdgeclError)(said["error"])
    return said


def as_child() -> None:
    """Between fork and exec: quieter than who asked, and not longer there."""
    os.nice(NICE)
    end_with_parent()


def end_with_parent() -> None:
    """Where the system can: a killed process leaves none that goes on writing."""
    if sys.platform == "linux":
        import ctypes
        import signal

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def serve(task: str) -> None:
    """The child's side."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    work: Callable[[dict[str, Any]], dict[str, Any]] = importlib.import_module(TASKS[task]).main
    out = os.dup(1)
    os.dup2(2, 1)  # what others print is no answer
    try:
        said = work(json.load(sys.stdin))
    except (EdgeclError, OSError, MemoryError) as e:
        said = {"error": " ".join(str(e).split()) or type(e).__name__, "code": getattr(e, "exit_code", 1)}
    with os.fdopen(out, "wb") as file:
        file.write(json.dumps(said).encode())
