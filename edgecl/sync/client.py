"""What a device does with its hub: report, push, pull. Each is done once; what keeps it from going on is noted."""

from __future__ import annotations

import platform
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecl import __version__
from edgecl.sync import child, device, rules
from edgecl.sync.errors import NetworkError, TrustError
from edgecl.sync.hubtime import HubClock, since_boot
from edgecl.sync.outbox import Damaged, Item, Outbox
from edgecl.sync.place import Config, Place, lessons_of, look, read_state, write_state
from edgecl.sync.rules import Verdict
from edgecl.sync.transport import Api
from edgecl.sync.trust import Source
from edgecl.sync.uploading import NotNow, OutOfBytes, Refused, Taken, Uploader
from edgecl.types import EdgeclError, StoreError

if TYPE_CHECKING:
    from datetime import datetime

Say = Callable[[Mapping[str, Any]], object]
HEALTH = 200  # characters


class HubTime:
    """The hub's clock, and what it showed last: between two statements only the time since boot counts."""

    def __init__(self, clock: Callable[[Any], datetime], boot: Callable[[], float] = since_boot) -> None:
        self._clock, self._boot = clock, boot
        self._known: tuple[float, float] | None = None

    def __call__(self, root: Any) -> datetime:
        """For the update framework."""
        said = self._clock(root)
        self._known = said.timestamp(), self._boot()
        return said

    def now(self) -> float | None:
        """Seconds since 1970, UTC; None before the hub was asked."""
        return None if self._known is None else self._known[0] + self._boot() - self._known[1]


