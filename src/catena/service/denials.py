"""Refusals of requests that nobody authenticated: logged, within a budget.

Anybody on the network can cause such a refusal as often as they like. If each became an entry,
they could fill the log's disk, and a log that cannot be written stops every decision. So
entries are paid from a bucket that refills slowly; a refusal that finds it empty is only
counted, and the next entry says how many were.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime

from catena.audit.entries import Denial, cut
from catena.errors import CatenaError
from catena.ids import NodeId, Sha256Hex
from catena.service.journal import Journal

BURST = 200
REFILL_SECONDS = 5.0
"""Seconds until one more entry may be written: 17,280 entries a day at most."""


class Denials:
    """Writes denials to the log, at most ``burst`` at once and one per ``refill`` seconds."""

    def __init__(
        self,
        journal: Journal,
        now: Callable[[], datetime],
        *,
        burst: int = BURST,
        refill: float = REFILL_SECONDS,
    ) -> None:
        self._journal = journal
        self._now = now
        self._burst = burst
        self._refill = refill
        self._lock = threading.Lock()  # guards the three below
        self._tokens = float(burst)
        self._filled = now()
        self._uncounted = 0

    def record(
        self, request: str, digest: Sha256Hex, refusal: CatenaError, claimed: NodeId | None
    ) -> None:
        """Log that ``request`` was refused to whoever *claimed* to be this node."""
        at = self._now()
        unlogged = self._pay(at)
        if unlogged is None:
            return
        more = f" ({unlogged} earlier refusals were not logged)" if unlogged else ""
        self._journal.record(
            Denial(
                at=at,
                actor=claimed or "unknown",
                request=request,
                code=refusal.code,
                message=cut(refusal.message + more),
                node_id=claimed,
                request_sha256=digest,
            )
        )

    def _pay(self, at: datetime) -> int | None:
        """How many denials went unlogged since the last one, or None if this one does, too."""
        with self._lock:
            elapsed = max((at - self._filled).total_seconds(), 0.0)
            self._tokens = min(self._tokens + elapsed / self._refill, float(self._burst))
            self._filled = at
            if self._tokens < 1:
                self._uncounted += 1
                return None
            self._tokens -= 1
            suppressed, self._uncounted = self._uncounted, 0
            return suppressed
