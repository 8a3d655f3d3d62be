"""A thread that publishes what was committed, for many appends at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Publisher:
    """Calls ``publish`` after ``wake``, in a thread of its own: at once, but only every ``pause`` seconds.

    ``failed`` tells that the last call did not succeed: whoever appends next has to publish,
    and gets to know why it cannot be done.
    """

    __slots__ = ("_pause", "_publish", "_stopping", "_thread", "_wake", "failed")

    def __init__(self, publish: Callable[[], None], pause: float) -> None:
        self.failed = False
        self._publish = publish
        self._pause = pause
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit-publisher", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Something was committed."""
        self._wake.set()

    def stop(self) -> None:
        """End the thread; what was not published is left to the caller."""
        self._stopping.set()
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        earliest = time.monotonic() + self._pause
        while self._wake.wait() and not self._stopping.wait(max(0, earliest - time.monotonic())):
            self._wake.clear()
            try:
                self._publish()
            except Exception:  # noqa: BLE001 - whatever it was, the next append meets it
                self.failed = True
            else:
                self.failed = False
            earliest = time.monotonic() + self._pause
