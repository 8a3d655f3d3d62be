"""What libraries log, as lines of our own: no text without structure, and no traceback, on standard error.

The text of an exception may quote input: only its kind is written.
"""

from __future__ import annotations

import logging

from catena.server.access import FaultLine, Write, timestamp, write_line

_MAX_DETAIL = 300


class FaultHandler(logging.Handler):
    """Writes warnings and worse as ``fault`` lines; ``code`` is the library that said it."""

    def __init__(self, write: Write) -> None:
        super().__init__(logging.WARNING)
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        """One line."""
        detail = record.getMessage().split("\n", 1)[0]
        if record.exc_info and record.exc_info[0] is not None:
            detail = f"{detail}: {record.exc_info[0].__name__}"
        code = record.name.split(".", 1)[0]
        line = FaultLine(at=timestamp(), code=code, detail=detail[:_MAX_DETAIL])
        write_line(self._write, line)


def take_over(write: Write) -> None:
    """Send everything that this process logs there."""
    logging.getLogger().handlers[:] = [FaultHandler(write)]
