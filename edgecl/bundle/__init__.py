"""F4: signed bundles: one file with all that a device needs, and nothing on it that its owner did not sign.

create(run, out, private, Wish("rpi"))     verify(out, public)     open_bundle(out, public) → an unpacked folder
docs/formats/bundle.md describes the file byte by byte.
"""

from edgecl.bundle.creating import Wish, create
from edgecl.bundle.installing import Installed, install
from edgecl.bundle.manifest import FORMAT, Entry, Manifest, SelfTest
from edgecl.bundle.reading import Head, inspect, open_bundle, read_manifest, unpack, verify, verify_folder
from edgecl.bundle.selftest import read_card
from edgecl.bundle.signature import keygen
from edgecl.bundle.targets import TARGETS, Target, this_machine

__all__ = [
    "FORMAT",
    "TARGETS",
    "Entry",
    "Head",
    "Installed",
    "Manifest",
    "SelfTest",
    "Target",
    "Wish",
    "create",
    "inspect",
    "install",
    "keygen",
    "open_bundle",
    "read_card",
    "read_manifest",
    "this_machine",
    "unpack",
    "verify",
    "verify_folder",
]
