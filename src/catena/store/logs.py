"""Content-addressed bytes: boot logs, IMA logs, evidence, explained events."""

from __future__ import annotations

import hashlib

from sqlalchemy import Connection, Insert, bindparam, insert, select
from sqlalchemy.dialects import postgresql

from catena.ids import Sha256Hex
from catena.store import schema

_logs = schema.logs
_GET = select(_logs.c.content).where(_logs.c.sha256 == bindparam("sha256"))
_HAS = select(_logs.c.sha256).where(_logs.c.sha256 == bindparam("sha256"))
_MISSING = select(_logs.c.sha256).where(_logs.c.sha256.in_(bindparam("wanted", expanding=True)))
# SQLite has one writer at a time; elsewhere two may find the same content missing at once.
_INSERT: dict[str, Insert] = {"postgresql": postgresql.insert(_logs).on_conflict_do_nothing()}
_PLAIN_INSERT = insert(_logs)


class Logs:
    """Content under its own SHA-256, stored once; computed here, never believed."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put(self, kind: str, content: bytes) -> Sha256Hex:
        """Store ``content`` unless it is there already; its SHA-256."""
        sha256 = Sha256Hex(hashlib.sha256(content).hexdigest())
        if self._connection.execute(_HAS, {"sha256": sha256}).first() is None:
            statement = _INSERT.get(self._connection.dialect.name, _PLAIN_INSERT)
            self._connection.execute(
                statement, {"sha256": sha256, "kind": kind, "content": content}
            )
        return sha256

    def get(self, sha256: Sha256Hex) -> bytes | None:
        """The content with this digest."""
        return self._connection.execute(_GET, {"sha256": sha256}).scalar()

    def missing(self, wanted: tuple[Sha256Hex, ...]) -> tuple[Sha256Hex, ...]:
        """Those of ``wanted`` that are not stored, in order."""
        rows = self._connection.execute(_MISSING, {"wanted": wanted}).scalars()
        known = set(rows)
        return tuple(sha256 for sha256 in wanted if sha256 not in known)
