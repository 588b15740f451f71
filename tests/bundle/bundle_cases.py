"""Bundles taken apart and put together again, by the standard library's reader of archives."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgecl.bundle import container, signature
from edgecl.bundle.manifest import MANIFEST, SIGNATURE

Members = list[tuple[str, bytes]]


def members(path: Path) -> Members:
    with tarfile.open(path, "r:") as archive:
        return [(m.name, archive.extractfile(m).read()) for m in archive.getmembers()]  # type: ignore[union-attr]


def archive(listed: Sequence[tuple[str, bytes]]) -> bytes:
    return b"".join(container.header(p, len(d)) + d + container.padding(len(d)) for p, d in listed) + container.END


def resigned(path: Path, key: Path, **changes: Any) -> bytes:
    """The bundle with other values at the top of its manifest, signed anew."""
    files = dict(members(path))
    data = (json.dumps({**json.loads(files[MANIFEST]), **changes}, indent=1, sort_keys=True) + "\n").encode()
    rest = [(k, v) for k, v in files.items() if k not in (MANIFEST, SIGNATURE)]
    return archive([(MANIFEST, data), (SIGNATURE, signature.sign(key, data)), *rest])


def foreign(path: Path) -> bytes:
    """The same files as another program would pack them, with a time and an owner."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as made:
        for name, data in members(path):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1
            made.addfile(info, io.BytesIO(data))
    return out.getvalue()
