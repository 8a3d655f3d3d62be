"""What reading a log needs of the place it lies in: a folder, a database, a bucket, a URL."""

from __future__ import annotations

from typing import Protocol

from catena.errors import Unavailable


class LogUnreadable(Unavailable):
    """A file of the log cannot be read."""

    code = "log-unreadable"
    remedy = "Check the log's folder and its permissions, or the service that has the log's files."


class LogReader(Protocol):
    """Reads a log's files by their path below its root (``audit.tiles``)."""

    def read(self, name: str, limit: int) -> bytes | None:
        """The content of a file, None if it is not there; at most ``limit`` + 1 bytes of it.

        Whoever asks refuses what is longer than ``limit``. Raises ``LogUnreadable``.
        """
        ...
