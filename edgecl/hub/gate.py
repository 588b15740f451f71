"""The way in: what every request must keep to before the application sees it. Plain ASGI.

Bodies are read here, bounded and within a time, so that no handler can be fed without end; addresses that ask too often are
told when to come again; /tuf is answered here, which costs less than a framework's routing.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from edgecl.hub.settings import Limits
from edgecl.hub.static import Static

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_BYTES = 64 << 10
"""Of any request but those below."""
HEAD_BYTES = 16 << 10
BODY_SECONDS = 60
ADDRESSES = 10_000
"""Whose rates are remembered."""


class Bucket:
    """So many a second on average, `burst` at once, for each address."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str) -> bool:
        """Whether one more is allowed now."""
        now = self._clock()
        left, at = self._left.pop(address, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._rate)
        self._left[address] = (left - 1 if left >= 1 else left, now)
        if len(self._left) > ADDRESSES:
            self._left.popitem(last=False)
        return left >= 1


class Gate:
    """Stands before the application `app`."""

    def __init__(self, app: App, static: Static, limits: Limits) -> None:
        self._app, self._static, self._limits = app, static, limits
        self._all = Bucket(limits.requests_a_second, limits.request_burst)
        self._enrolments = Bucket(limits.enrolments_a_minute / 60, limits.enrolments_a_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif sum(len(k) + len(v) for k, v in scope["headers"]) + len(scope.get("raw_path", b"")) > HEAD_BYTES:
            await answer(send, 431, f"a head has {HEAD_BYTES} bytes at most", {"Connection": "close"})
        elif scope["path"].startswith("/tuf/"):
            await self._static(scope, receive, send)
        elif not self._allowed(scope):
            await answer(send, 429, "too many requests from this address", {"Retry-After": "5"})
        else:
            await self._pass(scope, receive, send)

    def _allowed(self, scope: Scope) -> bool:
        address = (scope.get("client") or ("",))[0]
        slow = scope["method"] == "POST" and scope["path"] in ("/v1/enroll", "/login")
        return self._all.take(address) and (not slow or self._enrolments.take(address))

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] in ("GET", "HEAD"):  # of which no handler reads a body
            await self._app(scope, receive, send)
            return
        limit = self._limits.chunk_bytes if scope["method"] == "PATCH" else BODY_BYTES
        try:
            body = await asyncio.wait_for(_body(scope, receive, limit), BODY_SECONDS)
        except _Gone:
            return
        except asyncio.TimeoutError:
            await answer(send, 408, f"the body took more than {BODY_SECONDS} s", {"Connection": "close"})
            return
        if body is None:
            await answer(send, 413, f"a body has {limit} bytes at most here", {"Connection": "close"})
            return
        await self._app(scope, _replay(body, receive), send)


class _Gone(Exception):
    """The client went away."""


async def _body(scope: Scope, receive: Receive, limit: int) -> bytes | None:
    """All of it; None where it is larger. Raises _Gone."""
    said = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
    if not said.isdigit() or int(said) > limit:
        return None
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        parts.append(message.get("body", b""))
        size, more = size + len(parts[-1]), message.get("more_body", False)
        if size > limit:
            return None
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    told = False

    async def again() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def answer(send: Send, status: int, error: str, headers: dict[str, str] | None = None) -> None:
    """{"error": …} without the application."""
    body = json.dumps({"error": error}).encode()
    own = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    listed = [(k.lower().encode(), v.encode()) for k, v in own.items()]
    await send({"type": "http.response.start", "status": status, "headers": listed})
    await send({"type": "http.response.body", "body": body})
