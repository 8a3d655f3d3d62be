"""A database of every earlier schema becomes one of this schema, on SQLite and on PostgreSQL.

``schemas/`` holds what each version was made with, so the steps are not measured by themselves.
"""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event, inspect, text
from sqlalchemy.pool import NullPool

from catena.store import migration, schema
from catena.store.database import Database
from catena.store.errors import SchemaMismatch

SCHEMAS = Path(__file__).with_name("schemas")
NEWEST = schema.SCHEMA_VERSION
RECORDED = sorted(int(path.name.split("-")[0]) for path in SCHEMAS.glob("*-sqlite.sql"))
"""Versions that were released; ``record_schema`` adds one."""
BEFORE_ALEMBIC = 5
"""The last version that was made without alembic's table."""

ROWS = {
    1: (
        "INSERT INTO logs (sha256, kind, content) VALUES ('{n}aa', 'tcg2', {blob})",
        (
            "INSERT INTO nodes (id, name, role, state, state_reason, ek_public, ak_public, ek_root,"
            " name_hint, mode, enrolled_at, readmitted, reset_count, restart_count, clock, boot_log)"
            " VALUES ('{n}', 'n{n}', 'node', 'trusted', '', {blob}, {blob}, 'vendor', 'hint', 'approve',"
            " 1772366400123456, {false}, 3, 2, 1, '{n}aa')"
        ),
        "INSERT INTO tokens (hash, role, label, created_at) VALUES ('{n}', 'admin', 'l', 5)",
        (
            "INSERT INTO secrets (name, version, roles, nonce, ciphertext, created_at)"
            " VALUES ('s{n}', 1, '[\"node\"]', {blob}, {blob}, 5)"
        ),
        (
            "INSERT INTO appraisals (node_id, at, verdict, reasons, facts, events_sha256,"
            " evidence_sha256, logs, entry_index)"
            " VALUES ('{n}', 5, 'trusted', {blob}, {blob}, '{n}aa', 'ee', '[]', 4)"
        ),
        (
            "INSERT INTO certificates (serial, node_id, issued_at, not_after)"
            " VALUES ('{n}', '{n}', 5, 6)"
        ),
    ),
    2: (
        (
            "INSERT INTO policies (version, name, sha256, document, applied_at, actor)"
            " VALUES ({n}, 'strict', '{n}bb', {blob}, 5, 'alice')"
        ),
        "UPDATE nodes SET trusted_log = 'aa' WHERE id = '{n}'",
    ),
    3: (
        (
            "INSERT INTO container_records (node_id, records, logged_records, logged_size,"
            " logged_sha256, document) VALUES ('{n}', 1, 1, 9, 'abab', {blob})"
        ),
    ),
    4: (
        (
            "INSERT INTO container_index_records (node_id, nv_index, records, logged_records,"
            " logged_size, logged_sha256, document) VALUES ('{n}', 25165824, 1, 1, 9, 'abab', {blob})"
        ),
    ),
    5: (
        (
            "INSERT INTO log_batches (origin, start, count, bundle, checkpoint)"
            " VALUES ('o', {n}, 1, {blob}, 'c')"
        ),
        "INSERT INTO log_files (origin, path, content) VALUES ('o', 'p{n}', {blob})",
    ),
}
"""What a server of a version writes, by the version that made it possible."""


