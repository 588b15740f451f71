"""What the hub says no to, by HTTP status. Which of them are final for a device is said in docs/adr/0010-sync.md."""

from __future__ import annotations

from collections.abc import Mapping


class Refusal(Exception):
    """An answer with one line of why, and headers."""

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status, self.text, self.headers = status, text, dict(headers or {})


def later(text: str, seconds: int, status: int = 429) -> Refusal:
    """Something that may go better in so many seconds."""
    return Refusal(status, text, {"Retry-After": str(seconds)})


def elsewhere(offset: int) -> Refusal:
    """409 that names the offset at which an upload goes on."""
    return Refusal(409, f"this upload is at offset {offset}", {"Upload-Offset": str(offset)})
