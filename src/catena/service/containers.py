"""What nodes ran in containers: into the audit log as soon as it is proven, and told to people.

A record is read again in every attestation, but logged once: the database remembers how far. If a node
has more news than one attestation may log, the rest follows with the next. Then, and after a
restart, an entry is written twice rather than not at all.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from catena.appraise.containerclaims import ClaimedUse, Contained
from catena.appraise.containers import Account, Told
from catena.appraise.recorded import ProvenRecord, proven_records, sha256_of
from catena.audit.entries import ContainersRecorded, LoggedContainerEvent
from catena.errors import FormatError
from catena.formats import containerlog
from catena.formats.cel import CelRecord
from catena.ids import NodeId, Sha256Hex
from catena.service.views import ContainerEventView, ContainersView
from catena.store.containers import ContainerRecord
from catena.store.database import Transaction
from catena.store.nodes import Node

MAX_LOGGED = 2048
"""Records that one attestation may add to the audit log."""
MAX_ENTRY_BYTES = 40_000
"""Bytes of events in one entry: with the envelope around them it stays below ``MAX_ENTRY``."""
GATE_RULE = "rule:container-gate"


class ContainersDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the database keeps of a proven record: all that is needed to tell it and judge it again."""

    account: Account
    uses: tuple[ClaimedUse, ...]
    accepted: dict[str, str]
    unverified: int
    policy: str


@dataclass(frozen=True, slots=True)
class ProvenContainers:
    """A proven record and its ``ContainersDocument``, encoded. ``place`` says what holds it."""

    place: ProvenRecord
    document: bytes


@dataclass(frozen=True, slots=True)
class RecordNews:
    """What of a proven record is new: to be logged, and to be kept in the database."""

    events: tuple[LoggedContainerEvent, ...]
    proven: ProvenContainers
    kept: ContainerRecord

    def entries(
        self, node: Node, at: datetime, evidence: Sha256Hex
    ) -> tuple[ContainersRecorded, ...]:
        """The entries for the audit log."""
        return tuple(
            ContainersRecorded(
                at=at,
                actor=node.id,
                node_id=node.id,
                node_name=node.name,
                evidence_sha256=evidence,
                record_sha256=self.proven.place.sha256.hex(),
                record_size=self.proven.place.size,
                first=events[0].record,
                last=events[-1].record,
                started=sum(one.kind == "create" for one in events),
                refused=sum(one.kind == "deny" for one in events),
                events=events,
                nv_index=msgspec.UNSET if self.kept.nv_index is None else self.kept.nv_index,
            )
            for events in _parcels(self.events)
        )

    def remember(self, rows: Transaction) -> None:
        """Keep it, in the transaction of the verdict's effects."""
        rows.container_records.put(self.kept)


def document_of(contained: Contained) -> bytes:
    """A judged record as the database keeps it; empty where there is none."""
    if contained.account is None:
        return b""
    return msgspec.json.encode(
        ContainersDocument(
            account=contained.account,
            uses=contained.uses,
            accepted=dict(contained.accepted),
            unverified=contained.facts["containers_unverified"],
            policy=contained.facts["container_policy"],
        )
    )


def news_of(
    rows: Transaction, node: Node, proven: ProvenContainers, log: bytes
) -> RecordNews | None:
    """What the database and the audit log do not have yet of ``log``, or None."""
    place = proven.place
    before = _before(rows, node, place.nv_index)
    if not place.records and (before is None or place.nv_index is None):
        return None
    if before is not None and (before.logged_sha256, before.document) == (
        place.sha256.hex(),
        proven.document,
    ):
        return None
    end, index = _logged(before, place, log)
    events = []
    for record, behind in itertools.islice(proven_records(log, end, index, place.size), MAX_LOGGED):
        events.append(_logged_event(record))
        end = behind
    kept = ContainerRecord(
        node_id=node.id,
        records=place.records,
        logged_records=index + len(events),
        logged_size=end,
        logged_sha256=Sha256Hex(sha256_of(log, end).hex()),
        document=proven.document,
        nv_index=place.nv_index,
    )
    return RecordNews(tuple(events), proven, kept)