@dataclass
class Old:
    """A database as an earlier catena made it, with rows; SQL is sent to it as it was then."""

    url: str

    @property
    def dialect(self) -> str:
        return self.url.split(":")[0].split("+")[0]

    def make(self, version: int) -> None:
        statements = (SCHEMAS / f"{version}-{self.dialect}.sql").read_text()
        with self.connection() as connection:
            for statement in re.sub("^--.*", "", statements).split(";\n"):
                if statement.strip():
                    connection.execute(text(statement))
            connection.execute(text(f"INSERT INTO schema_version VALUES (1, {version})"))
            if version > BEFORE_ALEMBIC:
                connection.execute(text(f"INSERT INTO alembic_version VALUES ('{version:04d}')"))

    def connection(self):
        return create_engine(self.url, poolclass=NullPool).begin()

    def fill(self, version: int, number: int) -> None:
        """What a server of ``version`` writes about one node."""
        postgresql = self.dialect == "postgresql"
        blob = "'\\xdeadbeef'" if postgresql else "x'deadbeef'"
        values = {"n": number, "blob": blob, "false": "false" if postgresql else "0"}
        with self.connection() as connection:
            for since, statements in ROWS.items():
                for statement in statements if since <= version else ():
                    connection.exec_driver_sql(statement.format(**values))

    def rows(self, tables) -> dict[str, list[tuple[object, ...]]]:
        """The content of some tables, in the columns that they had."""
        with self.connection() as connection:
            return {
                name: sorted(
                    map(repr, connection.execute(text(f"SELECT {','.join(columns)} FROM {name}")))
                )
                for name, columns in tables.items()
            }

    def tables(self) -> dict[str, list[str]]:
        with self.connection() as connection:
            found = inspect(connection)
            return {
                name: [column["name"] for column in found.get_columns(name)]
                for name in found.get_table_names()
                if "version" not in name
            }

    def version(self) -> tuple[int, list[str]]:
        with self.connection() as connection:
            number = connection.execute(text("SELECT version FROM schema_version")).scalar_one()
            return number, migration._names(connection)

    def differences(self) -> list[object]:
        """What alembic would change to get what ``create`` makes."""
        with self.connection() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            return compare_metadata(context, schema.metadata)


@pytest.fixture(params=["sqlite", "postgresql"])
def old(request, tmp_path) -> Old:
    if request.param == "sqlite":
        return Old(f"sqlite:///{tmp_path / 'old.db'}")
    return Old(request.getfixturevalue("postgresql").new_database())


@pytest.mark.parametrize("version", RECORDED)
def test_every_earlier_schema_becomes_what_create_makes_and_keeps_its_rows(old, version):
    old.make(version)
    old.fill(version, 1)
    tables = old.tables()
    before = old.rows(tables)
    assert any(before.values())
    opened = Database.open(old.url)
    with opened.snapshot() as tx:
        assert [node.name for node in tx.nodes.list()] == ["n1"]
        assert (tx.policies.newest() is not None) == (version >= 2)
    opened.close()
    assert old.rows(tables) == before
    assert old.differences() == []
    assert old.version() == (NEWEST, [f"{NEWEST:04d}"])


@pytest.mark.parametrize("version", RECORDED)
def test_a_server_of_an_earlier_version_writes_on_after_the_steps(old, version):
    old.make(version)
    old.fill(version, 1)
    Database.open(old.url).close()
    old.fill(version, 2)
    opened = Database.open(old.url)
    with opened.snapshot() as tx:
        assert len(tx.nodes.list()) == 2
    opened.close()


def test_what_create_makes_is_of_this_version_and_equal_to_the_tables(old):
    Database.create(old.url).close()
    assert old.differences() == []
    assert old.version() == (NEWEST, [f"{NEWEST:04d}"])
    assert Database.pending(old.url) == ()


def test_a_database_from_before_alembic_is_adopted_without_a_step(old):
    old.make(BEFORE_ALEMBIC)
    with old.connection() as connection:
        assert not migration.is_current(connection)
        assert migration._names(connection) is None
        migration.migrate(connection)
    assert old.version() == (NEWEST, [f"{NEWEST:04d}"])
    Database.open(old.url).close()


def test_replicas_that_start_together_take_the_steps_once(old):
    old.make(1)
    old.fill(1, 1)
    with ThreadPoolExecutor(4) as threads:
        for opened in threads.map(lambda _: Database.open(old.url), range(4)):
            opened.close()
    assert old.differences() == []
    assert old.version() == (NEWEST, [f"{NEWEST:04d}"])


