"""The keys that a server last started with, so that the next start notices a change."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select

from catena.store import schema

_keys = schema.keys_in_force

KeyInForce = tuple[str, str]
"""What a key is for, and its hex SHA-256."""


class KeysInForce:
    """The keys of one transaction."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def all(self) -> frozenset[KeyInForce]:
        """What is remembered."""
        rows = self._connection.execute(select(_keys.c.key, _keys.c.sha256))
        return frozenset((key, sha256) for key, sha256 in rows)

    def change(self, added: frozenset[KeyInForce], removed: frozenset[KeyInForce]) -> None:
        """Remember another set. Raises ``Conflict`` if another replica did so meanwhile."""
        for key, sha256 in sorted(removed):
            self._connection.execute(
                delete(_keys).where(_keys.c.key == key, _keys.c.sha256 == sha256)
            )
        if added:
            rows = [{"key": key, "sha256": sha256} for key, sha256 in sorted(added)]
            self._connection.execute(insert(_keys), rows)
