"""One encoding of every value, and no other is read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecl.update import UpdateError, cbor

EXAMPLES: list[tuple[Any, str]] = [  # of RFC 8949, appendix A
    (0, "00"),
    (23, "17"),
    (24, "1818"),
    (100, "1864"),
    (1000, "1903e8"),
    (1000000, "1a000f4240"),
    (1000000000000, "1b000000e8d4a51000"),
    (18446744073709551615, "1bffffffffffffffff"),
    (None, "f6"),
    (b"", "40"),
    (b"\1\2\3\4", "4401020304"),
    ("", "60"),
    ("IETF", "6449455446"),
    ("ü", "62c3bc"),
    ("水", "63e6b0b4"),
    ([], "80"),
    ([1, [2, 3], [4, 5]], "8301820203820405"),
    ([*range(1, 26)], "98190102030405060708090a0b0c0d0e0f101112131415161718181819"),
    ({}, "a0"),
    ({"a": 1, "b": [2, 3]}, "a26161016162820203"),
    ({"b": 0, "aa": 1, "a": 2}, "a361610261620062616101"),  # shorter keys first
]


@pytest.mark.parametrize(("value", "encoded"), EXAMPLES)
def test_examples(value: Any, encoded: str) -> None:
    assert cbor.encode(value).hex() == encoded
    assert cbor.decode("x", bytes.fromhex(encoded)) == value


VALUES = st.recursive(
    st.none() | st.integers(0, 2**64 - 1) | st.binary(max_size=300) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=8,
)


def depth(value: Any) -> int:
    if not isinstance(value, (list, dict)):
        return 0
    return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0)


@given(VALUES.filter(lambda v: depth(v) <= cbor.DEPTH))
def test_there_and_back(value: Any) -> None:
    assert cbor.decode("x", cbor.encode(value)) == value


@given(st.binary(max_size=40))
def test_what_is_read_is_the_one_encoding(data: bytes) -> None:
    try:
        value = cbor.decode("x", data)
    except UpdateError:
        return
    assert cbor.encode(value) == data


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("", "cut off"),
        ("1817", "shortest"),
        ("190017", "shortest"),
        ("1900ff", "shortest"),
        ("1a0000ffff", "shortest"),
        ("1b00000000ffffffff", "shortest"),
        ("580161", "shortest"),
        ("20", "not used"),  # -1
        ("c074", "not used"),  # a tag
        ("f4", "not used"),  # false
        ("f7", "not used"),  # undefined
        ("f90000", "not used"),  # 0.0
        ("9fff", "indefinite"),
        ("5f4101ff", "indefinite"),
        ("bfff", "indefinite"),
        ("1c", "indefinite or reserved"),
        ("42ff", "cut off"),
        ("5bffffffffffffffff", "cut off"),
        ("9bffffffffffffffff", "cut off"),
        ("bb7fffffffffffffff", "cut off"),
        ("a2616200", "cut off"),
        ("a2616201616100", "rising"),
        ("a2616101616100", "rising"),
        ("a10102", "rising"),
        ("61ff", "UTF-8"),
        ("8181818180", "nested"),
        ("0000", "behind"),
    ],
)
def test_what_is_refused(data: str, why: str) -> None:
    with pytest.raises(UpdateError, match=f"^x: .*{why}"):
        cbor.decode("x", bytes.fromhex(data))


def test_no_end_of_values() -> None:
    assert len(cbor.decode("x", cbor.encode([None] * (cbor.VALUES - 1)))) == cbor.VALUES - 1
    for value in ([None] * cbor.VALUES, [[None] * 1000] * 100):
        with pytest.raises(UpdateError, match="more than 50000 values"):
            cbor.decode("x", cbor.encode(value))


@pytest.mark.parametrize("value", [-1, 2**64, 1.5, True, {"a": 1.5}, object(), "\ud800"])
def test_what_cannot_be_encoded(value: Any) -> None:
    with pytest.raises(UpdateError, match="can't be encoded"):
        cbor.encode(value)
