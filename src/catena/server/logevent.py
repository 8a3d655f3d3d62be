"""An entry of the log as other systems get it: event streams and webhooks."""

from __future__ import annotations

from hashlib import sha256

import msgspec

from catena.audit.entries import Entry, NodeEntry
from catena.service.views import View


class LogEvent(View, frozen=True, kw_only=True):
    """One entry; ``entry`` has its fields as the log has them, ``state`` is a node's after it.

    ``origin`` and ``index`` name the entry for ever; its signature is in the log.
    """

    origin: str
    index: int
    kind: str
    at: str
    actor: str
    node_id: str | None = None
    node_name: str | None = None
    state: str | None = None
    summary: str
    entry: msgspec.Raw


def log_id(origin: str) -> str:
    """A log in the name of its events: of logs that follow each other, each begins at index 0."""
    return sha256(origin.encode()).hexdigest()[:16]


def event_of(origin: str, index: int, entry: Entry) -> LogEvent:
    """The event of an entry that was verified."""
    node = entry if isinstance(entry, NodeEntry) else None
    return LogEvent(
        origin=origin,
        index=index,
        kind=entry.kind,
        at=entry.at.isoformat().replace("+00:00", "Z"),
        actor=entry.actor,
        node_id=None if node is None else node.node_id,
        node_name=None if node is None else node.node_name,
        state=getattr(entry, "state", None),
        summary=entry.summary(),
        entry=msgspec.Raw(msgspec.json.encode(entry)),
    )
