"""A network on a device: predicts at any time, and learns in a thread of its own. Every method may be called by any thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any

from edgecl import files, runfolder, store
from edgecl.card import Card
from edgecl.lesson import Labelled
from edgecl.model import open_model
from edgecl.runtime import lessons
from edgecl.runtime.answers import Answer, answer
from edgecl.runtime.frames import as_input, checked_name
from edgecl.runtime.lessons import Pending, Sample
from edgecl.runtime.place import Place, find
from edgecl.runtime.predictors import EnginePredictor, Predictor, make_predictor
from edgecl.runtime.teaching import Settings, Teacher
from edgecl.train import Stopped
from edgecl.types import ConfigError, EdgeclError, StoreError

ROOM = 4  # lessons' worth of samples that may wait; `learn` then waits too
BYTES = 32 << 20  # of samples that make a lesson, however few they are


class Closed(ConfigError):
    """The device was closed while somebody waited for it."""


def quiet(event: Mapping[str, Any]) -> None:
    """Says nothing."""


def open_device(
    path: Path,
    *,
    public: Path | None = None,
    runtime: str = "auto",
    threads: int = 0,
    out: Path | str | None = None,
    say: Callable[[dict[str, Any]], None] = quiet,
    settings: Settings | None = None,
    **given: Any,
) -> Device:
    """The network of a place, with the newest lesson that was learned there.

    `public` is the file of the key that signed it, where `path` is a bundle file; `runtime` and `threads` are the predictor's;
    `out` is the folder of lessons, in place of `lessons/` in the place; `say` gets events as they happen, from the learning
    thread; all else are fields of `Settings`, such as `budget="10min,256MB"`, `size=64`.
    Raises StoreError where there is nothing to open, ConfigError for a wrong option.
    """
    if settings is None:
        unknown = sorted(set(given) - set(Settings.__dataclass_fields__))
        if unknown:
            raise ConfigError(f"runtime.open: unknown option {unknown[0]!r}; known: {', '.join(Settings.__dataclass_fields__)}")
        settings = Settings(**given)
    place = find(path, public)
    folder = place.lessons if out is None else Path(out)
    return Device(place, folder, newest_predictor(place, folder, runtime, threads), settings, say, threads)


def newest_predictor(place: Place, folder: Path, runtime: str = "auto", threads: int = 0) -> Predictor:
    """Of the newest lesson where there is one, unless `runtime` names that of an exported model, which knows nothing of it.

    Raises as `make_predictor` does.
    """
    newest = lessons.newest(place, folder)
    own = runtime if runtime in ("native", "numpy") else "auto"
    if newest is None or newest == place.learner or runtime in ("onnx", "litert"):
        return make_predictor(place, runtime, threads)
    return EnginePredictor(open_model(newest), own, threads)


class Device:
    """See `runtime.open`. A context manager: at its end learning stops with a snapshot, and what was gathered is kept."""

    def __init__(
        self,
        place: Place,
        folder: Path,
        predictor: Predictor,
        settings: Settings,
        say: Callable[[dict[str, Any]], None],
        threads: int = 0,
    ) -> None:
        self.place, self.folder, self.settings = place, folder, settings
        self._predictor, self._say, self._threads = predictor, say, threads
        self._turn = threading.Condition()
        self._waiting: list[Sample] = []
        self._pending: Pending | None = None  # made when learning begins: who only predicts writes nothing
        self._since = 0.0  # when the first of those waiting came
        self._flush = self._busy = self._closing = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._locks = ExitStack()
        self._teacher = Teacher(folder, settings, say, lambda: self._closing)

    @property
    def card(self) -> Card:
        """Of the network that predicts at present."""
        return self._predictor.card

    @property
    def backend(self) -> str:
        """What predicts at present: native, numpy, onnxruntime or litert."""
        return self._predictor.backend

    @property
    def written(self) -> int:
        """Bytes that learning has written so far, counted by its files."""
        return self._teacher.written + (self._pending.bytes if self._pending else 0)

    @property
    def over(self) -> bool:
        """Whether nothing more is learned: the device is closed, or a lesson failed."""
        return self._closing or self._error is not None

    @property
    def _enough(self) -> int:
        """Samples that make a lesson."""
        return max(1, min(self.settings.size, BYTES // prod(self.card.input)))

    def test_on(self, held_out: Labelled) -> None:
        """Labelled samples that lessons from now on are tested on, before and after."""
        self.settings = self._teacher.settings = replace(self.settings, held_out=held_out)

    def predict(self, frame: Any, top: int = 3) -> Answer:
        """What is on a frame: uint8 [C, H, W] as the network takes it, a picture [H, W, 3], [H, W], or the path of one.

        Raises DataError for another frame.
        """
        predictor = self._predictor  # one reference: a lesson that ends meanwhile changes nothing for this call
        return answer(predictor.card, predictor.predict(as_input(predictor.card, frame)[None])[0], top)

    def learn(self, frame: Any, label: str) -> int:
        """Gathers a labelled frame, as `predict` takes it; returns how many wait for the next lesson.

        Waits while too many do. Raises DataError for a wrong frame or label, and what an earlier lesson ended with.
        """
        sample = Sample(as_input(self.card, frame), checked_name(label, "learn"))
        with self._turn:
            self._start()
            self._turn.wait_for(lambda: self.over or len(self._waiting) < ROOM * self._enough)
            self._raise()
            assert self._pending is not None
            if self.settings.journal:
                self._pending.add(sample)
            self._since = self._since if self._waiting else time.monotonic()
            self._waiting.append(sample)
            self._turn.notify_all()
            return len(self._waiting)

    def save(self) -> Path:
        """Learns all that was gathered, waits for it, and returns the folder of the newest snapshot.

        Raises what a lesson ended with; StoreError where the place has no learner.
        """
        with self._turn:
            if self.place.learner is not None:
                self._start()
            self._flush = True
            self._turn.notify_all()
            self._turn.wait_for(lambda: self.over or not (self._waiting or self._busy))
            self._flush = False
            self._raise()
        newest = lessons.newest(self.place, self.folder)
        if newest is None:
            raise StoreError(f"{self.place.path}: has no learner to save")
        return store.place(newest, store.latest(newest) or 0)

    def close(self) -> None:
        """Stops learning, with a snapshot of a lesson that is under way; the next `learn` of a device opened here goes on."""
        with self._turn:
            self._closing = True
            self._turn.notify_all()
        if self._thread is not None:
            self._thread.join()
        if self._pending is not None:
            self._pending.close()
        self._locks.close()

    def __enter__(self) -> Device:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def start(self) -> bool:
        """Begins to learn what an earlier process left, as `learn` and `save` do; whether it left anything."""
        with self._turn:
            self._start()
            return bool(self._waiting) or self._busy

    # the learning thread

    def _start(self) -> None:
        """Takes the folder, reads what an earlier process gathered, and starts the thread. Under the lock."""
        if self._closing:
            raise Closed("the device is closed")
        if self._thread is not None:
            return
        if self.place.learner is None:
            raise StoreError(f"{self.place.path}: holds no learner: it can predict, but not learn")
        with files.naming(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._locks.enter_context(runfolder.lock_run(self.folder))
        self._pending = Pending(self.folder, self.card)
        self._waiting, self._since = self._pending.recover(), time.monotonic()
        self._busy = lessons.unfinished(self.folder) is not None
        self._thread = threading.Thread(target=self._run, name="edgecl-learn", daemon=True)
        self._thread.start()

    def _raise(self) -> None:
        """What a lesson ended with; once, so that a user may go on."""
        if self._error is not None:
            error, self._error = self._error, None
            self._thread = None
            if self._pending is not None:
                self._pending.close()
            self._locks.close()
            raise error
        if self._closing:
            raise Closed("the device is closed")

    def _run(self) -> None:
        try:
            self._go_on()
            while taken := self._take():
                self._teach(*taken)
        except Stopped:
            pass
        except (EdgeclError, OSError, MemoryError) as error:
            self._error = error
        finally:
            with self._turn:
                if not self._closing and self._error is None:  # a fault in here: its traceback follows
                    self._error = EdgeclError("learning ended by a fault, whose traceback is on standard error")
                self._busy = False
                self._turn.notify_all()

    def _go_on(self) -> None:
        """Ends a lesson that an earlier process began."""
        run = lessons.unfinished(self.folder)
        if run is not None:
            self._say({"event": "go on", "number": int(run.name)})
            self._swap(self._teacher.go_on(run))

    def _take(self) -> tuple[list[Sample], int] | None:
        """Waits until there is a lesson's worth of samples; None when the device closes."""
        with self._turn:
            while not self._closing and not self._due():
                self._turn.wait(0.1 if self._waiting else None)
            if self._closing:
                return None
            assert self._pending is not None
            taken, number = self._waiting, self._pending.number
            self._waiting, self._busy = [], True
            self._pending.turn(number + 1)
            self._turn.notify_all()
            return taken, number

    def _due(self) -> bool:
        """Whether those waiting make a lesson. Under the lock."""
        late = self.settings.seconds is not None and time.monotonic() - self._since >= self.settings.seconds
        return bool(self._waiting) and (self._flush or late or len(self._waiting) >= self._enough)

    def _teach(self, samples: list[Sample], number: int) -> None:
        base = lessons.newest(self.place, self.folder)
        assert base is not None
        assert self._pending is not None
        run = self._teacher.begin(base, samples, number)
        self._pending.forget(number)  # the lesson's folder keeps the samples now
        self._swap(self._teacher.go_on(run))

    def _swap(self, run: Path) -> None:
        """From now on the lesson's network predicts: one reference changes, between two predictions."""
        backend = self._predictor.backend
        own = backend if backend in ("native", "numpy") else "auto"
        fresh = EnginePredictor(open_model(run), own, self._threads)
        with self._turn:
            self._predictor, self._busy = fresh, False
            self._turn.notify_all()
