"""What a running server does by itself from time to time."""

from __future__ import annotations

import threading
from collections.abc import Callable

from catena.errors import CatenaError
from catena.server.access import FaultLine, Write, timestamp, to_stderr, write_line
from catena.service.staleness import PERIOD

GRACE = 5.0


class Rounds:
    """A thread that calls ``work`` every ``pause`` seconds; one that fails is told of, and tried again.

    ``name`` is what the work is called in the server's log.
    """

    def __init__(
        self,
        work: Callable[[], object],
        name: str,
        write: Write = to_stderr,
        pause: float = PERIOD.total_seconds(),
    ) -> None:
        self._work = work
        self._name = name
        self._write = write
        self._pause = pause
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"rounds: {name}", daemon=True)
        self._last_fault: str | None = None

    def start(self) -> None:
        """Begin, with a first round at once."""
        self._thread.start()

    def stop(self) -> None:
        """No more rounds; one that is under way may end."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(GRACE)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._work()
            except Exception as error:  # noqa: BLE001  a thread that dies silently notices nothing
                self._fail(error)
            else:
                self._last_fault = None
            self._stopping.wait(self._pause)

    def _fail(self, error: Exception) -> None:
        known = isinstance(error, CatenaError)
        code = error.code if isinstance(error, CatenaError) else "internal"
        if code != self._last_fault:
            problem = str(error) if known else type(error).__name__
            detail = f"{self._name}: {problem}"
            write_line(self._write, FaultLine(at=timestamp(), code=code, detail=detail))
        self._last_fault = code
