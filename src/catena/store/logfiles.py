"""An audit log in the database: batches that are committed and not yet published, and files.

Which bytes belong there is decided by ``audit``; here they are rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from catena.store import schema

_batches = schema.log_batches
_files = schema.log_files


@dataclass(frozen=True, slots=True, kw_only=True)
class LogBatch:
    """``count`` entries from index ``start``, encoded, with the checkpoint that ends with them."""

    origin: str
    start: int
    count: int
    bundle: bytes
    checkpoint: str


_STAGED = select(_batches).where(_batches.c.origin == bindparam("log")).order_by(_batches.c.start)
_FORGET = delete(_batches).where(
    _batches.c.origin == bindparam("log"),
    _batches.c.start + _batches.c.count <= bindparam("size"),
)


class LogBatches:
    """The committed batches of one transaction."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def staged(self, origin: str) -> tuple[LogBatch, ...]:
        """All that were not forgotten, in order."""
        rows = self._connection.execute(_STAGED, {"log": origin}).mappings()
        return tuple(LogBatch(**row) for row in rows)

    def insert(self, batch: LogBatch) -> None:
        """Add one. Raises ``Conflict`` if one starts there."""
        values = {name: getattr(batch, name) for name in LogBatch.__dataclass_fields__}
        self._connection.execute(insert(_batches), values)

    def forget(self, origin: str, size: int) -> None:
        """Delete those that end at ``size`` or before."""
        self._connection.execute(_FORGET, {"log": origin, "size": size})


_PUT = {
    "sqlite": sqlite.insert(_files).on_conflict_do_nothing().returning(_files.c.path),
    "postgresql": postgresql.insert(_files).on_conflict_do_nothing().returning(_files.c.path),
}
_THIS_FILE = (_files.c.origin == bindparam("log"), _files.c.path == bindparam("name"))
_GET = select(func.substr(_files.c.content, 1, bindparam("most"))).where(*_THIS_FILE)
_SWAP = (
    update(_files)
    .where(*_THIS_FILE, _files.c.content == bindparam("old"))
    .values(content=bindparam("new"))
)
_PATHS = select(_files.c.path).where(_files.c.origin == bindparam("log")).order_by(_files.c.path)
_REMOVE_BELOW = delete(_files).where(
    _files.c.origin == bindparam("log"),
    _files.c.path >= bindparam("first"),
    _files.c.path < bindparam("behind"),
)


class LogFiles:
    """The files of logs, by path, of one transaction."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, origin: str, path: str, limit: int) -> bytes | None:
        """The first ``limit`` bytes of a file."""
        found = self._connection.execute(
            _GET, {"log": origin, "name": path, "most": limit}
        ).scalar()
        return None if found is None else bytes(found)

    def insert(self, origin: str, path: str, content: bytes) -> bool:
        """Store a file; False if there is one at this path, which then stays."""
        put = _PUT[self._connection.dialect.name]
        row = {"origin": origin, "path": path, "content": content}
        return self._connection.execute(put, row).first() is not None

    def replace(self, origin: str, path: str, old: bytes, new: bytes) -> bool:
        """Put ``new`` in the place of ``old``; False if that is not what is there."""
        values = {"log": origin, "name": path, "old": old, "new": new}
        return self._connection.execute(_SWAP, values).rowcount == 1

    def paths(self, origin: str) -> tuple[str, ...]:
        """Of all files, sorted."""
        return tuple(self._connection.execute(_PATHS, {"log": origin}).scalars())

    def remove_below(self, origin: str, folder: str) -> None:
        """Delete all files below a folder."""
        # "0" is the character behind "/".
        names = {"log": origin, "first": f"{folder}/", "behind": f"{folder}0"}
        self._connection.execute(_REMOVE_BELOW, names)
