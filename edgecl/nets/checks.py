"""Values of a net's nodes, checked one by one before any shape is worked out."""

from __future__ import annotations

from typing import Any

ROLES = ("", "stem", "shortcut", "classifier")
"""Why a layer stays dense; "" for one that may be masked."""

_LEAST = {"padding": 0}  # of whole numbers; 1 for all others


def wrong(key: str, kind: str, value: Any) -> str:
    """What is wrong with a node's value, "" if nothing is; `kind` is the type as its field is annotated."""
    least, number = _LEAST.get(key, 1), isinstance(value, (int, float)) and not isinstance(value, bool)
    fits, wanted = {
        "int": (number and isinstance(value, int) and value >= least, f"a whole number from {least} up"),
        "float": (number and value > 0, "a number above 0 (in YAML 1.0e-5, not 1e-5)"),
        "bool": (isinstance(value, bool), "true or false"),
        "str": (isinstance(value, str), "a text"),
        "tuple[str, ...]": (isinstance(value, tuple) and all(isinstance(v, str) for v in value), "a list of names"),
    }[kind]
    if key == "role" and value not in ROLES:
        fits, wanted = False, f"one of {', '.join(ROLES[1:])}, or empty"
    return "" if fits else f"{key} is {value!r}, not {wanted}"
