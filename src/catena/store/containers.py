"""Container records: how far each node's was logged, and what its last proven one says."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from sqlalchemy import Connection, bindparam, insert, select, update

from catena.ids import NodeId, Sha256Hex
from catena.store import schema

_records = schema.container_records
_GET = select(_records).where(_records.c.node_id == bindparam("wanted"))
_UPDATE = update(_records).where(_records.c.node_id == bindparam("wanted"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRecord:
    """A node's record: ``records`` are proven, ``document`` is what they say, as JSON.

    The audit log has the first ``logged_records`` of them: ``logged_size`` bytes.
    """

    node_id: NodeId
    records: int
    logged_records: int
    logged_size: int
    logged_sha256: Sha256Hex
    document: bytes = field(repr=False)


class ContainerRecords:
    """The container records of one transaction, one for each node that has any."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, node_id: NodeId) -> ContainerRecord | None:
        """The node's record, of this boot or an earlier one."""
        row = self._connection.execute(_GET, {"wanted": node_id}).mappings().first()
        return None if row is None else ContainerRecord(**row)

    def put(self, record: ContainerRecord) -> None:
        """Keep the record in place of the node's last one."""
        values = asdict(record)
        changed = self._connection.execute(_UPDATE, {"wanted": record.node_id, **values})
        if changed.rowcount == 0:
            self._connection.execute(insert(_records), values)
