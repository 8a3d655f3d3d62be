"""Processes whose end is awaited: the wrapper's, which became the real runtime.

The kernel reports the end of a process through its pidfd, whoever its parent is. A pidfd is bound to
one process, so a number that is used again is never mistaken for it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

_IDLE_SECONDS = 60.0


@dataclass(slots=True)
class Watch:
    """Calls what was given with a process once that process has ended, in one thread of its own.

    ``idle`` is called in between, at least once a minute.
    """

    idle: Callable[[], None]
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _pipe: tuple[int, int] = field(default_factory=lambda: os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK))
    _stopped: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._selector.register(self._pipe[0], selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, and forget what was awaited."""
        self._stopped.set()
        self._wake()
        if self._thread is not None:
            self._thread.join()
        for key in list(self._selector.get_map().values()):
            os.close(key.fd)
        self._selector.close()
        os.close(self._pipe[1])

    def add(self, pidfd: int, ended: Callable[[], None]) -> None:
        """Take over ``pidfd`` and call ``ended`` once its process has ended."""
        self._selector.register(pidfd, selectors.EVENT_READ, ended)
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it is about to wake anyway
            os.write(self._pipe[1], b"\0")

    def _run(self) -> None:
        while not self._stopped.is_set():
            ready = self._selector.select(_IDLE_SECONDS)
            if not ready:
                self.idle()
            for key, _ in ready:
                self._take(key)

    def _take(self, key: selectors.SelectorKey) -> None:
        if key.data is None:
            os.read(key.fd, 4096)
            return
        self._selector.unregister(key.fileobj)
        os.close(key.fd)
        key.data()
