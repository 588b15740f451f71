"""The hub's database: plain functions over an open `Engine` (`connect`), one transaction each unless they take a connection.

Each raises StoreError where the database fails, and ConfigError or DataError that names device, model or operator. Times are
seconds since 1970, UTC, by the hub's clock.
"""

from edgecl.hub.store.devices import (
    Device,
    Token,
    add_token,
    approve,
    device,
    devices,
    enroll,
    report,
    revoke,
)
from edgecl.hub.store.models import (
    Merge,
    Model,
    add_merge,
    add_model,
    current,
    merges,
    model,
    models,
    of_snapshot,
    share,
    shared,
    unpublished,
    was_published,
)
from edgecl.hub.store.operators import Entry, add_operator, audit, check_operator, operators, remove_operator
from edgecl.hub.store.tables import connect, now, prepare, reading, writing
from edgecl.hub.store.updates import Update, insert, judged, outlived, refuse, stored_bytes, update, updates, waiting

__all__ = [
    "Device",
    "Entry",
    "Merge",
    "Model",
    "Token",
    "Update",
    "add_merge",
    "add_model",
    "add_operator",
    "add_token",
    "approve",
    "audit",
    "check_operator",
    "connect",
    "current",
    "device",
    "devices",
    "enroll",
    "insert",
    "judged",
    "merges",
    "model",
    "models",
    "now",
    "of_snapshot",
    "operators",
    "outlived",
    "prepare",
    "reading",
    "refuse",
    "remove_operator",
    "report",
    "revoke",
    "share",
    "shared",
    "stored_bytes",
    "unpublished",
    "update",
    "updates",
    "waiting",
    "was_published",
    "writing",
]
