"""Applied policies, and the schema step that made room for them."""

from __future__ import annotations

import hashlib
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta

import pytest
from store_samples import NOON

from catena.store import migration, schema
from catena.store.containers import ContainerRecord
from catena.store.database import Database
from catena.store.errors import Conflict, OutdatedPolicy, SchemaMismatch


def put(tx, version, document=b"envelope", **changes):
    values = {"name": "strict", "at": NOON, "actor": "alice", **changes}
    return tx.policies.put(version=version, document=document + bytes([version]), **values)


def test_no_policy_is_in_force_before_the_first(database):
    with database.snapshot() as tx:
        assert tx.policies.newest() is None
        assert tx.policies.list() == ()


def test_a_policy_is_kept_with_its_digest_and_who_applied_it(database):
    with database.transaction() as tx:
        stored = put(tx, 3)
    assert stored.sha256 == hashlib.sha256(b"envelope\x03").hexdigest()
    assert (stored.applied_at, stored.actor) == (NOON, "alice")
    with database.snapshot() as tx:
        assert tx.policies.newest() == stored


def test_the_highest_version_is_in_force_whenever_it_was_applied(database):
    with database.transaction() as tx:
        first = put(tx, 2)
        second = put(tx, 10, at=NOON - timedelta(hours=1))
        assert tx.policies.newest() == second
        assert tx.policies.list() == (second, first)


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_not_newer_is_refused_and_changes_nothing(database, version):
    with database.transaction() as tx:
        stored = put(tx, 2)
    with pytest.raises(OutdatedPolicy) as caught, database.transaction() as tx:
        put(tx, version, document=b"other")
    assert (caught.value.expected, caught.value.got) == ("a version above 2", str(version))
    assert caught.value.code == "policy-outdated"
    assert caught.value.remedy
    with database.snapshot() as tx:
        assert tx.policies.list() == (stored,)


def test_one_document_is_not_kept_under_two_versions(database):
    with database.transaction() as tx:
        stored = put(tx, 1)
    with pytest.raises(Conflict), database.transaction() as tx:
        tx.policies.put(version=2, name="x", document=stored.document, at=NOON, actor="bob")
    with database.snapshot() as tx:
        assert tx.policies.list() == (stored,)


def test_of_two_replicas_that_apply_one_version_one_is_refused(database, url):
    other = Database.open(url)

    def attempt(replica, document):
        try:
            with replica.transaction() as tx:
                return put(tx, 5, document=document)
        except Conflict:
            return None

    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(attempt, (database, other), (b"one", b"two")))
    other.close()
    (winner,) = [one for one in results if one is not None]
    with database.snapshot() as tx:
        assert tx.policies.list() == (winner,)


def shape(path):
    """Tables and indices with their columns; where a column stands does not matter."""
    with closing(sqlite3.connect(path)) as file:
        names = file.execute("SELECT type, name FROM sqlite_master").fetchall()
        return {
            (kind, name, *column[1:])
            for kind, name in names
            for column in file.execute(f"PRAGMA {kind}_info('{name}')")
        }


LATER = ("log_batches", "log_files", "people", "keys_in_force")


def without(file, *names):
    for name in names:
        file.execute(f"DROP TABLE {name}")
    file.execute("ALTER TABLE log_state DROP COLUMN successor")


def version_of(path):
    with closing(sqlite3.connect(path)) as file:
        return file.execute("SELECT version FROM schema_version").fetchone()[0]


@pytest.fixture
def older(database, node, url, tmp_path):
    """A database of version 1 with a node in it, and the shape of one of this version."""
    database.close()
    path = tmp_path / "catena.db"
    fresh = shape(path)
    with closing(sqlite3.connect(path)) as file, file:
        without(file, "container_index_records", "container_records", "policies", *LATER)
        file.execute("ALTER TABLE nodes DROP COLUMN trusted_log")
        file.execute("UPDATE schema_version SET version = 1")
    return path, fresh


def test_a_database_of_version_1_becomes_what_create_makes_and_keeps_its_rows(older, url, node):
    path, fresh = older
    assert shape(path) != fresh
    opened = Database.open(url)
    with opened.transaction() as tx:
        assert tx.nodes.get(node.id) == node
        stored = put(tx, 1)
    opened.close()
    assert (shape(path), version_of(path)) == (fresh, schema.SCHEMA_VERSION)
    again = Database.open(url)
    with again.snapshot() as tx:
        assert tx.policies.newest() == stored
    again.close()


def test_a_database_of_version_2_takes_only_the_later_steps(database, node, url, tmp_path):
    database.close()
    path = tmp_path / "catena.db"
    fresh = shape(path)
    with closing(sqlite3.connect(path)) as file, file:
        without(file, "container_index_records", "container_records", *LATER)
        file.execute("UPDATE schema_version SET version = 2")
    opened = Database.open(url)
    with opened.snapshot() as tx:
        assert tx.nodes.get(node.id) == node
    opened.close()
    assert (shape(path), version_of(path)) == (fresh, schema.SCHEMA_VERSION)


def test_a_database_of_version_3_keeps_its_container_records(database, node, url, tmp_path):
    kept = ContainerRecord(
        node_id=node.id,
        records=1,
        logged_records=1,
        logged_size=9,
        logged_sha256="ab" * 32,
        document=b"{}",
    )
    with database.transaction() as tx:
        tx.container_records.put(kept)
    database.close()
    path = tmp_path / "catena.db"
    fresh = shape(path)
    with closing(sqlite3.connect(path)) as file, file:
        without(file, "container_index_records", *LATER)
        file.execute("UPDATE schema_version SET version = 3")
    opened = Database.open(url)
    with opened.snapshot() as tx:
        assert tx.container_records.get(node.id) == kept
        assert tx.container_records.indexed(node.id) == ()
    opened.close()
    assert (shape(path), version_of(path)) == (fresh, schema.SCHEMA_VERSION)


def test_replicas_that_start_together_take_the_step_once(older, url):
    path, fresh = older
    with ThreadPoolExecutor(4) as threads:
        for opened in threads.map(lambda _: Database.open(url), range(4)):
            opened.close()
    assert (shape(path), version_of(path)) == (fresh, schema.SCHEMA_VERSION)


def test_a_step_that_fails_leaves_version_1_as_it_was(older, url, monkeypatch):
    path, _ = older
    before = shape(path)

    def fail(*_):
        raise RuntimeError("power lost")

    monkeypatch.setattr(migration, "update", fail)
    with pytest.raises(RuntimeError, match="power lost"):
        Database.open(url)
    assert (shape(path), version_of(path)) == (before, 1)


@pytest.mark.parametrize("version", [0, schema.SCHEMA_VERSION + 1, 99])
def test_a_version_without_a_way_here_is_refused_and_left_alone(older, url, version):
    path, _ = older
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("UPDATE schema_version SET version = ?", (version,))
    before = shape(path)
    with pytest.raises(SchemaMismatch) as caught:
        Database.open(url)
    assert (caught.value.expected, caught.value.got) == (str(schema.SCHEMA_VERSION), str(version))
    assert (shape(path), version_of(path)) == (before, version)
