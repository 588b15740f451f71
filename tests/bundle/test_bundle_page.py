"""docs/formats/bundle.md against the code: its tables, its limits, and the reader on the page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from bundle_cases import members
from wheel_cases import wheel

from edgecl import bundle, slots
from edgecl.bundle import Wish, container, manifest, signature, targets

PAGE = (Path(__file__).resolve().parents[2] / "docs/formats/bundle.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    parts = re.split(r"^#+ (.*)\n", re.sub(r"^```python\n.*?^```", "", PAGE, flags=re.M | re.S), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[heading]


def first(text: str) -> list[str]:
    return [name for row in re.findall(r"^\|(.*?)\|", text, re.M) for name in re.findall("`([^`]+)`", row)]


def test_keys_of_the_manifest(made: Path) -> None:
    assert first(section("manifest.json")) == list(json.loads(dict(members(made))["manifest.json"]))
    assert all(f"`{t}`" in section("manifest.json") for t in bundle.TARGETS)
    assert {targets.MEMORY, targets.CPU} <= set(re.findall("`([^`]+)`", section("manifest.json")))


def test_limits() -> None:
    numbers = [n.replace(",", "") for n in re.findall(r"^\| .* \| ([\d,]+)(?: bytes.*)? \|$", section("The archive"), re.M)]
    limits = (manifest.MANIFEST_BYTES, signature.SIGNATURE_BYTES, manifest.FILES, manifest.FILE_BYTES, manifest.TOTAL_BYTES)
    assert numbers == [str(n) for n in limits]
    assert f"at most {manifest.SAMPLES} samples" in section("The self-test")
    assert slots.LIMIT + 1 == 4
    assert "at the fourth" in section("Slots")


def test_the_table_of_a_header() -> None:
    block = container.header("card.json", 8)
    pairs = re.findall(r"(\d+)–(\d+)|^\| (156) ", section("The archive"), re.M)
    spans = sorted((int(a or c), int(b or c) + 1) for a, b, c in pairs)
    assert spans[0][0] == 0
    assert spans[-1][1] == len(block)
    assert all(a[1] == b[0] for a, b in pairwise(spans))


def test_files(made: Path) -> None:
    named = first(section("Files"))
    for path in bundle.inspect(made).manifest.files:
        assert path in named or any(n.endswith("/") and path.startswith(n) for n in named), path


def test_slots(made: Path, newer: Path, public: Path, tmp_path: Path) -> None:
    for each in (made, newer):
        bundle.install(each, tmp_path, public)
    found = {p.relative_to(tmp_path).as_posix() for p in (*tmp_path.iterdir(), *(tmp_path / "slots").iterdir())}
    assert found - {"slots"} <= set(first(section("Slots")))
    assert {"slots/a", "slots/b", slots.CURRENT, slots.TRIES, slots.LOCK} <= found


def reader() -> Callable[[Path, Path], Any]:
    """The page's own program."""
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    names: dict[str, Any] = {}
    exec(program, names)
    return names["read_bundle"]  # type: ignore[no-any-return]


def test_the_page_has_a_reader_that_works(made: Path, public: Path) -> None:
    found, files = reader()(made, public)
    assert found["target"] == "host"
    assert [*files.items()] == members(made)[2:]


def test_the_reader_knows_long_paths(run: Path, private: Path, public: Path, tmp_path: Path) -> None:
    name = f"edgecl-1.0.0.0.0-py3-none-{'.'.join(f'manylinux_2_{n}_x86_64' for n in range(10, 12))}.manylinux_2_13_aarch64.whl"
    wheel(tmp_path / "wheels", name)
    bundle.create(run, tmp_path / "x.edgecl", private, Wish("rpi", wheels=tmp_path / "wheels"))
    assert len(f"wheels/{name}") > 100
    assert f"wheels/{name}" in reader()(tmp_path / "x.edgecl", public)[1]


def test_the_reader_sees_damage(made: Path, public: Path, tmp_path: Path) -> None:
    data, bad = made.read_bytes(), tmp_path / "bad.edgecl"
    for at in (0, 130, 600, 2 * 512 + 3, *range(5000, len(data), 30_011), len(data) - 1):
        bad.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        with pytest.raises(ValueError, match=r"damaged|invalid|not the|unpack|codec"):
            reader()(bad, public)
    bundle.keygen(tmp_path / "other.pem")
    with pytest.raises(ValueError, match="not the signature"):
        reader()(made, tmp_path / "other.pub")
