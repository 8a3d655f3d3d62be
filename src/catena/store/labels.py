"""The labels that the server gave to nodes."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, delete, insert, select

from catena.ids import NodeId
from catena.store import schema

_labels = schema.node_labels
_OF = select(_labels.c.key, _labels.c.value).where(_labels.c.node_id == bindparam("node"))


class NodeLabels:
    """The labels of one transaction, each as ``key=value``."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def of(self, node_id: NodeId) -> tuple[str, ...]:
        """The node's labels, sorted."""
        rows = self._connection.execute(_OF, {"node": node_id})
        return tuple(sorted(f"{key}={value}" for key, value in rows))

    def replace(self, node_id: NodeId, labels: tuple[str, ...]) -> None:
        """Give the node these labels and no others; a key is there once."""
        self._connection.execute(delete(_labels).where(_labels.c.node_id == node_id))
        if labels:
            pairs = (label.split("=", 1) for label in labels)
            rows = [{"node_id": node_id, "key": key, "value": value} for key, value in pairs]
            self._connection.execute(insert(_labels), rows)
