"""What nodes' endorsements rest on: the certificates that each enrolled with, and who may stand above them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
from sqlalchemy import Connection, bindparam, delete, func, insert, select

from catena.ids import NodeId
from catena.store import schema

_certificates = schema.ek_certificates
_authorities = schema.ek_authorities
_nodes = schema.nodes
_decode = msgspec.msgpack.Decoder(tuple[bytes, ...]).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptCertificates:
    """DER, the EK's own first, as the node sent them; none if its EK was pinned and has none.

    ``endorsement`` is the node's, as it was last judged.
    """

    node_id: NodeId
    ek_public: bytes
    certificates: tuple[bytes, ...]
    endorsement: str | None


_KEPT = select(
    _nodes.c.id.label("node_id"),
    _nodes.c.ek_public,
    _certificates.c.certificates,
    _nodes.c.endorsement,
).join(_certificates, _certificates.c.node_id == _nodes.c.id)
_GET = _KEPT.where(_nodes.c.id == bindparam("node"))
_UNDER = (
    _KEPT.join(_authorities, _authorities.c.node_id == _nodes.c.id)
    .where(_authorities.c.name == bindparam("name"), _authorities.c.node_id > bindparam("after"))
    .order_by(_authorities.c.node_id)
    .limit(bindparam("limit"))
)
_UNDER_SINCE = _UNDER.where(_certificates.c.kept_at >= bindparam("since"))
_COUNT_UNDER = select(func.count()).where(_authorities.c.name == bindparam("name"))
_NAMES = select(_authorities.c.node_id, _authorities.c.name).where(
    _authorities.c.node_id.in_(bindparam("ids", expanding=True))
)


class EkCertificates:
    """The kept certificates of one transaction. An authority is named by a digest of its name."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put(self, node_id: NodeId, certificates: tuple[bytes, ...], at: datetime) -> None:
        """Keep what a node enrolled with, in place of what was kept before."""
        self._connection.execute(delete(_certificates).where(_certificates.c.node_id == node_id))
        self._connection.execute(
            insert(_certificates),
            {
                "node_id": node_id,
                "certificates": msgspec.msgpack.encode(certificates),
                "kept_at": at,
            },
        )

    def get(self, node_id: NodeId) -> KeptCertificates | None:
        """What is kept of a node; None if it enrolled before anything was."""
        row = self._connection.execute(_GET, {"node": node_id}).first()
        return None if row is None else _kept(*row)

    def place_under(self, node_id: NodeId, names: frozenset[str]) -> None:
        """Say which authorities may stand above the node's certificate, and no others."""
        self._connection.execute(delete(_authorities).where(_authorities.c.node_id == node_id))
        if names:
            rows = [{"node_id": node_id, "name": name} for name in sorted(names)]
            self._connection.execute(insert(_authorities), rows)

    def above(self, ids: Sequence[NodeId]) -> Mapping[NodeId, frozenset[str]]:
        """The authorities that may stand above these nodes' certificates."""
        found: dict[NodeId, set[str]] = {one: set() for one in ids}
        for node_id, name in self._connection.execute(_NAMES, {"ids": list(ids)}):
            found[NodeId(node_id)].add(name)
        return {node_id: frozenset(names) for node_id, names in found.items()}

    def under(
        self, name: str, *, after: str, limit: int, since: datetime | None = None
    ) -> tuple[KeptCertificates, ...]:
        """Nodes below an authority by id, at most ``limit`` behind ``after``.

        With ``since`` only those whose certificates were kept then or later.
        """
        wanted = {"name": name, "after": after, "limit": limit}
        if since is None:
            rows = self._connection.execute(_UNDER, wanted)
        else:
            rows = self._connection.execute(_UNDER_SINCE, {**wanted, "since": since})
        return tuple(_kept(*row) for row in rows)

    def count_under(self, name: str) -> int:
        """How many nodes are below an authority."""
        return int(self._connection.execute(_COUNT_UNDER, {"name": name}).scalar_one())


def _kept(
    node_id: str, ek_public: bytes, certificates: bytes, endorsement: str | None
) -> KeptCertificates:
    return KeptCertificates(
        node_id=NodeId(node_id),
        ek_public=ek_public,
        certificates=_decode(certificates),
        endorsement=endorsement,
    )
