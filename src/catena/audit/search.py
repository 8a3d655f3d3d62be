"""Questions about a log: who ever booted, ran, held, was trusted, failed; each hit with its entry.

The index says where to look; what is shown is read from the log, its signature verified, and held
against the question once more.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from catena.audit import checkpoint as checkpoints
from catena.audit.entries import Entry
from catena.audit.facts import Fact, facts_of, node_of
from catena.audit.hashes import read_checkpoint
from catena.audit.index import IndexUnusable, LogIndex, microseconds, open_index
from catena.audit.leaves import Leaves
from catena.audit.reader import LogReader
from catena.errors import LogInconsistent, NotFound
from catena.keys.signer import PublicKey

LIFETIME = timedelta(minutes=10)
"""How long a trusted verdict lasts: a server's ``certificate_lifetime``, unless it says otherwise."""
MIN_PREFIX = 4
"""Digits of a node's id that name it."""


class IndexAltered(LogInconsistent):
    """The index points to an entry that does not say what the index claims."""

    code = "index-altered"
    remedy = "Somebody changed the index. Search again with --rebuild."


class UnloggedNode(NotFound):
    """No entry of the log names this node."""

    code = "unlogged-node"
    remedy = "Give a node's name, or at least four digits of its id, as the log knows it."


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What to look for; without ``what`` every entry counts. ``values`` empty means any value.

    ``at``: the nodes that were trusted then, whose verdict was not older than ``lifetime``.
    """

    what: Fact | None = None
    values: tuple[str, ...] = ()
    at: datetime | None = None
    lifetime: timedelta = LIFETIME
    node: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """One entry that answers; ``found`` are the values that were asked for."""

    index: int
    at: datetime
    kind: str
    node: str | None
    name: str | None
    found: tuple[str, ...]
    summary: str


class NodeHits(msgspec.Struct, frozen=True, kw_only=True):
    """All hits of one node: how many, the entries of the first and last, and what they name."""

    node: str | None
    name: str | None
    count: int
    first: int
    first_at: datetime
    last: int
    last_at: datetime
    found: tuple[str, ...]


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """The answer, for the log of ``size`` entries with this ``root``; ``index`` is what became of it."""

    origin: str
    size: int
    root: str
    index: str
    nodes: tuple[NodeHits, ...]
    hits: tuple[Hit, ...]


def search(
    log: LogReader,
    key: PublicKey,
    query: Query,
    *,
    index: Path,
    origin: str | None = None,
    rebuild: bool = False,
) -> SearchResult:
    """Answer a query about a log.

    Raises ``LogMissing``, ``UnloggedNode``, ``IndexAltered``, what ``open_index`` raises, and the
    refusals of ``audit.checkpoint``.
    """
    head = checkpoints.verify(read_checkpoint(log), key, origin=origin)
    leaves = Leaves(log, head.size)
    with open_index(index, leaves, head, key, rebuild=rebuild) as opened:
        found = _find(opened, query)
        hits = tuple(_hit(number, leaves.entry(number, key), query) for number in found)
        return SearchResult(
            origin=head.origin,
            size=head.size,
            root=head.root.hex(),
            index=opened.news,
            nodes=_by_node(hits),
            hits=hits,
        )


def default_index(folder: Path) -> Path:
    """Beside the log, because every file within it belongs to the log."""
    return folder.parent / f"{folder.name}.index"


_EVERY = "SELECT id FROM entries"
_WITH_FACT = "SELECT DISTINCT id FROM facts JOIN entries ON entries.id = facts.entry"
_TRUSTED_THEN = (
    "SELECT id FROM (SELECT max(entries.id) AS id FROM facts JOIN entries ON entries.id = facts.entry"
    " WHERE what = 'state' AND at <= ? GROUP BY node) JOIN entries USING (id)"
    " JOIN facts ON entry = id AND what = 'state' AND value = 'trusted'"
)


def _find(index: LogIndex, query: Query) -> list[int]:
    """Numbers of the entries that should answer, in order. Raises ``IndexUnusable``."""
    text = _EVERY
    values: list[object] = []
    conditions: list[str] = []
    if query.at is not None:
        text = _TRUSTED_THEN
        after = microseconds(query.at) - query.lifetime // timedelta(microseconds=1)
        values, conditions = [microseconds(query.at), after], ["at > ?"]
    elif query.what is not None:
        text, values, conditions = _WITH_FACT, [query.what, *query.values], ["what = ?"]
        if query.values:
            conditions.append(f"value IN ({_marks(query.values)})")
    try:
        more, also = _conditions(index, query)
        where = " AND ".join([*conditions, *more])
        # Only our own words are put together here; what was asked for goes in by its place.
        rows = index.rows.execute(
            f"{text}{' WHERE ' if where else ''}{where} ORDER BY id", [*values, *also]
        )
        return [number for (number,) in rows]
    except sqlite3.Error as error:
        raise IndexUnusable(f"the index cannot be used: {error}") from error


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _conditions(index: LogIndex, query: Query) -> tuple[list[str], list[object]]:
    conditions: list[str] = []
    values: list[object] = []
    if query.node is not None:
        nodes = _nodes_named(index, query.node)
        conditions.append(f"node IN ({_marks(nodes)})")
        values.extend(nodes)
    if query.since is not None:
        conditions.append("at >= ?")
        values.append(microseconds(query.since))
    if query.until is not None:
        conditions.append("at <= ?")
        values.append(microseconds(query.until))
    return conditions, values


def _nodes_named(index: LogIndex, name: str) -> list[str]:
    """Every node that ever had this name, or whose id begins so."""
    prefix = len(name) >= MIN_PREFIX and not set(name) - set("0123456789abcdef")
    rows = index.rows.execute(
        "SELECT DISTINCT node FROM entries WHERE name = ? OR (? AND substr(node, 1, ?) = ?)",
        (name, prefix, len(name), name),
    )
    nodes = [node for (node,) in rows]
    if not nodes:
        raise UnloggedNode("no entry names this node", got=ascii(name[:80]))
    return nodes


def _hit(number: int, entry: Entry, query: Query) -> Hit:
    """The entry itself, which must say what the index says of it. Raises ``IndexAltered``."""
    what = "state" if query.at is not None else query.what
    wanted = ("trusted",) if query.at is not None else query.values
    found = tuple(
        value for name, value in facts_of(entry) if name == what and (not wanted or value in wanted)
    )
    if (what is not None and not found) or not _in_bounds(entry, query):
        raise IndexAltered("the entry does not say what the index claims", got=f"entry {number}")
    node, name = node_of(entry)
    return Hit(
        index=number,
        at=entry.at,
        kind=entry.kind,
        node=node,
        name=name,
        found=found,
        summary=entry.summary(),
    )


def _in_bounds(entry: Entry, query: Query) -> bool:
    since = query.since is None or entry.at >= query.since
    until = query.until is None or entry.at <= query.until
    if query.at is not None:
        return since and until and query.at - query.lifetime < entry.at <= query.at
    return since and until


def _by_node(hits: tuple[Hit, ...]) -> tuple[NodeHits, ...]:
    """In the order in which the nodes appear; what is about no node comes under none."""
    groups: dict[str | None, list[Hit]] = {}
    for hit in hits:
        groups.setdefault(hit.node, []).append(hit)
    return tuple(
        NodeHits(
            node=node,
            name=next((hit.name for hit in reversed(group) if hit.name), None),
            count=len(group),
            first=group[0].index,
            first_at=group[0].at,
            last=group[-1].index,
            last_at=group[-1].at,
            found=tuple(dict.fromkeys(value for hit in group for value in hit.found)),
        )
        for node, group in groups.items()
    )
