"""F5: the update format: what a device learned on top of a base, to bytes and back (docs/adr/0010).

difference(base, learned) → Update    encode(update, base) → bytes    decode(bytes, base)    apply(base, update) → weights, masks
docs/formats/update.md describes the bytes.
"""

from edgecl.update.difference import Base, Update, apply, difference, residual
from edgecl.update.envelope import Envelope, open_envelope, open_record, peek_envelope, seal, seal_record
from edgecl.update.errors import UpdateError
from edgecl.update.header import Header, peek
from edgecl.update.payload import decode, encode, most_bytes
from edgecl.update.taught import Taught, taught_since

__all__ = [
    "Base",
    "Envelope",
    "Header",
    "Taught",
    "Update",
    "UpdateError",
    "apply",
    "decode",
    "difference",
    "encode",
    "most_bytes",
    "open_envelope",
    "open_record",
    "peek",
    "peek_envelope",
    "residual",
    "seal",
    "seal_record",
    "taught_since",
]
