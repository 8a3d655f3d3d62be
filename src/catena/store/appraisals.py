"""Appraisals: what was concluded about a node, when, from which evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, insert, select

from catena.ids import NodeId, Sha256Hex
from catena.store import schema
from catena.store.logs import Logs

_appraisals = schema.appraisals
_EVENTS_KIND = "events"


@dataclass(frozen=True, slots=True, kw_only=True)
class Appraisal:
    """One appraisal. ``reasons``, ``facts`` and ``events`` are JSON documents, encoded.

    ``id`` is 0 until stored. ``events`` repeat from boot to boot, so they are kept once, by
    digest. ``entry_index`` is the verdict's index in the audit log.
    """

    id: int = 0
    node_id: NodeId
    at: datetime
    verdict: str
    reasons: bytes
    facts: bytes
    events: bytes
    evidence_sha256: Sha256Hex
    logs: tuple[Sha256Hex, ...]
    entry_index: int


_FIELDS = ("id", "node_id", "at", "verdict", "reasons", "facts")
_LAST_FIELDS = ("evidence_sha256", "logs", "entry_index")
_ALL = select(
    *(_appraisals.c[name] for name in _FIELDS),
    schema.logs.c.content.label("events"),
    *(_appraisals.c[name] for name in _LAST_FIELDS),
).join(schema.logs, schema.logs.c.sha256 == _appraisals.c.events_sha256)
_RECENT = (
    _ALL.where(_appraisals.c.node_id == bindparam("node_id"))
    .order_by(_appraisals.c.id.desc())
    .limit(bindparam("limit"))
)
_INSERT = insert(_appraisals)
_OLDEST_KEPT = (
    select(_appraisals.c.id)
    .where(_appraisals.c.node_id == bindparam("node_id"))
    .order_by(_appraisals.c.id.desc())
    .limit(1)
    .offset(bindparam("keep"))
)


class Appraisals:
    """The appraisals of one transaction."""

    __slots__ = ("_connection", "_logs")

    def __init__(self, connection: Connection, logs: Logs) -> None:
        self._connection = connection
        self._logs = logs

    def insert(self, appraisal: Appraisal) -> int:
        """Store one; its new id."""
        result = self._connection.execute(_INSERT, self._row(appraisal, {}))
        key = result.inserted_primary_key
        assert key is not None  # noqa: S101 - a single-row insert always has one
        return int(key[0])

    def insert_all(self, appraisals: Sequence[Appraisal]) -> None:
        """Store several, in order."""
        events: dict[bytes, Sha256Hex] = {}
        self._connection.execute(_INSERT, [self._row(one, events) for one in appraisals])

    def _row(self, appraisal: Appraisal, events: dict[bytes, Sha256Hex]) -> dict[str, object]:
        """Its columns; ``events`` are the documents that are stored already, and where."""
        if appraisal.events not in events:
            events[appraisal.events] = self._logs.put(_EVENTS_KIND, appraisal.events)
        return {
            "node_id": appraisal.node_id,
            "at": appraisal.at,
            "verdict": appraisal.verdict,
            "reasons": appraisal.reasons,
            "facts": appraisal.facts,
            "events_sha256": events[appraisal.events],
            "evidence_sha256": appraisal.evidence_sha256,
            "logs": appraisal.logs,
            "entry_index": appraisal.entry_index,
        }

    def latest(self, node_id: NodeId) -> Appraisal | None:
        """The node's newest appraisal."""
        recent = self.recent(node_id, limit=1)
        return recent[0] if recent else None

    def recent(self, node_id: NodeId, *, limit: int) -> tuple[Appraisal, ...]:
        """The node's newest appraisals, newest first."""
        rows = self._connection.execute(_RECENT, {"node_id": node_id, "limit": limit}).mappings()
        return tuple(Appraisal(**row) for row in rows)

    def prune(self, node_id: NodeId, *, keep: int) -> int:
        """Delete all but the newest ``keep``; how many went. The audit log keeps every verdict."""
        oldest = self._connection.execute(_OLDEST_KEPT, {"node_id": node_id, "keep": keep}).scalar()
        if oldest is None:
            return 0
        gone = self._connection.execute(
            delete(_appraisals).where(_appraisals.c.node_id == node_id, _appraisals.c.id <= oldest)
        )
        return gone.rowcount
