"""Names, aliases, the catalog, and that asking for data stays light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgecl.data import DATASETS, catalog, cifar, fetch, load_stream, resolve
from edgecl.types import ConfigError


def test_every_name_and_alias_resolves_to_one_data_set() -> None:
    names = [n for key, entry in DATASETS.items() for n in (key, *entry.aliases)]
    assert len(set(names)) == len(names)
    assert {resolve(n) for n in names} == set(DATASETS)
    assert resolve("seq-cifar10") == resolve("split-cifar10") == resolve(" Seq_CIFAR10 ") == "cifar10"


@pytest.mark.parametrize(("name", "text"), [("cifr10", "'cifar10'"), ("seq-digit", "'seq-digits'"), ("?", "cifar10, digits")])
def test_an_unknown_name_gets_the_nearest(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        load_stream(name)


def test_the_catalog_says_what_is_here(tmp_path: Path) -> None:
    rows = {row.name: row for row in catalog(str(tmp_path))}
    assert set(rows) == set(DATASETS)
    assert rows["cifar10"].where is None
    assert rows["cifar10"].entry.hint == "edgecl data get cifar10"
    assert rows["digits"].where is not None
    assert all(row.entry.licence and row.entry.title for row in rows.values())


def test_an_entry_tells_what_its_loader_gives() -> None:
    stream, entry = load_stream("digits"), DATASETS["digits"]
    assert stream.shape == entry.shape
    assert len(stream.class_names) == entry.classes
    assert (sum(len(t.train) for t in stream.tasks), sum(map(len, stream.tests))) == (entry.train, entry.test)


def test_no_torch_and_no_sklearn_are_imported() -> None:
    code = (
        "import sys; import edgecl.data, edgecl.data.fetch; edgecl.data.load_stream('digits'); edgecl.data.catalog();"
        "print([m for m in ('torch', 'sklearn', 'scipy', 'PIL') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"


def test_the_published_archive_is_pinned() -> None:
    published = fetch.ARCHIVES["cifar10"]
    assert published.hashes["md5"] == "c32a1d4ab5d03f1284b67883e8d87530"
    assert len(published.hashes["sha256"]) == 64
    assert published.filename == "cifar-10-binary.tar.gz"
    assert set(published.members) == {*cifar.TRAIN_FILES, cifar.TEST_FILE, cifar.META_FILE}
