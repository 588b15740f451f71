"""Nonces that need no memory until they are used: each carries the time and a MAC by a key that lives as long as the process.

Whoever asks for nonces without a device's key can't use them up for it, nor fill anything.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

BYTES, MAC = 16, 8
MOST = 1_000_000
"""Used nonces that are remembered; only signed requests use one."""


class Nonces:
    """Gives nonces and takes each once, from the device that it was given to, for `seconds`."""

    def __init__(self, seconds: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock, self._began = seconds, clock, clock()
        self._key, self._lock = secrets.token_bytes(32), threading.Lock()
        self._used: OrderedDict[bytes, float] = OrderedDict()

    def give(self, device: str) -> bytes:
        """16 bytes."""
        head = self._now().to_bytes(4, "big") + secrets.token_bytes(4)
        return head + self._mac(device, head)

    def take(self, device: str, nonce: bytes) -> bool:
        """Whether it was given to this device, is not too old, and was not taken before."""
        if len(nonce) != BYTES or not hmac.compare_digest(self._mac(device, nonce[:-MAC]), nonce[-MAC:]):
            return False
        given = int.from_bytes(nonce[:4], "big")
        if self._now() - given > self._seconds:
            return False
        with self._lock:
            self._sweep()
            if nonce in self._used or len(self._used) >= MOST:
                return False
            self._used[nonce] = given
            return True

    def _now(self) -> int:
        return int(self._clock() - self._began)

    def _sweep(self) -> None:
        """Forgets those that are too old to be taken anyway."""
        while self._used and self._now() - next(iter(self._used.values())) > 2 * self._seconds:
            self._used.popitem(last=False)

    def _mac(self, device: str, head: bytes) -> bytes:
        return hmac.digest(self._key, device.encode() + head, hashlib.sha256)[:MAC]
