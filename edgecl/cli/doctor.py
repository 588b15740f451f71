"""`edgecl doctor`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

FEATURES = (
    "sse4_2",
    "avx",
    "f16c",
    "fma",
    "avx2",
    "avx512f",
    "avx512_bf16",
    "avx512_vnni",
    "amx_tile",
    "neon",
    "asimd",
    "asimddp",
    "sve",
    "bf16",
    "i8mm",
)
"""Instruction sets worth knowing, as /proc/cpuinfo names them."""


@click.command(epilog="\b\nExample:\n  edgecl doctor --json")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def command(as_json: bool) -> None:
    """Tell what this machine has, and which engines run on it.

    Imports no engine and measures nothing.
    """
    found = examine()
    if as_json:
        print(json.dumps(found))
        return
    from edgecl.cli.look import console, grid

    console().print(grid(_rows(found)))


def examine() -> dict[str, Any]:
    """Plain values."""
    from edgecl import environment
    from edgecl.data import catalog
    from edgecl.engines import AUTO, pick
    from edgecl.profiles import load_profile, profile_names

    host = load_profile("host")
    return {
        **environment.describe(),
        "isa": host.isa,
        "features": _features(),
        "usable_cores": host.cores,
        "memory_bytes": host.ram_bytes.value,
        "engines": _engines(),
        "engine": pick(AUTO)._asdict(),
        "kernels": _kernels(),
        "data": {r.name: str(r.where) if r.where else None for r in catalog()},
        "hints": {r.name: r.entry.hint for r in catalog() if not r.where},
        "profiles": {name: load_profile(name).title for name in profile_names()},
    }


def _features() -> list[str]:
    """Of the first core; none where the system has no /proc/cpuinfo."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            line = next((x for x in file if x.lower().startswith(("flags", "features"))), "")
    except OSError:
        return []
    return [f for f in FEATURES if f in line.split()]


def _engines() -> dict[str, str]:
    """Name → "ready", or what it lacks."""
    from importlib.util import find_spec

    from edgecl.engines import ENGINES

    torch = "ready" if find_spec("torch") else 'torch is not installed; pip install "edgecl[torch]"'
    found = {"torch": torch, "native": _native(), "numpy": "ready (slow: no masked weight is skipped)"}
    return {name: found[name] for name in ENGINES}


def _native() -> str:
    from edgecl import kernels
    from edgecl.types import ConfigError

    try:
        return f"ready ({kernels.load().isa})"
    except ConfigError as e:
        return str(e).removeprefix("engine native: ")


def _kernels() -> dict[str, Any] | None:
    """The library, the instruction sets built in and whether they run here, the one in use and its samples a vector."""
    from edgecl import kernels
    from edgecl.types import ConfigError

    try:
        used = kernels.load()
        return {"file": str(kernels.path()), "isas": kernels.isas(), "isa": used.isa, "lanes": used.lanes}
    except ConfigError:
        return None


def _rows(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    from edgecl.cli.text import size

    memory, packages = found["memory_bytes"], {k: v or "not installed" for k, v in found["packages"].items()}
    yield "edgecl", f"{found['edgecl']}" + (f" ({found['commit']})" if found["commit"] else "")
    yield "python", found["python"]
    yield "packages", ", ".join(f"{k} {v}" for k, v in packages.items())
    yield "system", found["system"]
    yield "cpu", f"{found['cpu']}, {found['usable_cores']} of {found['cores']} cores usable"
    yield "instructions", " ".join([found["isa"], *found["features"]])
    yield "memory", size(memory) if memory else "unknown"
    yield "default engine", f"{found['engine']['name']}: {found['engine']['why']}"
    yield "kernels", _kernels_text(found["kernels"])
    yield "engines", "\n".join(f"{k}: {v}" for k, v in found["engines"].items())
    yield "data", "\n".join(f"{k}: {v or 'not here; ' + found['hints'][k]}" for k, v in found["data"].items())
    yield "profiles", "\n".join(f"{k}: {v}" for k, v in found["profiles"].items())


def _kernels_text(found: dict[str, Any] | None) -> str:
    if found is None:
        return "none"
    others = [name + " (not on this processor)" * (not here) for name, here in found["isas"].items() if name != found["isa"]]
    also = f"; built in too: {', '.join(others)}" if others else ""
    return f"{found['isa']}, {found['lanes']} samples a vector{also}"
