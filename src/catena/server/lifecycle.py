"""The server's life as lines of its log: one JSON object each, as the access log's.

==============  ================================================================================
``event``       when
==============  ================================================================================
``start``       settings, keys, database and log are open
``migration``   schema steps were taken, just before ``start``
``ready``       requests are answered
``drain``       a signal said stop: not ready any more, requests are still answered for ``delay``
``stop``        the last request is answered, and nothing is sent on any more
==============  ================================================================================
"""

from __future__ import annotations

import msgspec

from catena.server.access import Write, ascii_json, timestamp


class LifeLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event; only the fields that belong to it are there."""

    at: str
    event: str
    version: str | None = None
    pid: int | None = None
    schema: int | None = None
    steps: tuple[int, ...] = ()
    """The schema versions that steps led to."""
    log_size: int | None = None
    url: str | None = None
    mode: str | None = None
    signal: str | None = None
    delay: int | None = None
    grace: int | None = None


class Lifecycle:
    """Writes the events."""

    def __init__(self, write: Write) -> None:
        self._write = write

    def started(self, *, version: str, pid: int, schema: int, log_size: int) -> None:
        """Everything is open."""
        self._tell(event="start", version=version, pid=pid, schema=schema, log_size=log_size)

    def migrated(self, steps: tuple[int, ...]) -> None:
        """The database is of this version now."""
        self._tell(event="migration", steps=steps)

    def ready(self, url: str, mode: str) -> None:
        """Requests are answered."""
        self._tell(event="ready", url=url, mode=mode)

    def draining(self, signal: str, *, delay: int, grace: int) -> None:
        """It was told to stop."""
        self._tell(event="drain", signal=signal, delay=delay, grace=grace)

    def stopped(self) -> None:
        """It has stopped."""
        self._tell(event="stop")

    def _tell(self, **fields: object) -> None:
        line = msgspec.convert({"at": timestamp(), **fields}, LifeLine)
        self._write(ascii_json(line) + "\n")
