"""Container records: how far each node's was logged, and what its last proven one says."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from sqlalchemy import Connection, bindparam, insert, select, update

from catena.ids import NodeId, Sha256Hex
from catena.store import schema

_records = schema.container_records
_GET = select(_records).where(_records.c.node_id == bindparam("wanted"))
_UPDATE = update(_records).where(_records.c.node_id == bindparam("wanted"))
_indexed = schema.container_index_records
_OF_NODE = (
    select(_indexed).where(_indexed.c.node_id == bindparam("wanted")).order_by(_indexed.c.nv_index)
)
_UPDATE_INDEXED = update(_indexed).where(
    _indexed.c.node_id == bindparam("wanted"), _indexed.c.nv_index == bindparam("held_by")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRecord:
    """A node's record: ``records`` are proven, ``document`` is what they say, as JSON.

    The audit log has the first ``logged_records`` of them: ``logged_size`` bytes. ``nv_index``
    holds the record, or a PCR if it is None.
    """

    node_id: NodeId
    records: int
    logged_records: int
    logged_size: int
    logged_sha256: Sha256Hex
    document: bytes = field(repr=False)
    nv_index: int | None = None


class ContainerRecords:
    """The container records of one transaction, one for each node that has any, and for each index."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, node_id: NodeId) -> ContainerRecord | None:
        """The node's record in a PCR, of this boot or an earlier one."""
        row = self._connection.execute(_GET, {"wanted": node_id}).mappings().first()
        return None if row is None else ContainerRecord(**row)

    def indexed(self, node_id: NodeId) -> tuple[ContainerRecord, ...]:
        """The node's records in NV indices, by index, each of this boot or an earlier one."""
        rows = self._connection.execute(_OF_NODE, {"wanted": node_id}).mappings()
        return tuple(ContainerRecord(**row) for row in rows)

    def put(self, record: ContainerRecord) -> None:
        """Keep the record in place of the node's last one in the same PCR or index."""
        values = asdict(record)
        wanted: dict[str, object] = {"wanted": record.node_id, "held_by": record.nv_index}
        if record.nv_index is None:
            del values["nv_index"], wanted["held_by"]
        update_ = _UPDATE if record.nv_index is None else _UPDATE_INDEXED
        changed = self._connection.execute(update_, {**wanted, **values})
        if changed.rowcount == 0:
            table = _records if record.nv_index is None else _indexed
            self._connection.execute(insert(table), values)
