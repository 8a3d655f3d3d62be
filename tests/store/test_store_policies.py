"""Applied policies: the newest is in force, and who applied it is known."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from store_samples import NOON

from catena.store.database import Database
from catena.store.errors import Conflict, OutdatedPolicy


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
