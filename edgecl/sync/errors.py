"""What can go wrong between a device and its hub, by what helps."""

from __future__ import annotations

from edgecl.types import DataError


class NetworkError(DataError):
    """The hub can't be reached, or gives no whole answer in time. Nothing is lost: try again later."""


class TrustError(DataError):
    """What came is not what the trusted keys vouch for, or is out of date: it was not taken. The hub or the link is at fault."""
