"""Ctrl-C and SIGTERM: the first asks the run to stop with a snapshot, the second ends it at once."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def end_with_parent() -> None:
    """Ends this process at once when standard input ends: the parent, killed or not, holds the other end of that pipe."""

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Stop:
    """Call it to know whether to stop. It watches while it is entered, and passes the first signal on to `child`."""

    def __init__(self) -> None:
        self.asked = False
        self.child: subprocess.Popen[str] | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __call__(self) -> bool:
        return self.asked

    def __enter__(self) -> Stop:
        self._before = {s: signal.signal(s, self._handle) for s in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            if self.child is not None:
                self.child.kill()
            signal.signal(number, signal.SIG_DFL)
            raise KeyboardInterrupt
        self.asked = True
        if self.child is not None:
            self.child.send_signal(number)
        if os.isatty(2):
            os.write(2, b"\r\nstopping once this step or test is done; once more ends at once\r\n")
