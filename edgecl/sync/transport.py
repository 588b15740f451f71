"""Requests to the hub's API: one connection that is kept, answers of bounded length, and no request without an end.

On top of `fetcher.Http`, which bounds connecting, silence and the whole. Here bodies are sent too: a chunk that the line does not
take within `sending` seconds is cut. No request lasts longer than `whole`, which is below five minutes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from edgecl.sync.errors import NetworkError, TrustError
from edgecl.sync.fetcher import Http, Limits, Reply

import urllib3  # after fetcher, which says how to get it  # isort: skip

WHOLE = Limits(connect=10.0, silent=30.0, whole=240.0)
SENDING = 120.0  # seconds for a chunk to go out
ANSWER_BYTES = 16 << 10
OFFSET = "Upload-Offset"


class Said(NamedTuple):
    """An answer of the API."""

    status: int
    body: Mapping[str, Any]  # the JSON object, {} where there is none
    offset: int | None  # Upload-Offset
    after: float | None  # Retry-After, seconds

    @property
    def error(self) -> str:
        """The hub's reason, in one line."""
        text = " ".join(str(self.body.get("error", "")).split())[:200]
        return f"{self.status}" + (f": {text}" if text else "")


class Api(Http):
    """The hub at `url`. `up` and `down` count bytes of bodies and headers, without TLS and TCP."""

    def __init__(self, url: str, ca: Path | None = None, limits: Limits = WHOLE, sending: float = SENDING) -> None:
        super().__init__(limits, ca=ca)
        self.url, self.sending, self.up, self.down = url, sending, 0, 0

    def ask(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Said:
        """One request, once. Raises NetworkError where no whole answer comes in time, TrustError where it is too long."""
        url, sent = self.url + path, {"User-Agent": self.agent, **(headers or {})}
        timeout = urllib3.Timeout(connect=self.sending if body else self.limits.connect, read=self.limits.silent)
        self.up += len(body) + _size(sent) + len(method) + len(path) + 12
        with self._watch.cut_after(self.limits.whole):
            with self._explained(url, self.limits.whole):
                response = self._pool(url).urlopen(
                    method,
                    url,
                    body=body or None,
                    headers=sent,
                    redirect=False,
                    retries=False,
                    preload_content=False,
                    timeout=timeout,
                )
            try:
                data = self._whole(url, response)
            except BaseException:
                response.close()  # what is still to come must not answer the next request
                raise
            response.release_conn()
        return _said(url, response.status, response.headers, data)

    def post(self, path: str, said: Mapping[str, Any]) -> Said:
        """A JSON object."""
        return self.ask("POST", path, json.dumps(said).encode(), {"Content-Type": "application/json"})

    @contextmanager
    def open(self, url: str, length: int, headers: Mapping[str, str] | None = None) -> Iterator[Reply]:
        """As `Http.open`, counted."""
        self.up += len(url) - len(self.url) + _size({"User-Agent": self.agent, **(headers or {})}) + 16
        with super().open(url, length, headers) as reply:
            yield reply

    def _chunks(self, url: str, seconds: float, response: Any) -> Iterator[bytes]:
        """As they come, what the update framework asks for too; counted."""
        self.down += _size(response.headers) + 17
        for chunk in super()._chunks(url, seconds, response):
            self.down += len(chunk)
            yield chunk

    def _whole(self, url: str, response: Any) -> bytes:
        data = bytearray()
        for chunk in self._chunks(url, self.limits.whole, response):
            data += chunk
            if len(data) > ANSWER_BYTES:
                raise TrustError(f"{url}: answers more than the {ANSWER_BYTES} bytes that it may")
        return bytes(data)


def _size(headers: Mapping[str, str]) -> int:
    return sum(len(k) + len(v) + 4 for k, v in headers.items())


def _said(url: str, status: int, headers: Mapping[str, str], data: bytes) -> Said:
    try:
        body = json.loads(data) if data else {}
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        if 200 <= status < 300:
            raise NetworkError(f"{url}: answers {status}, but no JSON object: something else than a hub is there")
        body = {}
    return Said(status, body, _number(headers.get(OFFSET)), _number(headers.get("Retry-After")))


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 16 else None
