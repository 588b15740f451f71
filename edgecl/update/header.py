"""The part of an update that can be read without its base."""

from __future__ import annotations

from typing import Any, NamedTuple

from edgecl.update import cbor
from edgecl.update.errors import UpdateError
from edgecl.update.values import KINDS

FORMAT = 1
CLASSES, NAME_BYTES, COUNT, MILLISECONDS = 10_000, 256, 1 << 63, 1 << 48
"""Classes of an update and bytes of a name at most; every count is below the third, a time below the fourth: a float64 of
seconds tells such milliseconds apart."""

TYPES: dict[str, type] = {
    "arrays": memoryview, "base": memoryview, "classes": list, "executed": int, "format": int, "halves": memoryview,
    "levels": memoryview, "masks": list, "milliseconds": int, "net": str, "samples": list, "scales": memoryview,
    "singles": memoryview, "steps": int, "values": str,
}  # fmt: skip
"""Keys of a payload."""


class Header(NamedTuple):
    """What is told of an update without its base."""

    base: str  # snapshot, 64 hex digits
    net: str
    classes: tuple[str, ...]
    samples: tuple[int, ...]  # of each class
    steps: int
    executed: int  # FLOPs
    seconds: float
    values: str  # one of values.KINDS


def peek(payload: bytes) -> Header:
    """Raises UpdateError for what is no update of this format; its arrays are not looked at."""
    return header_of(parse(payload))


def parse(payload: bytes) -> dict[str, Any]:
    """Its keys and values, of their types. Raises UpdateError."""
    body = cbor.decode("update", payload)
    if not isinstance(body, dict) or type(body.get("format")) is not int:
        raise UpdateError("update: has no format")
    if body["format"] != FORMAT:
        raise UpdateError(f"update: is of format {body['format']}, but this edgecl reads format {FORMAT}")
    strange = sorted(set(body) ^ set(TYPES))
    if strange:
        raise UpdateError(f"update: {'lacks' if strange[0] in TYPES else 'has a strange'} key {strange[0][:40]!r}")
    for key, kind in TYPES.items():
        if type(body[key]) is not kind:
            raise UpdateError(f"update: {key} is of another type")
    return body


def header_of(body: dict[str, Any]) -> Header:
    """Raises UpdateError that names the key that is wrong."""
    if len(body["base"]) != 32:
        raise UpdateError("update: base is no sha256")
    if body["values"] not in KINDS:
        raise UpdateError(f"update: values are {body['values'][:40]!r}; known: {', '.join(KINDS)}")
    _names("net", [body["net"]])
    _names("classes", body["classes"])
    counts = body["samples"]
    if len(counts) != len(body["classes"]) or not all(type(n) is int for n in counts):
        raise UpdateError("update: samples are not a number for each class")
    if max([*counts, body["steps"], body["executed"]]) >= COUNT or body["milliseconds"] >= MILLISECONDS:
        raise UpdateError("update: a count is 2^63 or more, or milliseconds are 2^48 or more")
    own = (bytes(body["base"]).hex(), body["net"], tuple(body["classes"]), tuple(counts))
    return Header(*own, body["steps"], body["executed"], body["milliseconds"] / 1000, body["values"])


def _names(key: str, names: list[Any]) -> None:
    good = all(isinstance(n, str) and 0 < len(n.encode()) <= NAME_BYTES and n.isprintable() for n in names)
    if not good or len(names) > CLASSES or len(set(names)) != len(names):
        what = f"at most {CLASSES} different printable names of 1 to {NAME_BYTES} bytes"
        raise UpdateError(f"update: {key}: not {what}")
