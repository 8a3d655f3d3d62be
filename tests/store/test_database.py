"""The database itself: created once, opened with its own schema, whole after failures."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import threading
from datetime import datetime

import pytest
from sqlalchemy import create_mock_engine
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import StatementError
from sqlalchemy.schema import CreateTable
from store_samples import NOON, make_node

from catena.errors import UsageError
from catena.store import logs, schema
from catena.store.credentials import Token
from catena.store.database import Database
from catena.store.errors import (
    Conflict,
    DatabaseExists,
    DatabaseGone,
    DatabaseMissing,
    DriverMissing,
    SchemaMismatch,
)
from catena.store.nodes import Clock


def test_what_was_committed_is_there_after_reopening(database, url, node):
    database.close()
    again = Database.open(url)
    with again.snapshot() as tx:
        assert tx.nodes.get(node.id) == node
    again.close()


def test_a_database_is_created_once_and_only_for_its_owner(database, url, tmp_path):
    with pytest.raises(DatabaseExists):
        Database.create(url)
    assert stat.S_IMODE((tmp_path / "catena.db").stat().st_mode) == 0o600


def test_the_secrets_beside_the_database_file_are_its_owner_s_too(database, node, tmp_path):
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


def test_a_missing_database_is_not_made_by_opening_it(url, tmp_path):
    with pytest.raises(DatabaseMissing):
        Database.open(url)
    assert list(tmp_path.iterdir()) == []


def test_a_database_of_another_program_is_refused(url, tmp_path):
    other = sqlite3.connect(tmp_path / "catena.db")
    other.execute("CREATE TABLE letters (x)")
    other.close()
    with pytest.raises(SchemaMismatch):
        Database.open(url)


def test_a_file_that_is_no_database_is_refused(url, tmp_path):
    (tmp_path / "catena.db").write_bytes(b"hello" * 1000)
    with pytest.raises(DatabaseGone):
        Database.open(url)


def test_another_schema_version_is_refused(database, url, tmp_path):
    database.close()
    other = sqlite3.connect(tmp_path / "catena.db")
    other.execute("UPDATE schema_version SET version = 99")
    other.commit()
    other.close()
    with pytest.raises(SchemaMismatch) as caught:
        Database.open(url)
    assert (caught.value.expected, caught.value.got) == (str(schema.SCHEMA_VERSION), "99")


def test_a_folder_that_is_not_there_is_a_typed_error(tmp_path):
    with pytest.raises(DatabaseGone, match="cannot be made"):
        Database.create(f"sqlite:///{tmp_path / 'nowhere' / 'catena.db'}")


def test_a_missing_driver_is_a_typed_error():
    with pytest.raises(DriverMissing):
        Database.open("mysql+mysqldb://host/name")


@pytest.mark.parametrize("url", ["", "nonsense", "sqlite", "oracle9://x", "://"])
def test_what_is_no_database_url_is_a_usage_error(url):
    with pytest.raises(UsageError):
        Database.open(url)


def store_twice(tx, node):
    tx.nodes.insert(node)
    tx.nodes.insert(node)


def store_much(tx):
    tx.nodes.insert(make_node(1))
    tx.logs.put("tcg2", bytes(600_000))


def test_a_transaction_that_fails_leaves_nothing(database):
    with pytest.raises(Conflict), database.transaction() as tx:
        store_twice(tx, make_node(1))
    with database.snapshot() as tx:
        assert tx.nodes.list() == ()


def test_sqlite_is_set_to_survive_power_loss(database):
    with database._engine.connect() as connection:
        for pragma, value in (
            ("journal_mode", "wal"),
            ("synchronous", 2),
            ("foreign_keys", 1),
            ("busy_timeout", 5000),
        ):
            assert connection.exec_driver_sql(f"PRAGMA {pragma}").scalar() == value


def test_a_snapshot_does_not_wait_for_a_writer_and_sees_nothing_of_it(database, node):
    with database.transaction() as writer:
        writer.nodes.set_state(node.id, "trusted", "")
        with database.snapshot() as reader:
            assert reader.nodes.get(node.id).state == "pending"


def test_a_snapshot_cannot_write(database, node):
    with pytest.raises(DatabaseGone), database.snapshot() as reader:
        reader.nodes.set_state(node.id, "trusted", "")
    with database.transaction() as tx:  # and the connection is not spoilt for writers
        tx.nodes.set_state(node.id, "trusted", "")


def test_two_writers_that_compare_and_swap_never_both_win(database, node):
    wins, barrier = [], threading.Barrier(8)

    def race(number):
        barrier.wait()
        with database.transaction() as tx:
            wins.append(tx.nodes.advance_clock(node, Clock(1, 0, number)))

    threads = [threading.Thread(target=race, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(wins) == [False] * 7 + [True]


def test_a_locked_database_is_a_typed_error(database, node, url, tmp_path):
    hurried = Database.open(url, busy_timeout_ms=1)
    other = sqlite3.connect(tmp_path / "catena.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseGone, match="failed"), hurried.transaction():
        pass
    other.execute("ROLLBACK")
    other.close()
    with hurried.transaction() as tx:
        assert tx.nodes.list() == (node,)
    hurried.close()


def test_a_full_disk_is_a_typed_error_and_the_database_stays_whole(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        database = Database.create(f"sqlite:///{disk / 'catena.db'}")
        with pytest.raises(DatabaseGone), database.transaction() as tx:
            store_much(tx)
        with database.transaction() as tx:
            assert tx.nodes.list() == ()
            tx.nodes.insert(make_node(1))
        database.close()
    finally:
        subprocess.run(["umount", disk], check=True)


WRITER = """
import sys
from datetime import UTC, datetime
from catena.store.credentials import Token
from catena.store.database import Database
database = Database.open(sys.argv[1])
for number in range(10_000):
    with database.transaction() as tx:
        tx.tokens.insert(Token(hash=str(number), role="r", label="l", created_at=datetime.now(UTC)))
    print(number, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_it_committed(database, url):
    writer = subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE)
    lines = [writer.stdout.readline() for _ in range(20)]
    writer.kill()
    lines += [line for line in writer.stdout if line.endswith(b"\n")]
    writer.stdout.close()
    writer.wait()
    with database.snapshot() as tx:
        hashes = {token.hash for token in tx.tokens.list()}
    assert {str(number) for number in range(len(lines))} <= hashes


