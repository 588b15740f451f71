"""Compiles the kernels with $CXX (g++ if unset): src/run.cpp twice for each instruction set, the second time for activations
stored in half precision, then one shared library.

Imports nothing of edgecl, so that setup.py can run it before edgecl is installed.
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LIBRARY = "_native.so"
SOURCES = Path(__file__).parent / "src"
FLAGS = (
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-pthread",
    "-fvisibility-inlines-hidden",
    "-fno-exceptions",  # a plain C ABI: nothing of libstdc++ but memory and threads' ends
    "-fno-threadsafe-statics",
    "-ffp-contract=fast",  # multiply-adds in one rounding; the order of sums is never changed
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wall",
    "-Wextra",
)
X86 = {
    "avx512": (16, ("-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mavx2", "-mfma", "-mprefer-vector-width=512")),
    "avx2": (8, ("-mavx2", "-mfma", "-mf16c")),
}
BASE = ("base", 4, ())


def variants(machine: str) -> list[tuple[str, int, tuple[str, ...]]]:
    """(name, lanes, flags) of every instruction set that is built for a machine."""
    if machine not in ("x86_64", "AMD64"):
        return [BASE]
    return [*((name, lanes, flags) for name, (lanes, flags) in X86.items()), BASE]


def build_into(folder: Path) -> bool:
    """Builds `folder`/_native.so; where it can't, says so and returns False, since all else works without it."""
    command = shlex.split(os.environ.get("CXX", "g++"))
    try:
        with tempfile.TemporaryDirectory() as scratch:
            _build(command, Path(scratch), folder)
    except (OSError, subprocess.CalledProcessError) as e:
        print(f"\nedgecl: the native engine's kernels were NOT built ({e}).", file=sys.stderr)
        print("edgecl: install a C++17 compiler (g++, or name yours in CXX) and install edgecl again.\n", file=sys.stderr)
        return False
    print(f"edgecl: kernels built: {folder / LIBRARY}")
    return True


def _build(compiler: list[str], scratch: Path, folder: Path) -> None:
    flags = [*FLAGS, *shlex.split(os.environ.get("EDGECL_CXXFLAGS", ""))]
    built, machine = variants(os.environ.get("EDGECL_MACHINE", platform.machine())), []
    if len(built) > 1:
        machine = ["-DEDGECL_HAS_X86"]
    jobs = [_variant(*one, half) for half in ("", "_half") for one in built]
    jobs += [("pool", "pool.cpp", []), ("choose", "choose.cpp", machine)]
    commands = [[*compiler, *flags, *own, "-c", str(SOURCES / source), "-o", str(scratch / f"{n}.o")] for n, source, own in jobs]
    with ThreadPoolExecutor(2) as two:  # more would not fit into the memory of a small board
        list(two.map(_run, commands))
    folder.mkdir(parents=True, exist_ok=True)
    objects = [str(scratch / f"{name}.o") for name, _, _ in jobs]
    library = scratch / LIBRARY
    _run([*compiler, *flags, "-shared", *objects, "-o", str(library)])
    target = folder / f"{LIBRARY}.{os.getpid()}"
    target.write_bytes(library.read_bytes())
    target.replace(folder / LIBRARY)  # a process that has the old one loaded keeps it whole


def _variant(name: str, lanes: int, flags: tuple[str, ...], half: str) -> tuple[str, str, list[str]]:
    defines = [f"-DEDGECL_NS={name}{half}", f"-DEDGECL_V={lanes}", f"-DEDGECL_RUN=run_{name}{half}"]
    return f"run_{name}{half}", "run.cpp", [*flags, *defines, *(["-DEDGECL_HALF"] if half else [])]


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True)
