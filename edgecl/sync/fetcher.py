"""GET over HTTP or HTTPS with a bound on everything: connecting, silence, the whole time, the length. urllib3 moves the bytes.

There are no redirects, no retries (the caller's business), no compression and, unless asked, no proxy of the environment.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from edgecl.sync.errors import NetworkError, TrustError
from edgecl.types import ConfigError

try:
    import urllib3
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
except ModuleNotFoundError as e:
    if e.name != "urllib3":
        raise
    raise ConfigError('sync needs the package urllib3; pip install "edgecl[sync]"') from None

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

CHUNK = 1 << 16  # bytes handed on at a time
ENVIRONMENT = "environment"


@dataclass(frozen=True)
class Limits:
    """How long an answer may take. A stalled link is found after `silent`, one that trickles after `whole` and a file's share."""

    connect: float = 10.0  # seconds, for each address of the host
    silent: float = 30.0  # seconds without a byte
    whole: float = 60.0  # seconds for any answer, from the first byte sent
    slowest: float = 512.0  # bytes a second: a file may take its length over this on top

    def seconds(self, length: int) -> float:
        """For an answer of `length` bytes."""
        return self.whole + length / self.slowest


class Reply(NamedTuple):
    """The beginning of an answer."""

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]  # of at most CHUNK bytes


class Answer(NamedTuple):
    """A whole one."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Http:
    """A client for one thread; connections are kept and used again."""

    def __init__(
        self, limits: Limits | None = None, *, proxy: str | None = None, ca: Path | None = None, agent: str = "edgecl"
    ) -> None:
        """`proxy` is a URL, or "environment" for HTTP_PROXY and its kin; `ca` a PEM file in place of the system's authorities."""
        self.limits, self.proxy, self.agent = limits or Limits(), proxy, agent
        self._ca = None if ca is None else str(ca)
        self._watch = _Watch()
        self._pools: dict[str | None, urllib3.PoolManager] = {}

    def read(self, url: str, limit: int, headers: Mapping[str, str] | None = None) -> Answer:
        """The whole answer, whatever its status.

        Raises NetworkError where none comes in time, TrustError where it has more than `limit` bytes.
        """
        body = bytearray()
        with self.open(url, limit, headers) as reply:
            for chunk in reply.chunks:
                body += chunk
                if len(body) > limit:
                    raise TrustError(f"{url}: more than the {limit} bytes that it may have")
        return Answer(reply.status, reply.headers, bytes(body))

    @contextmanager
    def open(self, url: str, length: int, headers: Mapping[str, str] | None = None) -> Iterator[Reply]:
        """An answer whose chunks the caller counts; they get the time of `length` bytes. Raises NetworkError, in chunks too."""
        seconds, pool = self.limits.seconds(length), self._pool(url)
        sent = {"User-Agent": self.agent, **(headers or {})}
        with self._watch.cut_after(seconds):
            with self._explained(url, seconds):
                response = pool.urlopen("GET", url, headers=sent, redirect=False, retries=False, preload_content=False)
            try:
                if response.headers.get("Content-Encoding", "identity") != "identity":
                    raise TrustError(f"{url}: came compressed, which was not asked for")
                yield Reply(response.status, response.headers, self._chunks(url, seconds, response))
            finally:
                response.close()  # and its connection, if bytes are still to come

    def close(self) -> None:
        """Closes what is kept open."""
        for pool in self._pools.values():
            pool.clear()

    def _chunks(self, url: str, seconds: float, response: BaseHTTPResponse) -> Iterator[bytes]:
        with self._explained(url, seconds):
            while chunk := response.read1(CHUNK, decode_content=False):  # what is there, not CHUNK bytes, however slowly
                yield chunk
        if self._watch.late:  # a connection cut by the watch may look like one that ended well
            raise _late(url, seconds)

    @contextmanager
    def _explained(self, url: str, seconds: float) -> Iterator[None]:
        try:
            yield
        except (urllib3.exceptions.HTTPError, HTTPException, OSError, ValueError) as e:
            raise (_late(url, seconds) if self._watch.late else NetworkError(f"{url}: {self._reason(e)}")) from e

    def _reason(self, e: Exception) -> str:
        cause = e.__cause__
        if isinstance(e, urllib3.exceptions.NewConnectionError) and isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
        if isinstance(e, urllib3.exceptions.ConnectTimeoutError):
            return f"no connection within {self.limits.connect:g} s"
        if isinstance(e, urllib3.exceptions.TimeoutError):
            return f"no byte for {self.limits.silent:g} s"
        return " ".join(str(e).split())[:200] or type(e).__name__

    def _pool(self, url: str) -> urllib3.PoolManager:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url[:200]}: is no http:// or https:// address")
        proxy = self.proxy
        if proxy == ENVIRONMENT:
            proxy = None if proxy_bypass(parts.hostname) else getproxies().get(parts.scheme)
        if proxy not in self._pools:
            self._pools[proxy] = self._make(proxy)
        return self._pools[proxy]

    def _make(self, proxy: str | None) -> urllib3.PoolManager:
        timeout = urllib3.Timeout(connect=self.limits.connect, read=self.limits.silent)
        options: dict[str, Any] = {"timeout": timeout, "maxsize": 1, "num_pools": 4, "ca_certs": self._ca}
        pool = urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)
        pool.pool_classes_by_scheme = self._watch.pools()
        return pool


class _Watch:
    """Cuts the connections of a client at a deadline. A socket's own timeout begins anew with every byte."""

    def __init__(self) -> None:
        self.late = False
        self._twins: set[socket.socket] = set()
        self._left: set[socket.socket] = set()  # of connections that were closed; an answer may still be read from such a one

    @contextmanager
    def cut_after(self, seconds: float) -> Iterator[None]:
        self.late = False
        timer = threading.Timer(seconds, self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()  # or it would cut the next one
            for twin in self._left:
                twin.close()
            self._twins -= self._left
            self._left.clear()

    def add(self, sock: socket.socket) -> socket.socket:
        """A second descriptor of the connection: TLS takes the first one away."""
        twin = sock.dup()
        self._twins.add(twin)
        if self.late:
            self._cut()
        return twin

    def drop(self, twin: socket.socket) -> None:
        """Closes it at the end of the request."""
        self._left.add(twin)

    def _cut(self) -> None:
        self.late = True
        for twin in tuple(self._twins):
            with suppress(OSError):  # the other side was faster
                twin.shutdown(socket.SHUT_RDWR)

    def pools(self) -> dict[str, type[HTTPConnectionPool]]:
        """urllib3's own, with connections that this one can cut."""
        named = {"watch": self}
        plain = type("Plain", (_Watched, HTTPConnection), named)
        secure = type("Secure", (_Watched, HTTPSConnection), named)
        return {
            "http": type("PlainPool", (HTTPConnectionPool,), {"ConnectionCls": plain}),
            "https": type("SecurePool", (HTTPSConnectionPool,), {"ConnectionCls": secure}),
        }


class _Watched(HTTPConnection):
    watch: ClassVar[_Watch]
    _twin: socket.socket | None = None

    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()
        self._twin = self.watch.add(sock)
        return sock

    def close(self) -> None:
        super().close()
        if self._twin is not None:
            self.watch.drop(self._twin)
            self._twin = None


def _late(url: str, seconds: float) -> NetworkError:
    return NetworkError(f"{url}: no whole answer within {seconds:.3g} s")
