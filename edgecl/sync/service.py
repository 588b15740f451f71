"""The loop of `edgecl sync run`: report, push, pull, and a pause; until it is asked to stop.

It stops wherever it is: whatever it was at is whole on the disk or not there, as after a power cut, and the next start goes on.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from edgecl.sync import rules
from edgecl.sync.client import Client

LOOKS = 5.0  # seconds between looks for a lesson that is new
EMPTY = 3600.0  # seconds at least between rounds once the day's bytes are spent


class Stopped(BaseException):
    """SIGTERM or SIGINT came."""


def loop(client: Client, rounds: int | None = None, pause: Callable[[float], object] | None = None) -> str:
    """Rounds without end, or so many; why it ended."""
    wait = pause or _pauser(client)
    failures = 0
    while rounds is None or rounds > 0:
        after = one(client)
        if client.renewed:
            return "the new slot brings its own program: start again"
        failures = failures + 1 if client.state.waits else 0
        rounds = None if rounds is None else rounds - 1
        if rounds != 0:
            wait(interval(client, failures, after))
    return "done"


def one(client: Client) -> float | None:
    """One round. Seconds that the hub asks to wait, if it does."""
    after = client.report()
    if client.config.push:
        after = max(after or 0.0, client.push() or 0.0) or None
    if client.config.pull:
        client.pull()
    client.keep()
    return after


def interval(client: Client, failures: int, after: float | None) -> float:
    """Seconds until the next round: the usual ones, spread; fewer after a failure that may mend soon, more where the hub asks."""
    usual = rules.spread(client.config.every, client.rng)
    if failures and after is None:
        usual = min(usual, 1.0 + rules.backoff(failures, client.rng))
    if client.allowance() == 0:
        usual = max(usual, EMPTY)
    return max(usual, min(after or 0.0, rules.CAP))


def _pauser(client: Client) -> Callable[[float], object]:
    """A pause that ends early when there is a new lesson to send."""

    def pause(seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, LOOKS))
            if client.config.push and not client.state.waits.get("push") and client.learned():
                return

    return pause


@contextmanager
def stopping() -> Iterator[None]:
    """SIGTERM and SIGINT raise Stopped in the block, once."""
    before: dict[int, Any] = {}

    def stop(number: int, frame: FrameType | None) -> None:
        for one in before:
            signal.signal(one, signal.SIG_IGN)
        raise Stopped

    if threading.current_thread() is threading.main_thread():
        before = {n: signal.signal(n, stop) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
