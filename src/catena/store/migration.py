"""The schema's version, and the steps that bring an earlier database up to this one.

The steps are alembic revisions (``revisions/``), taken while servers of the version before may still
run (ADR 22). Two tables hold the version: ``schema_version`` is the row that replicas lock, so that
of several that start together one takes the steps, and what every release of catena looks at before
anything else; ``alembic_version`` is alembic's own, and is added to databases that were made before
catena used alembic. All steps and both tables change in one transaction, so a database is never
between two versions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, insert, inspect, select, text, update

from catena.store import schema
from catena.store.errors import SchemaMismatch

if TYPE_CHECKING:  # alembic takes 0.1 s to import, and a database is rarely an earlier one
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

_FOLDER = Path(__file__).with_name("revisions")
_LOCK_TIMEOUT = text("SET LOCAL lock_timeout = '10s'")
"""A step that waits for a running transaction makes all others wait behind it: better to fail."""
_version = schema.schema_version
_revision = schema.alembic_version


@dataclass(frozen=True, slots=True)
class Step:
    """One step: the version that it leads to, and what it does."""

    version: int
    meaning: str


def stamp(connection: Connection) -> None:
    """Write this version into a database that was just made."""
    connection.execute(insert(_version), {"id": 1, "version": schema.SCHEMA_VERSION})
    connection.execute(insert(_revision), {"version_num": _name(schema.SCHEMA_VERSION)})


def is_current(connection: Connection) -> bool:
    """Whether there is nothing to do. Raises ``SchemaMismatch`` if no step leads to this version."""
    # Nothing is locked here, and another replica may be between the two reads: no verdict on them.
    return _found(connection) == schema.SCHEMA_VERSION and _names(connection) == [
        _name(schema.SCHEMA_VERSION)
    ]


def pending(connection: Connection) -> tuple[Step, ...]:
    """The steps that ``migrate`` would take. Raises ``SchemaMismatch`` if none leads here."""
    return _steps(_found(connection))


def migrate(connection: Connection) -> tuple[Step, ...]:
    """Bring the schema up to ``schema.SCHEMA_VERSION``, in the caller's writing transaction.

    The steps that were taken; none if another replica was first.

    Raises ``SchemaMismatch`` for a version from which no step leads here.
    """
    found = _found(connection, lock=True)
    _adopt(connection, found)
    if found == schema.SCHEMA_VERSION:
        return ()
    if connection.dialect.name == "postgresql":
        connection.execute(_LOCK_TIMEOUT)
    _upgrade(connection)
    connection.execute(update(_version).values(version=schema.SCHEMA_VERSION))
    return _steps(found)


def _found(connection: Connection, *, lock: bool = False) -> int:
    """The version found, from which steps lead here."""
    if not inspect(connection).has_table(_version.name):
        raise SchemaMismatch("this is not a catena database")
    query = select(_version.c.version)
    found: int | None = connection.execute(query.with_for_update() if lock else query).scalar()
    if found is None or not 1 <= found <= schema.SCHEMA_VERSION:
        raise SchemaMismatch(
            "the database has another schema version",
            expected=str(schema.SCHEMA_VERSION),
            got=str(found),
        )
    return found


def _adopt(connection: Connection, found: int) -> None:
    """Give alembic its table. Raises ``SchemaMismatch`` if there is one with another version."""
    names = _names(connection)
    if names is None:
        _revision.create(connection)
        connection.execute(insert(_revision), {"version_num": _name(found)})
    elif names != [_name(found)]:
        raise SchemaMismatch(
            "the database names two schema versions", expected=_name(found), got=",".join(names)
        )


def _names(connection: Connection) -> list[str] | None:
    """What alembic's table says; None if there is none."""
    if not inspect(connection).has_table(_revision.name):
        return None
    return list(connection.execute(select(_revision.c.version_num)).scalars())


def _steps(found: int) -> tuple[Step, ...]:
    """The steps that lead here from a version."""
    if found == schema.SCHEMA_VERSION:
        return ()
    script = _script()
    return tuple(
        Step(version, script.get_revision(_name(version)).doc)
        for version in range(found + 1, schema.SCHEMA_VERSION + 1)
    )


def _upgrade(connection: Connection) -> None:
    from alembic.operations import Operations  # noqa: PLC0415 - see TYPE_CHECKING
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415

    script = _script()

    def steps(revision: str, _: MigrationContext) -> list[object]:
        return list(script._upgrade_revs("head", revision))  # noqa: SLF001 - as alembic's own command does

    context = MigrationContext.configure(connection, opts={"fn": steps, "script": script})
    with Operations.context(context):
        context.run_migrations()


def _script() -> ScriptDirectory:
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - see TYPE_CHECKING

    return ScriptDirectory(str(_FOLDER), version_locations=[str(_FOLDER)])


def _name(version: int) -> str:
    """A version as alembic's revision."""
    return f"{version:04d}"