def _before(rows: Transaction, node: Node, nv_index: int | None) -> ContainerRecord | None:
    if nv_index is None:
        return rows.container_records.get(node.id)
    kept = rows.container_records.indexed(node.id)
    return next((one for one in kept if one.nv_index == nv_index), None)


def _logged(before: ContainerRecord | None, place: ProvenRecord, log: bytes) -> tuple[int, int]:
    """How far this record is in the audit log: bytes and records. Another boot's says nothing."""
    if before is None or before.logged_size > place.size:
        return 0, 0
    if sha256_of(log, before.logged_size).hex() != before.logged_sha256:
        return 0, 0
    return before.logged_size, before.logged_records


def _logged_event(record: CelRecord) -> LoggedContainerEvent:
    try:
        event = containerlog.parse(record.content)
    except FormatError:
        return LoggedContainerEvent(record=record.index, kind="unreadable")
    known = ("container", "image", "repository", "publisher", "code")
    words = {name: getattr(event, name) for name in known if hasattr(event, name)}
    return LoggedContainerEvent(record=record.index, kind=str(event.__struct_config__.tag), **words)


def _parcels(
    events: Sequence[LoggedContainerEvent],
) -> Iterator[tuple[LoggedContainerEvent, ...]]:
    """The events in order, in groups that fit into one entry each."""
    group: list[LoggedContainerEvent] = []
    size = 0
    for event in events:
        more = len(msgspec.json.encode(event)) + 1
        if group and size + more > MAX_ENTRY_BYTES:
            yield tuple(group)
            group, size = [], 0
        group.append(event)
        size += more
    if group:
        yield tuple(group)


def kept_of(
    rows: Transaction, node_id: NodeId, indices: tuple[int, ...], records: object
) -> Mapping[int | None, ContainersDocument]:
    """What is kept of a node's records, by NV index, None for the one in a PCR.

    Nothing unless they are those of the last verdict: ``records`` is its fact
    ``container_records``, ``indices`` are those that the server expects records in.
    """
    if indices:
        kept = [one for one in rows.container_records.indexed(node_id) if one.nv_index in indices]
    else:
        one = rows.container_records.get(node_id)
        kept = [] if one is None else [one]
    if not records or sum(one.records for one in kept) != records:
        return {}
    return {
        one.nv_index: msgspec.json.decode(one.document, type=ContainersDocument) for one in kept
    }


def view_of(document: ContainersDocument, nv_index: int | None = None) -> ContainersView:
    """A record as people see it."""
    account = document.account
    return ContainersView(
        nv_index=None if nv_index is None else f"{nv_index:#010x}",
        records=account.records,
        started=account.started,
        executed=account.executed,
        refused=account.refused,
        unverified=document.unverified,
        gate_restarts=max(account.gates - 1, 0),
        policy=document.policy,
        omitted=account.records - len(account.told),
        events=tuple(_event_view(told, document) for told in account.told),
    )


def _event_view(told: Told, document: ContainersDocument) -> ContainerEventView:
    claimed, why = _claim(told, document)
    return ContainerEventView(
        record=told.record,
        at=told.at,
        kind=told.kind,
        container=told.container,
        sandbox=told.sandbox,
        image=told.image,
        repository=told.repository,
        publisher=told.publisher,
        signature=told.signature,
        what=told.what,
        claimed_by=claimed,
        why=why,
    )


def _claim(told: Told, document: ContainersDocument) -> tuple[str | None, str | None]:
    """Who accounts for an event, or why nobody does."""
    if told.fault:
        return None, told.fault
    if told.kind in _RAN:
        for one in document.uses:
            use = one.use
            if told.use == (use.policy, use.repository, use.publisher):
                return one.claimed_by, one.why
        return None, "container-record-overflow"
    if told.policy and told.policy not in document.accepted:
        return None, "its policy was not accepted"
    return document.accepted.get(told.policy, GATE_RULE), None


_RAN = ("create", "exec")