def test_a_step_that_fails_leaves_the_database_as_it_was(old, monkeypatch):
    old.make(1)
    before = old.tables()

    def fail(*_):
        raise RuntimeError("power lost")

    monkeypatch.setattr(migration, "update", fail)
    with pytest.raises(RuntimeError, match="power lost"):
        Database.open(old.url)
    assert old.tables() == before
    assert old.version() == (1, None)


@pytest.mark.parametrize("version", [0, NEWEST + 1, 99])
def test_a_version_without_a_way_here_is_refused_and_left_alone(old, version):
    old.make(1)
    with old.connection() as connection:
        connection.execute(text(f"UPDATE schema_version SET version = {version}"))
    before = old.tables()
    for attempt in (Database.open, Database.pending):
        with pytest.raises(SchemaMismatch) as caught:
            attempt(old.url)
        assert (caught.value.expected, caught.value.got) == (str(NEWEST), str(version))
    assert old.tables() == before
    assert old.version() == (version, None)


def test_a_database_that_names_two_versions_is_refused(old):
    Database.create(old.url).close()
    with old.connection() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    with pytest.raises(SchemaMismatch, match="two schema versions"):
        Database.open(old.url)


def test_what_would_be_done_is_told_without_doing_it(old):
    old.make(3)
    before = old.tables()
    steps = Database.pending(old.url)
    assert [step.version for step in steps] == list(range(4, NEWEST + 1))
    assert steps[0].meaning.startswith("Container records that NV indices hold")
    assert old.tables() == before
    assert old.version() == (3, None)


# Rules for steps (ADR 22) --------------------------------------------------------------------


def test_the_steps_lead_from_the_first_version_to_this_one_without_a_gap():
    script = ScriptDirectory(str(migration._FOLDER), version_locations=[str(migration._FOLDER)])
    revisions = list(script.walk_revisions())[::-1]
    assert [one.revision for one in revisions] == [
        f"{number:04d}" for number in range(1, NEWEST + 1)
    ]
    for one, earlier in zip(revisions[1:], revisions, strict=False):
        assert one.down_revision == earlier.revision
        assert Path(one.path).name.startswith(f"v{one.revision}_")
        assert one.doc.endswith((".", ";")), "the first line is shown by `catena server migrate`"
        assert "catena" not in re.findall(
            r"^(?:from|import) (\w+)", Path(one.path).read_text(), re.MULTILINE
        )


ADDS = re.compile(
    r"CREATE (?:UNIQUE )?(?:TABLE|INDEX) |ALTER TABLE \w+ ADD COLUMN |UPDATE alembic_version|INSERT INTO alembic"
)


def test_steps_only_add_so_that_servers_of_the_version_before_run_on(old):
    old.make(1)
    sent = []

    def note(_connection, _cursor, statement, *_):
        sent.append(statement.strip())

    with old.connection() as connection:
        event.listen(connection, "before_cursor_execute", note)
        migration._adopt(connection, 1)
        sent.clear()
        migration._upgrade(connection)
    changes = [one for one in sent if not re.match("(?i)SELECT|PRAGMA|SHOW", one)]
    assert len(changes) > NEWEST
    for change in changes:
        assert ADDS.match(change), change
        assert "ADD COLUMN" not in change or "NOT NULL" not in change or "DEFAULT" in change, change


def test_alembic_is_not_imported_where_no_step_is_to_be_taken(tmp_path):
    program = (
        "import sys; from catena.store.database import Database;"
        "Database.create(sys.argv[1]).close(); Database.open(sys.argv[1]).close();"
        "sys.exit('alembic' in sys.modules)"
    )
    url = f"sqlite:///{tmp_path / 'catena.db'}"
    subprocess.run([sys.executable, "-c", program, url], check=True, timeout=60)
