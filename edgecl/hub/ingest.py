"""The database's side of taking an update: many at a time in one commit (group commit), each acknowledged after it."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future

from sqlalchemy import Engine

from edgecl.hub.store import tables as t
from edgecl.hub.store.updates import New, insert
from edgecl.types import StoreError

MOST = 64
"""Updates in one commit."""


class Writer:
    """One thread that inserts. While it waits for a commit, what comes meanwhile gathers for the next."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._queue: queue.SimpleQueue[tuple[New, Future[bool]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)
        self._thread.start()

    def insert(self, new: New) -> bool:
        """Returns once it is committed; False where another payload has the number. Raises StoreError."""
        done: Future[bool] = Future()
        self._queue.put((new, done))
        return done.result()

    def close(self) -> None:
        """Ends the thread after what it was given."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            batch = [first]
            while len(batch) < MOST and not self._queue.empty():
                more = self._queue.get()
                if more is None:
                    self._queue.put(None)
                    break
                batch.append(more)
            self._commit(batch)

    def _commit(self, batch: list[tuple[New, Future[bool]]]) -> None:
        try:
            with t.writing(self._engine) as db:
                found = [insert(db, new) for new, _ in batch]
        except BaseException as e:  # of whatever kind: who waits gets an answer, and the thread goes on
            self._one_by_one(batch, e)
            return
        for (_, done), good in zip(batch, found, strict=True):
            done.set_result(good)

    def _one_by_one(self, batch: list[tuple[New, Future[bool]]], error: BaseException) -> None:
        """So that what one of them did to the commit is not laid on the others."""
        if len(batch) == 1:
            known = isinstance(error, StoreError)
            batch[0][1].set_exception(error if known else StoreError(f"the update is not stored: {t.one_line(error)}"))
            return
        for one in batch:
            self._commit([one])
