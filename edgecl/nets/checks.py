"""Values of a net's nodes, checked one by one before any shape is worked out."""

from __future__ import annotations

from typing import Any

ROLES = ("", "stem", "shortcut", "classifier")
"""Why a layer stays dense; "" for one that may be masked."""

_LEAST = dict.fromkeys(("padding", "left", "right", "top", "bottom"), 0)  # of whole numbers; 1 for all others


def wrong(key: str, kind: str, value: Any) -> str:
    """What is wrong with a node's value, "" if nothing is; `kind` is the type as its field is annotated."""
    least, number = _LEAST.get(key, 1), isinstance(value, (int, float)) and not isinstance(value, bool)
    fits, wanted = {
        "int": (_whole(value, least), f"a whole number from {least} up"),
        "Pair": (_whole(value, least) or _two(value, least), f"a whole number from {least} up, or two: height and width"),
        "float": (number and value > 0, "a number above 0 (in YAML 1.0e-5, not 1e-5)"),
        "bool": (isinstance(value, bool), "true or false"),
        "str": (isinstance(value, str), "a text"),
        "tuple[str, ...]": (isinstance(value, tuple) and all(isinstance(v, str) for v in value), "a list of names"),
    }[kind]
    if key == "role" and value not in ROLES:
        fits, wanted = False, f"one of {', '.join(ROLES[1:])}, or empty"
    return "" if fits else f"{key} is {value!r}, not {wanted}"


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _two(value: Any, least: int) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(_whole(v, least) for v in value)
