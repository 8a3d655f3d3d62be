"""Nodes and their pending second enrolments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from catena.ids import NodeId, NodeName, Sha256Hex
from catena.store import schema
from catena.store.errors import AmbiguousNode, Conflict, NameTaken, NodeMoved, NoSuchRow
from catena.store.keyset import behind

_nodes = schema.nodes
_pending = schema.reenrolments


@dataclass(frozen=True, slots=True)
class Clock:
    """The TPM's clock triple of the last accepted quote (TPMS_CLOCK_INFO)."""

    reset_count: int = 0
    restart_count: int = 0
    clock: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One row per TPM. ``name`` and ``role`` are the server's; ``name_hint`` is *untrusted*.

    ``boot_log`` is the last proven boot's; ``trusted_log`` that of the last trusted boot before.
    ``tpm`` is a JSON document of its enrolment, None for a row from before there was one.
    """

    id: NodeId
    name: NodeName | None = None
    role: str | None = None
    state: str
    state_reason: str = ""
    ek_public: bytes
    ak_public: bytes
    ek_root: str
    name_hint: str | None = None
    mode: str
    enrolled_at: datetime
    approved_at: datetime | None = None
    readmitted: bool = False
    reset_count: int = 0
    restart_count: int = 0
    clock: int = 0
    last_attested: datetime | None = None
    last_verdict: str | None = None
    boot_log: Sha256Hex | None = None
    trusted_log: Sha256Hex | None = None
    tpm: bytes | None = None
    state_since: datetime | None = None
    """None for a node whose state is older than this column."""
    attest_by: datetime | None = None
    """Somebody demanded an attestation by then, and none was concluded since."""
    site: str | None = None
    channel: str | None = None
    former_name: NodeName | None = None
    """What a retired node was called; its ``name`` is free."""
    endorsement: str | None = None
    """Empty if its TPM is vouched for, else the code of why not; None if it cannot be told."""

    @property
    def clock_triple(self) -> Clock:
        """The three clock columns as one value, to compare and swap."""
        return Clock(self.reset_count, self.restart_count, self.clock)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attested:
    """An attestation that takes effect: the node as it was, its clock as it is, and what is remembered.

    Both logs must be stored already.
    """

    before: Node
    """The node as it was read; if it has changed meanwhile, the attestation does not count."""
    after: Clock
    at: datetime
    verdict: str
    boot_log: Sha256Hex | None
    trusted_log: Sha256Hex | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reenrolment:
    """A known EK that came back with another AK and waits for approval."""

    node_id: NodeId
    ak_public: bytes
    at: datetime


_COLUMNS = tuple(_nodes.c[name] for name in Node.__dataclass_fields__)
_NAMES = tuple(Node.__dataclass_fields__)
_ALL = select(*_COLUMNS).order_by(_nodes.c.enrolled_at, _nodes.c.id)
_GET = select(*_COLUMNS).where(_nodes.c.id == bindparam("id"))
_GET_ALL = select(*_COLUMNS).where(_nodes.c.id.in_(bindparam("ids", expanding=True)))
_STATES = select(_nodes.c.id, _nodes.c.state).where(
    _nodes.c.id.in_(bindparam("ids", expanding=True))
)
_BY_NAME = select(*_COLUMNS).where(_nodes.c.name == bindparam("name"))
_COUNT = select(_nodes.c.state, func.count()).group_by(_nodes.c.state)
_AS_READ = (
    _nodes.c.id == bindparam("node"),
    _nodes.c.reset_count == bindparam("old_reset"),
    _nodes.c.restart_count == bindparam("old_restart"),
    _nodes.c.clock == bindparam("old_clock"),
    _nodes.c.state == bindparam("old_state"),
    _nodes.c.state_reason == bindparam("old_reason"),
    _nodes.c.readmitted == bindparam("old_readmitted"),
    _nodes.c.name.is_not_distinct_from(bindparam("old_name")),
    _nodes.c.role.is_not_distinct_from(bindparam("old_role")),
)
"""The row is what it was when a decision about it began."""
_NEW_CLOCK: dict[str, Any] = {
    "reset_count": bindparam("new_reset"),
    "restart_count": bindparam("new_restart"),
    "clock": bindparam("new_clock"),
}
_ADVANCE = update(_nodes).where(*_AS_READ).values(**_NEW_CLOCK)
_ATTESTED = (
    update(_nodes)
    .where(*_AS_READ)
    .values(
        **_NEW_CLOCK,
        attest_by=None,
        last_attested=bindparam("at"),
        last_verdict=bindparam("verdict"),
        boot_log=bindparam("log"),
        trusted_log=bindparam("trusted"),
    )
)


class Nodes:
    """The nodes of one transaction."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, node_id: NodeId) -> Node | None:
        """The node with exactly this id."""
        row = self._connection.execute(_GET, {"id": node_id}).mappings().first()
        return None if row is None else Node(**row)

    def get_all(self, ids: Sequence[NodeId]) -> Mapping[NodeId, Node]:
        """Those of the nodes that there are, by id."""
        rows = self._connection.execute(_GET_ALL, {"ids": list(ids)})
        return {row[0]: Node(**dict(zip(_NAMES, row, strict=True))) for row in rows}

    def states(self, ids: Sequence[NodeId]) -> Mapping[NodeId, str]:
        """The states of those of the nodes that there are."""
        rows = self._connection.execute(_STATES, {"ids": list(ids)})
        return {NodeId(node_id): state for node_id, state in rows}

    def find(self, name_or_prefix: str) -> Node | None:
        """The node with this name, or the only one whose id starts so.

        Raises ``AmbiguousNode``.
        """
        row = self._connection.execute(_BY_NAME, {"name": name_or_prefix}).mappings().first()
        if row is not None or not name_or_prefix:
            return None if row is None else Node(**row)
        query = _ALL.where(_nodes.c.id.startswith(name_or_prefix, autoescape=True)).limit(2)
        rows = self._connection.execute(query).mappings().all()
        if len(rows) > 1:
            raise AmbiguousNode("several nodes have an id that starts like this")
        return Node(**rows[0]) if rows else None

    def list(self) -> tuple[Node, ...]:
        """All nodes, oldest enrolment first."""
        rows = self._connection.execute(_ALL).mappings()
        return tuple(Node(**row) for row in rows)

    def page(
        self,
        after: tuple[datetime, NodeId] | None,
        limit: int,
        *,
        states: Sequence[str] = (),
        role: str | None = None,
    ) -> tuple[Node, ...]:
        """As ``list``, at most ``limit`` behind the node with this enrolment and id.

        ``states`` and ``role``, if given, are the only ones that count.
        """
        query = _ALL.limit(limit)
        if states:
            query = query.where(_nodes.c.state.in_(states))
        if role is not None:
            query = query.where(_nodes.c.role == role)
        if after is not None:
            query = query.where(behind((_nodes.c.enrolled_at, _nodes.c.id), after))
        return tuple(Node(**row) for row in self._connection.execute(query).mappings())

    def count(self) -> dict[str, int]:
        """How many nodes are in each state."""
        return {str(state): number for state, number in self._connection.execute(_COUNT)}

    def silent(
        self, state: str, since: datetime, now: datetime, *, after: str, limit: int
    ) -> tuple[Node, ...]:
        """Nodes of a state that did not attest after ``since``, or not by when it was demanded.

        By id, at most ``limit`` behind ``after``.
        """
        last, by = _nodes.c.last_attested, _nodes.c.attest_by
        late = or_(last.is_(None), last < since, by < now)
        query = (
            select(*_COLUMNS)
            .where(_nodes.c.state == state, late, _nodes.c.id > after)
            .order_by(_nodes.c.id)
            .limit(limit)
        )
        return tuple(Node(**row) for row in self._connection.execute(query).mappings())

    def count_unjudgeable(self) -> int:
        """How many nodes that are not retired have no certificate to judge again."""
        query = select(func.count()).where(
            _nodes.c.endorsement.is_(None), _nodes.c.state != "retired"
        )
        return int(self._connection.execute(query).scalar_one())

    def names(self) -> dict[str, NodeId]:
        """The id of the node behind each name that is in use."""
        query = select(_nodes.c.name, _nodes.c.id).where(_nodes.c.name.is_not(None))
        return {row.name: NodeId(row.id) for row in self._connection.execute(query)}

    def insert(self, node: Node) -> None:
        """Add a node. Raises ``NameTaken``, or ``Conflict`` if its id is known (on leaving the
        transaction at the latest).
        """
        if node.name is not None:
            self._refuse_taken_name(node.id, node.name)
        values = {name: getattr(node, name) for name in Node.__dataclass_fields__}
        self._connection.execute(insert(_nodes), values)

    def replace_ak(self, node_id: NodeId, ak_public: bytes) -> None:
        """Make ``ak_public`` the node's AK; the clock starts anew with the new key."""
        self._change(
            node_id, {"ak_public": ak_public, "reset_count": 0, "restart_count": 0, "clock": 0}
        )

    def describe_tpm(self, node_id: NodeId, ek_root: str, tpm: bytes | None) -> None:
        """Keep who vouches for the node's TPM now, and what its certificate says."""
        self._change(node_id, {"ek_root": ek_root, "tpm": tpm})

    def endorse(self, node_id: NodeId, endorsement: str) -> None:
        """Keep whether the node's TPM is vouched for."""
        self._change(node_id, {"endorsement": endorsement})

    def forget_clock(self, node_id: NodeId) -> None:
        """Accept whatever clock the node's TPM shows next."""
        self._change(node_id, {"reset_count": 0, "restart_count": 0, "clock": 0})

    def approve(
        self,
        node_id: NodeId,
        *,
        name: NodeName,
        role: str,
        state: str,
        at: datetime,
        reason: str = "",
        readmitted: bool = False,
        before: str | None = None,
    ) -> None:
        """Give the node its name, role and state. Raises ``NameTaken`` and ``NoSuchRow``.

        ``before`` is the state that it must be in still, if given: else ``Conflict``.
        """
        self._refuse_taken_name(node_id, name)
        values = {
            "name": name,
            "role": role,
            "state": state,
            "state_reason": reason,
            "approved_at": at,
            "readmitted": readmitted,
        }
        if before is not None and before != state:
            values["state_since"] = at
        try:
            if before is None:
                self._change(node_id, values)
            elif not self.move(node_id, before, values):
                raise Conflict("the node's state changed meanwhile", expected=before)
        except IntegrityError as error:
            raise NameTaken("another node was given this name at the same time") from error

    def set_state(
        self,
        node_id: NodeId,
        state: str,
        reason: str,
        *,
        readmitted: bool | None = None,
        since: datetime | None = None,
    ) -> None:
        """Change state and its reason, and on request the readmission mark and the state's time."""
        values: dict[str, object] = {"state": state, "state_reason": reason}
        if since is not None:
            values["state_since"] = since
        if readmitted is not None:
            values["readmitted"] = readmitted
        self._change(node_id, values)

    def stand(
        self, node: Node, state: str, reason: str, *, readmitted: bool, now: datetime
    ) -> None:
        """Change what differs from ``node``, as it was read. Mostly nothing does: that is no write."""
        if (node.state, node.state_reason, node.readmitted) != (state, reason, readmitted):
            since = None if node.state == state else now
            self.set_state(node.id, state, reason, readmitted=readmitted, since=since)

    def move(self, node_id: NodeId, before: str, values: dict[str, object]) -> bool:
        """Change a node that is in the state ``before`` still; False if it is not."""
        where = (_nodes.c.id == node_id, _nodes.c.state == before)
        changed = self._connection.execute(update(_nodes).where(*where).values(values))
        return changed.rowcount == 1

    def become_stale(self, node: Node, reason: str, at: datetime) -> bool:
        """From trusted to stale, unless the node moved or attested since it was read."""
        statement = (
            update(_nodes)
            .where(
                _nodes.c.id == node.id,
                _nodes.c.state == node.state,
                _nodes.c.last_attested == node.last_attested,
            )
            .values(state="stale", state_reason=reason, state_since=at)
        )
        return self._connection.execute(statement).rowcount == 1

    def retire(self, node: Node, reason: str, at: datetime) -> bool:
        """Retired, its name free, whatever it waited for forgotten; False if it moved meanwhile."""
        return self.move(
            node.id,
            node.state,
            {
                "state": "retired",
                "state_reason": reason,
                "state_since": at,
                "name": None,
                "former_name": node.name,
                "readmitted": False,
                "attest_by": None,
            },
        )

    def place(self, node_id: NodeId, site: str | None, channel: str | None) -> None:
        """Say where the node stands, and which release channel it follows."""
        self._change(node_id, {"site": site, "channel": channel})

    def demand(self, node_id: NodeId, by: datetime) -> None:
        """Ask for an attestation by then; the next one answers it."""
        self._change(node_id, {"attest_by": by})

    def advance_clock(self, node: Node, new: Clock) -> bool:
        """Compare and swap the clock triple; False if somebody else moved it since ``node`` was read.

        So it is if the node's name, role, state or readmission is another by now: what was decided
        from ``node`` must not take effect after a revocation. Until the transaction ends, no other
        one decides about the node.
        """
        result = self._connection.execute(_ADVANCE, {**_as_read(node), **_clock(new)})
        return result.rowcount == 1

    def hold(self, node: Node) -> None:
        """As ``advance_clock``, without a new clock. Raises ``NodeMoved``."""
        if not self.advance_clock(node, node.clock_triple):
            raise NodeMoved("the node was decided about elsewhere meanwhile")

    def attested(self, concluded: Sequence[Attested]) -> bool:
        """Remember attestations, each of another node.

        Compare and swap as ``advance_clock``: False if somebody else moved one of them since, and then
        nothing of this transaction may be kept.
        """
        result = self._connection.execute(_ATTESTED, [_attested(one) for one in concluded])
        return result.rowcount == len(concluded)

    def _change(self, node_id: NodeId, values: dict[str, object]) -> None:
        statement = update(_nodes).where(_nodes.c.id == node_id).values(values)
        _require_one(self._connection.execute(statement).rowcount)

    def _refuse_taken_name(self, node_id: NodeId, name: NodeName) -> None:
        holder = self._connection.execute(_BY_NAME, {"name": name}).mappings().first()
        if holder is not None and holder["id"] != node_id:
            raise NameTaken("another node already has this name", got=name[:80])


