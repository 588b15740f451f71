"""The page has the settings that there are."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import yaml

from edgecl.merge import Settings

PAGE = Path(__file__).resolve().parents[2] / "docs/sync-merging.md"


def test_the_table_of_settings_is_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", PAGE.read_text(), re.M)
    assert {key: yaml.safe_load(value) for key, value in rows} == asdict(Settings())
