"""Reading is audited, too: that a token is in use goes into the log, once an hour for each purpose.

The entry is durable before the first answer. What is remembered is this process's own, so a replica or
a restart writes one more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal

from catena.audit.entries import AdminSignIn, LogRead
from catena.service.journal import Journal

PERIOD = timedelta(hours=1)

Purpose = Literal["admin", "log"]
_ENTRIES: dict[Purpose, type[AdminSignIn | LogRead]] = {"admin": AdminSignIn, "log": LogRead}


class TokenUses:
    """Notes the use of admin tokens. Safe to share between threads."""

    def __init__(self, journal: Journal, now: Callable[[], datetime]) -> None:
        self._journal = journal
        self._now = now
        self._lock = threading.Lock()  # guards what follows, and that one entry is written
        self._noted: dict[tuple[str, Purpose], datetime] = {}  # as many as there are tokens, twice

    def note(self, purpose: Purpose, label: str, role: str, token_sha256: str) -> None:
        """A genuine token is being used. Raises ``LogUnwritable``: then nothing is told."""
        now, use = self._now(), (token_sha256, purpose)
        with self._lock:
            before = self._noted.get(use)
            if before is not None and before <= now < before + PERIOD:
                return
            entry = _ENTRIES[purpose](
                at=now, actor=label, label=label, role=role, token_sha256=token_sha256
            )
            self._journal.record(entry)
            with self._journal.effect() as rows:
                rows.tokens.used(token_sha256, now)
            self._noted[use] = now
