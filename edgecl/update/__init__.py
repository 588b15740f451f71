"""F5: the update format: what a device learned on top of a base, to bytes and back (docs/adr/0010)."""

from edgecl.update.difference import Base, Update

__all__ = ["Base", "Update"]
