"""Who is logged in: tokens in a cookie, of which the hub keeps the hash only, and how often a login may be tried.

In memory: one process serves, and a restart logs everybody out.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

LASTS, IDLE = 12 * 3600.0, 3600.0  # seconds that a session lasts, and that it may lie unused
MOST = 1000  # sessions, and addresses or names that are counted: the oldest make room

TRIES, WINDOW = 5, 300.0  # failed logins of a name or an address within so many seconds


@dataclass
class Session:
    """Of one operator in one browser."""

    name: str
    csrf: str
    since: float  # when the password of the login was set
    began: float
    used: float


@dataclass
class Sessions:
    """`clock` gives seconds that only rise."""

    clock: Callable[[], float]
    _held: OrderedDict[str, Session] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self, name: str, since: float) -> str:
        """A token for the cookie."""
        token, now = secrets.token_urlsafe(32), self.clock()
        with self._lock:
            self._held[_hash(token)] = Session(name, secrets.token_urlsafe(32), since, now, now)
            while len(self._held) > MOST:
                self._held.popitem(last=False)
        return token

    def find(self, token: str) -> Session | None:
        """The session that a token names, if it still lasts; it counts as used now."""
        now, key = self.clock(), _hash(token)
        with self._lock:
            session = self._held.get(key)
            if session is None:
                return None
            if now - session.began > LASTS or now - session.used > IDLE:
                del self._held[key]
                return None
            session.used = now
            return session

    def close(self, token: str) -> None:
        """The token names nothing from now on."""
        with self._lock:
            self._held.pop(_hash(token), None)


@dataclass
class Tries:
    """Failed logins, counted by whatever key they are counted by."""

    clock: Callable[[], float]
    _failed: OrderedDict[str, list[float]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait(self, *keys: str) -> float:
        """Seconds until the next try is let in; 0: now."""
        with self._lock:
            return max((self._wait(k) for k in keys), default=0.0)

    def fail(self, *keys: str) -> None:
        """One more failed try of each."""
        now = self.clock()
        with self._lock:
            for key in keys:
                self._failed.setdefault(key, []).append(now)
                self._failed[key] = self._failed[key][-TRIES:]
                self._failed.move_to_end(key)
            while len(self._failed) > MOST:
                self._failed.popitem(last=False)

    def take_back(self, *keys: str) -> None:
        """The last that was counted of each was no failure."""
        with self._lock:
            for key in keys:
                if times := self._failed.get(key):
                    times.pop()

    def _wait(self, key: str) -> float:
        recent = [t for t in self._failed.get(key, []) if self.clock() - t < WINDOW]
        return recent[0] + WINDOW - self.clock() if len(recent) >= TRIES else 0.0


def same(a: str, b: str) -> bool:
    """Compares secrets in a time that tells nothing of where they differ."""
    return hmac.compare_digest(a.encode(), b.encode())


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
