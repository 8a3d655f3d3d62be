"""Schema steps: a database of an earlier version becomes one of this version.

Version 2 added the table ``policies`` and the column ``nodes.trusted_log``, version 3 the table
``container_records``, version 4 the table ``container_index_records``, version 5 the tables
``log_batches`` and ``log_files``, version 6 the tables ``people`` and ``keys_in_force`` and the column
``log_state.successor``. All steps and the version number are one transaction, so a database is
never between two versions.
"""

from __future__ import annotations

from sqlalchemy import Connection, select, text, update

from catena.store import schema
from catena.store.errors import SchemaMismatch

_ADD_TRUSTED_LOG = text("ALTER TABLE nodes ADD COLUMN trusted_log TEXT")
_ADD_SUCCESSOR = text("ALTER TABLE log_state ADD COLUMN successor TEXT")
_version = schema.schema_version


def migrate(connection: Connection) -> None:
    """Bring the schema up to ``schema.SCHEMA_VERSION``, in the caller's writing transaction.

    The version's row is locked first: of two replicas that start together one takes the step
    and the other finds it taken. Raises ``SchemaMismatch`` for a version without a way here.
    """
    found = connection.execute(select(_version.c.version).with_for_update()).scalar()
    if found == schema.SCHEMA_VERSION:
        return
    if found not in _STEPS:
        raise SchemaMismatch(
            "the database has another schema version",
            expected=str(schema.SCHEMA_VERSION),
            got=str(found),
        )
    for version in range(found, schema.SCHEMA_VERSION):
        _STEPS[version](connection)
    connection.execute(update(_version).values(version=schema.SCHEMA_VERSION))


def _to_2(connection: Connection) -> None:
    schema.policies.create(connection)
    connection.execute(_ADD_TRUSTED_LOG)


def _to_3(connection: Connection) -> None:
    schema.container_records.create(connection)


def _to_4(connection: Connection) -> None:
    schema.container_index_records.create(connection)


def _to_5(connection: Connection) -> None:
    schema.log_batches.create(connection)
    schema.log_files.create(connection)


def _to_6(connection: Connection) -> None:
    schema.people.create(connection)
    schema.keys_in_force.create(connection)
    connection.execute(_ADD_SUCCESSOR)


_STEPS = {1: _to_2, 2: _to_3, 3: _to_4, 4: _to_5, 5: _to_6}
"""By the version that each begins from."""
