"""What a reader of updates says."""

from edgecl.types import DataError


class UpdateError(DataError):
    """An update or envelope that is damaged, forged, or of another base; names what is wrong with it in one line."""
