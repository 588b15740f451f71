"""What time it is, by the hub: a statement over a nonce of the device's, signed by the key of the role timestamp.

`{"signatures": [{"keyid", "sig"}], "signed": {"_type": "edgecl-time", "nonce": 32 hex digits, "time": UTC seconds}}`. A device's
own clock may show 1970 or next decade; between two statements only its time since boot counts.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from edgecl.sync.errors import NetworkError, TrustError

if TYPE_CHECKING:
    from tuf.api.metadata import Root

    from edgecl.sync.fetcher import Http

TYPE = "edgecl-time"
STATEMENT_BYTES = 1024  # of its JSON
SIGNATURES = 4
AGE = 3600.0  # seconds after which the hub is asked again
NONCE = re.compile(r"[0-9a-f]{32}")
_SIGNATURE = re.compile(r"[0-9a-f]{128}")
_KEY = re.compile(r"[0-9a-f]{64}")
LATEST = 253402300799  # the last second of the year 9999


def signed_bytes(nonce: str, seconds: int) -> bytes:
    """What the signature is over: canonical JSON that no TUF metadata can be, by its `_type`."""
    return json.dumps({"_type": TYPE, "nonce": nonce, "time": seconds}, sort_keys=True, separators=(",", ":")).encode()


def verify(data: bytes, nonce: str, root: Root) -> int:
    """UTC seconds of a statement, by the timestamp key of `root`. Raises TrustError."""
    from securesystemslib.signer import Signature
    from tuf.api.exceptions import RepositoryError

    seconds, signatures = _parse(data, nonce)
    try:
        root.verify_delegate("timestamp", signed_bytes(nonce, seconds), {k: Signature(k, s) for k, s in signatures.items()})
    except RepositoryError:
        raise TrustError("the hub's time is not signed by its timestamp key") from None
    return seconds


def _parse(data: bytes, nonce: str) -> tuple[int, dict[str, str]]:
    try:
        match json.loads(data):
            case {"signed": {"_type": "edgecl-time", "nonce": said, "time": int(seconds)}, "signatures": [*rows]}:
                if said == nonce and 0 < seconds <= LATEST and not isinstance(seconds, bool):
                    return seconds, _signatures(rows)
    except (ValueError, RecursionError):
        pass
    raise TrustError("the hub's time is no statement over the nonce that was sent")


def _signatures(rows: list[Any]) -> dict[str, str]:
    found = {}
    for row in rows[:SIGNATURES]:
        match row:
            case {"keyid": str(key), "sig": str(signature)} if _KEY.fullmatch(key) and _SIGNATURE.fullmatch(signature):
                found[key] = signature
    return found


def since_boot() -> float:
    """Seconds, sleep among them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class HubClock:
    """The hub's time, asked for at most once in AGE seconds, and anew when its key changes."""

    def __init__(self, http: Http, url: str) -> None:
        self._http, self._url = http, url
        self._said: tuple[int, float, tuple[str, ...]] | None = None  # (UTC seconds, since boot, the keys then)

    def __call__(self, root: Root) -> datetime:
        """Never later than the true time by the hub. Raises NetworkError, TrustError."""
        keys = tuple(root.roles["timestamp"].keyids)
        if self._said is None or self._said[2] != keys or since_boot() - self._said[1] > AGE:
            self._said = self._ask(root), since_boot(), keys
        return datetime.fromtimestamp(self._said[0] + since_boot() - self._said[1], timezone.utc)

    def _ask(self, root: Root) -> int:
        nonce = secrets.token_hex(16)
        answer = self._http.read(f"{self._url}?nonce={nonce}", STATEMENT_BYTES)
        if answer.status != 200:
            raise NetworkError(f"{self._url}: the hub gave no time (status {answer.status}); without it nothing is taken")
        return verify(answer.body, nonce, root)
