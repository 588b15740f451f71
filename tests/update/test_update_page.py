"""docs/formats/update.md against the code: its tables, its limits, and the reader on the page."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from update_cases import CASES, case

from edgecl.update import apply, cbor, decode, encode, seal, values
from edgecl.update.envelope import ENVELOPE, LIMITS, REPORT, SIZES, device_of
from edgecl.update.header import CLASSES, COUNT, FORMAT, MILLISECONDS, NAME_BYTES, TYPES

PAGE = (Path(__file__).resolve().parents[2] / "docs/formats/update.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    parts = re.split(r"^## (.*)\n", re.sub(r"^```python\n.*?^```", "", PAGE, flags=re.M | re.S), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[heading]


def rows(heading: str) -> list[tuple[str, ...]]:
    found = [tuple(c.strip() for c in row.split("|")) for row in re.findall(r"^\| (.*) \|$", section(heading), re.M)]
    return [r for r in found if set(r[0]) != {"-"}]


KINDS = {"bytes": memoryview, "array": list, "integer": int, "text": str}


def test_keys_of_the_payload() -> None:
    told = {r[0].strip("`"): KINDS[r[1]] for r in rows("The payload") if len(r) == 3 and r[0] != "key"}
    assert told == TYPES
    assert [*told] == sorted(told)
    assert FORMAT == 1
    assert all(f"`{kind}`" in section("The payload") for kind in values.KINDS)


def test_limits() -> None:
    told = dict(r for r in rows("The payload") if len(r) == 2)
    assert told["classes"] == str(CLASSES)
    assert told["a name"].startswith(f"{NAME_BYTES} bytes")
    assert (told["a count"], told["`milliseconds`"]) == ("below 2⁶³", "below 2⁴⁸")
    assert (COUNT, MILLISECONDS) == (2**63, 2**48)
    assert f"at most {cbor.DEPTH} deep" in section("CBOR")
    assert f"{cbor.VALUES} values in all" in section("CBOR")
    text = section("Arrays")
    assert all(f"±{top} for `{kind}`" in text.replace("\n", " ") for kind, top in values.LEVELS.items())
    assert (values.SMALLEST, values.LARGEST, values.HALF_LARGEST) == (2**-100, 2**100, 65504)


def test_keys_of_the_envelope(private: Path, public: bytes) -> None:
    body = cbor.decode("x", cbor.decode("x", seal(private, device_of(public), 0, bytes(16), b""))[0])
    assert [r[0].strip("`") for r in rows("The envelope") if r[0] != "key"] == sorted(body)
    assert all(f"| {size}" in section("The envelope") for size in SIZES.values())
    assert f"`{ENVELOPE}`" in section("The envelope")
    assert f"`{REPORT}`" in section("The envelope")
    assert f"at most {LIMITS[REPORT]} bytes" in section("The envelope")
    assert f"at most {LIMITS[ENVELOPE]} bytes" in PAGE


def reader() -> Callable[..., Any]:
    """The page's own program."""
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    names: dict[str, Any] = {}
    exec(program, names)
    return names["read_update"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", values.KINDS)
def test_the_page_has_a_reader_that_works(name: str, kind: str) -> None:
    base, update = case(name)
    payload = encode(update, base, kind)
    weights, live, body = reader()(payload, base.weights, base.live, base.net.logits)
    wanted, units = apply(base, decode(payload, base))
    assert (body["classes"], body["steps"]) == ([*update.classes], update.steps)
    assert [*weights] == [*wanted]
    for k, a in wanted.items():
        np.testing.assert_allclose(weights[k], a, rtol=1e-6, atol=1e-7, err_msg=k)
    for k, u in units.items():
        np.testing.assert_array_equal(live[k], u, err_msg=k)
