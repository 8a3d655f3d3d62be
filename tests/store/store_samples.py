"""Rows for the tests of the store."""

from __future__ import annotations

from datetime import UTC, datetime

from catena.ids import NodeId
from catena.store.nodes import Node

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def make_node(number: int, **changes) -> Node:
    values = {
        "id": NodeId(f"{number:02x}" + f"{number:062x}"),
        "state": "pending",
        "ek_public": b"ek",
        "ak_public": b"ak",
        "ek_root": "vendor",
        "name_hint": "hint",
        "mode": "approve",
        "enrolled_at": NOON,
    }
    return Node(**{**values, **changes})