class Client:
    """One enrolled device. The caller holds `place.alone`."""

    def __init__(
        self, place: Place, config: Config, say: Say, *, sleep: Callable[[float], object] = time.sleep, api: Api | None = None
    ) -> None:
        device.check_url(config.url, config.insecure_http)
        self.place, self.config, self.say, self.sleep = place, config, say, sleep
        self.api = api or Api(config.url, ca=Path(config.ca) if config.ca else None)
        self.outbox = Outbox(place.outbox, config.quota)
        self.state = read_state(place)
        self.time = HubTime(HubClock(self.api, Source.of(config.url).time))
        self.rng = random.Random(f"{config.device} {time.monotonic_ns()}")
        self._counted = (self.api.up, self.api.down)
        self.renewed = False  # a slot with a program of its own was installed: this one is to end
        self._looked = ""
        self._unwritten = ""  # why state.json is not what is known

    # the day's bytes, and what is remembered

    def keep(self, **changes: Any) -> None:
        """Writes state.json, with what was spent since. Where the disk takes nothing it is said once and kept in memory."""
        up, down = self.api.up - self._counted[0], self.api.down - self._counted[1]
        self._counted = (self.api.up, self.api.down)
        now, was = self.time.now(), self.state.bytes
        spent = rules.spend(was, rules.today(now, was), up, down)
        self.state = replace(self.state, spent=spent._asdict(), time=now or self.state.time, **changes)
        self._unwritten = self._write()

    def _write(self) -> str:
        """Why not; "" where it is written."""
        try:
            write_state(self.place, self.state)
        except StoreError as e:
            if not self._unwritten:
                self.say({"event": "waits", "what": "state", "why": str(e)})
            return str(e)
        return ""

    def allowance(self) -> int | None:
        """Bytes that may still go today; None: any."""
        now, was = self.time.now(), self.state.bytes
        up, down = self.api.up - self._counted[0], self.api.down - self._counted[1]
        return rules.allowance(rules.spend(was, rules.today(now, was), up, down), self.config.bytes_a_day or None)

    def waits(self, what: str, why: str) -> None:
        """Notes and says why something did not go on; "" where it did."""
        if why and self.state.waits.get(what) != why:
            self.say({"event": "waits", "what": what, "why": why})
        rest = {k: v for k, v in self.state.waits.items() if k != what}
        self.keep(waits={**rest, **({what: why} if why else {})})

    # report

    def report(self) -> float | None:
        """Tells the hub how this device fares, and learns whether it may send. Seconds that the hub asks to wait, if it does."""
        from edgecl.update.envelope import REPORT, seal_record

        try:
            told = {"device": bytes.fromhex(self.config.device), **self._about()}
            said = self.api.ask("GET", f"/v1/devices/{self.config.device}/nonce")
            if said.status == 200:
                nonce = bytes.fromhex(str(said.body.get("nonce", "")))
                record = seal_record(self.place.key, REPORT, {**told, "nonce": nonce})
                kind = {"Content-Type": "application/octet-stream"}
                said = self.api.ask("POST", f"/v1/devices/{self.config.device}/report", record, kind)
        except (EdgeclError, ValueError) as e:
            self.waits("report", str(e))
            return None
        hub = str(said.body.get("state", "")) if rules.verdict(said.status) == Verdict.DONE else f"refused: {said.error}"
        if rules.verdict(said.status) != Verdict.RETRY and hub != self.state.hub:
            self.say({"event": "hub", "state": hub})
            self.keep(hub=hub)
        self.waits("report", "" if rules.verdict(said.status) == Verdict.DONE else said.error)
        return said.after

    def _about(self) -> dict[str, Any]:
        """What a report tells, beside who sends it: below a kilobyte, all in all."""
        spent = self.state.bytes
        health = self.state.waits.get("pull", "") or str(self.state.failed.get("why", "")) or "well"
        return {
            "edgecl": __version__,
            "machine": platform.machine()[:40],
            "model": int(self.state.pulled.get("number", 0)),
            "health": health.encode("ascii", "replace").decode()[:HEALTH],
            "outbox": len(self.outbox.items()),
            "up": spent.up,
            "down": spent.down,
        }

    # push

    def push(self) -> float | None:
        """Packs what was learned, and sends what waits. Seconds that the hub asks to wait, if it does."""
        try:
            self.pack()
            why, after = self._send_all()
        except (EdgeclError, OSError) as e:
            why, after = " ".join(str(e).split()), None
        self.waits("push", why)
        return after

    def learned(self) -> bool:
        """Whether there may be a lesson that `pack` has not seen."""
        with suppress(EdgeclError, OSError):
            return self._seen() != self._looked
        return False

    def _seen(self) -> str:
        slot = self.place.slot()
        return "" if slot is None else f"{slot.name} {look(lessons_of(self.config, slot))}"

    def pack(self) -> bool:
        """Puts an update into the outbox where there is a lesson that has none yet. Raises StoreError and its kin."""
        seen, slot = self._seen(), self.place.slot()
        if slot is None or seen == self._looked:
            return False
        out = self.place.folder / "packed.tmp"
        given = {
            "slot": str(slot),
            "lessons": str(lessons_of(self.config, slot)),
            "packed": self.outbox.packed(),
            "values": self.config.values,
        }
        said = child.run("pack", given, out)
        if said:
            item = self.outbox.put(out, said["base"], said["snapshot"])
            self.say({"event": "packed", "sequence": item.sequence, "bytes": item.bytes, "lesson": said["lesson"]})
        self._looked = seen
        return bool(said)

    def _send_all(self) -> tuple[str, float | None]:
        """Sends until nothing waits, or nothing goes; (why it stopped, seconds that the hub asks for)."""
        sender = self._uploader()
        while (number := rules.next_to_send(self.outbox.waiting())) is not None:
            item = next(i for i in self.outbox.items() if i.sequence == number)
            try:
                self._send(sender, item)
            except (NetworkError, TrustError, OutOfBytes) as e:
                return str(e), None
            except NotNow as e:
                return str(e), e.after
        return "", None

    def _send(self, sender: Uploader, item: Item) -> None:
        """One update: sent, or set aside where it will never be taken. A disk that fails does not make it so."""
        try:
            self.outbox.check(item)
            taken = sender.send(item, lambda at, size: self.outbox.read(item, at, size), self._sealer(item))
        except (Refused, Damaged) as e:
            self.outbox.set_aside(item, str(e))
            self.say({"event": "set aside", "sequence": item.sequence, "why": str(e)})
            return
        self.outbox.acknowledged(item)
        self._sent(item, taken)

    def _sent(self, item: Item, taken: Taken) -> None:
        self.keep(
            pushed={"sequence": item.sequence, "bytes": item.bytes, "time": int(self.time.now() or 0), "state": taken.state}
        )
        self.say({"event": "sent", "sequence": item.sequence, "bytes": item.bytes, "state": taken.state})

    def _sealer(self, item: Item) -> Callable[[bytes], bytes]:
        from edgecl.update.envelope import ENVELOPE, seal_record

        body = {
            "device": bytes.fromhex(self.config.device),
            "sequence": item.sequence,
            "bytes": item.bytes,
            "sha256": bytes.fromhex(item.sha256),
        }
        return lambda nonce: seal_record(self.place.key, ENVELOPE, {**body, "nonce": nonce})

    def _uploader(self) -> Uploader:
        return Uploader(
            self.api, self.config.device, self.sleep, lambda n: rules.backoff(n, self.rng), self.allowance, self.outbox.begin
        )

    # pull

    def pull(self) -> None:
        """Asks for a newer model and installs it. What keeps it is noted."""
        from edgecl.sync import pulling

        try:
            why = pulling.pull(self)
        except (EdgeclError, OSError) as e:
            why = " ".join(str(e).split())
        self.waits("pull", why)

    def config_of_child(self) -> dict[str, Any]:
        """For what a child has to know."""
        return asdict(self.config)
