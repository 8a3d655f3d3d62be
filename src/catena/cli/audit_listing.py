"""One entry of the log as verbs of ``catena audit`` show it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from catena.audit.entries import NodeEntry
from catena.audit.people import shortened
from catena.audit.verify import VerifiedEntry
from catena.cli import output
from catena.cli.connection import printable

SHOWN_NODE = 32
"""Letters of a node's name, or digits of its id while it has no name, in a table."""


class ListedEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry as a listing shows it."""

    index: int
    at: datetime
    kind: str
    node: str | None
    actor: str
    summary: str


def listed(verified: VerifiedEntry, names: Mapping[str, str] | None = None) -> ListedEntry:
    """What of an entry a person wants to see first, with ``names`` by pseudonym."""
    entry, summary = verified.entry, verified.entry.summary()
    actor = (names or {}).get(entry.actor, entry.actor)
    for person in {getattr(entry, field) for field in entry.personal} & set(names or ()):
        summary = summary.replace(shortened(person), (names or {})[person])
    return ListedEntry(
        index=verified.index,
        at=entry.at,
        kind=entry.kind,
        node=entry.node_name or entry.node_id if isinstance(entry, NodeEntry) else None,
        actor=printable(actor),
        summary=printable(summary),
    )


def table(entries: Iterable[ListedEntry]) -> None:
    """Entries as a table."""
    output.table(
        ("index", "at", "kind", "node", "summary"),
        (
            (
                str(entry.index),
                f"{entry.at:%Y-%m-%d %H:%M:%S}Z",
                entry.kind,
                (entry.node or "-")[:SHOWN_NODE],
                entry.summary,
            )
            for entry in entries
        ),
    )