class Reenrolments:
    """Second enrolments that wait for approval, at most one per node: the latest."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put(self, pending: Reenrolment) -> None:
        """Remember it, replacing an older one of the same node."""
        self.remove(pending.node_id)
        self._connection.execute(
            insert(_pending),
            {"node_id": pending.node_id, "ak_public": pending.ak_public, "at": pending.at},
        )

    def get(self, node_id: NodeId) -> Reenrolment | None:
        """The pending enrolment of this node."""
        query = select(_pending).where(_pending.c.node_id == node_id)
        row = self._connection.execute(query).mappings().first()
        return None if row is None else Reenrolment(**row)

    def list(self) -> tuple[Reenrolment, ...]:
        """All of them, oldest first."""
        rows = self._connection.execute(select(_pending).order_by(_pending.c.at)).mappings()
        return tuple(Reenrolment(**row) for row in rows)

    def remove(self, node_id: NodeId) -> None:
        """Forget it: approved or rejected."""
        self._connection.execute(delete(_pending).where(_pending.c.node_id == node_id))


def _attested(one: Attested) -> dict[str, object]:
    return {
        **_as_read(one.before),
        **_clock(one.after),
        "at": one.at,
        "verdict": one.verdict,
        "log": one.boot_log,
        "trusted": one.trusted_log,
    }


def _as_read(node: Node) -> dict[str, object]:
    return {
        "node": node.id,
        "old_reset": node.reset_count,
        "old_restart": node.restart_count,
        "old_clock": node.clock,
        "old_state": node.state,
        "old_reason": node.state_reason,
        "old_readmitted": node.readmitted,
        "old_name": node.name,
        "old_role": node.role,
    }


def _clock(new: Clock) -> dict[str, object]:
    return {
        "new_reset": new.reset_count,
        "new_restart": new.restart_count,
        "new_clock": new.clock,
    }


def _require_one(changed: int) -> None:
    if changed != 1:
        raise NoSuchRow("this node is not in the database")