def test_errors_do_not_quote_rows(database):
    token = Token(hash="TOKEN-HASH", role="r", label="PRIVATE-LABEL", created_at=NOON)
    with database.transaction() as tx:
        tx.tokens.insert(token)
    with pytest.raises(Conflict) as caught, database.transaction() as tx:
        tx.tokens.insert(token)
    error: BaseException | None = caught.value
    while error is not None:
        assert "TOKEN-HASH" not in str(error)
        assert "PRIVATE-LABEL" not in str(error)
        error = error.__cause__


def test_a_naive_time_is_refused(database):
    with pytest.raises(StatementError), database.transaction() as tx:
        tx.tokens.insert(Token(hash="h", role="r", label="l", created_at=datetime(2026, 1, 1)))  # noqa: DTZ001 - naive on purpose


def test_the_schema_is_one_that_postgresql_has_too():
    statements = []
    engine = create_mock_engine(
        "postgresql://", lambda statement, *_, **__: statements.append(statement)
    )
    schema.metadata.create_all(engine, checkfirst=False)
    tables = "\n".join(
        str(one.compile(dialect=postgresql.dialect()))
        for one in statements
        if isinstance(one, CreateTable)
    )
    assert "id BIGSERIAL NOT NULL" in tables
    assert tables.count("CREATE TABLE") == len(schema.metadata.tables)


def test_content_that_two_replicas_store_at_once_is_no_conflict_on_postgresql():
    statement = logs._INSERT["postgresql"].compile(dialect=postgresql.dialect())
    assert str(statement).endswith("ON CONFLICT DO NOTHING")
