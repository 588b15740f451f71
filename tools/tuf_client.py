#!/usr/bin/env python3
"""The device's TUF client behind the command line that the public conformance suite asks for.

    git clone https://github.com/theupdateframework/tuf-conformance && cd tuf-conformance
    pytest tuf_conformance --entrypoint "python PATH/TO/tools/tuf_client.py"

(the program `faketime` has to be there). Storage, transport, downloads and rules are those of `edgecl.sync`; only the time is the
system's here, since the suite's repositories sign none. See theupdateframework/tuf-conformance, CLIENT-CLI.md.
"""

from __future__ import annotations

import argparse
import sys
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import quote

from edgecl.sync.trust import Source, Trust
from edgecl.types import EdgeclError

OWN = ".trust"  # our own storage, beside the files that the suite looks at


def opened(args: argparse.Namespace) -> Trust:
    folder: Path = args.metadata_dir
    source = Source(args.metadata_url.rstrip("/"), (args.target_base_url or "").rstrip("/"), "")
    root = None if (folder / OWN / "trusted.json").exists() else (folder / "root.json").read_bytes()
    return Trust(folder / OWN, "", root, source=source, clock=lambda root: datetime.now(timezone.utc), models=False)


def show(trust: Trust, folder: Path) -> None:
    """What is trusted, as files under the names that the suite expects."""
    for role, data in trust.metadata.items():
        (folder / f"{quote(role, '')}.json").write_bytes(data)


def download(trust: Trust, names: list[str], folder: Path) -> None:
    for name in names:
        info = trust.info(name)
        if info is None:
            raise SystemExit(f"{name}: not found in the repository")
        trust.fetch(info, folder / quote(name, ""))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--metadata-url")
    parser.add_argument("--target-name", action="append")
    parser.add_argument("--target-dir", type=Path)
    parser.add_argument("--target-base-url")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    return parser.parse_args()


def main() -> int:
    args = parsed()
    if args.command == "init":
        (args.metadata_dir / "root.json").write_bytes(args.root.read_bytes())
        return 0
    try:
        trust = opened(args)
        try:
            trust.refresh()
            if args.command == "download":
                download(trust, args.target_name, args.target_dir)
        finally:
            show(trust, args.metadata_dir)
    except EdgeclError as e:
        print(e, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
