"""Logs, appraisals, secrets, references, tokens, certificates, the log's remembered state."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import func, select
from store_samples import NOON

from catena.ids import Sha256Hex
from catena.store import schema
from catena.store.appraisals import Appraisal
from catena.store.containers import ContainerRecord
from catena.store.credentials import Certificate, Token
from catena.store.errors import Conflict, NoSuchRow
from catena.store.logstate import LogState
from catena.store.secrets import Release, Secret

DIGEST = Sha256Hex("d" * 64)


def secret(version=1, name="db", **changes):
    values = {
        "name": name,
        "version": version,
        "roles": ("worker", "rôle"),
        "nonce": b"n" * 12,
        "ciphertext": b"c" * version,
        "created_at": NOON,
    }
    return Secret(**{**values, **changes})


def appraisal(node, number=0, events=b"[]"):
    return Appraisal(
        node_id=node.id,
        at=NOON + timedelta(seconds=number),
        verdict="trusted",
        reasons=b"[]",
        facts=b"{}",
        events=events,
        evidence_sha256=DIGEST,
        logs=(DIGEST,),
        entry_index=number,
    )


def test_content_is_stored_once_under_its_own_digest(database):
    with database.transaction() as tx:
        digest = tx.logs.put("tcg2", b"log")
        assert digest == hashlib.sha256(b"log").hexdigest()
        assert tx.logs.put("tcg2", b"log") == digest
        assert tx.logs.get(digest) == b"log"
        assert tx.logs.get(DIGEST) is None
        assert tx.logs.missing((DIGEST, digest)) == (DIGEST,)
        assert tx.logs.missing(()) == ()


def test_the_latest_appraisal_comes_first(database, node):
    with database.transaction() as tx:
        ids = [tx.appraisals.insert(appraisal(node, number)) for number in range(3)]
        assert ids == sorted(set(ids))
        latest = tx.appraisals.latest(node.id)
        assert (latest.id, latest.entry_index, latest.logs) == (ids[-1], 2, (DIGEST,))
        assert [one.id for one in tx.appraisals.recent(node.id, limit=2)] == ids[:0:-1]


def test_events_that_repeat_are_kept_once(database, node):
    with database.transaction() as tx:
        for number in range(5):
            tx.appraisals.insert(appraisal(node, number, events=b"[1]"))
        assert tx.appraisals.latest(node.id).events == b"[1]"
    with database._engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(schema.logs)).scalar() == 1


def test_old_appraisals_are_pruned_and_the_newest_stay(database, node):
    with database.transaction() as tx:
        for number in range(5):
            tx.appraisals.insert(appraisal(node, number))
        assert tx.appraisals.prune(node.id, keep=9) == 0
        assert tx.appraisals.prune(node.id, keep=2) == 3
        kept = tx.appraisals.recent(node.id, limit=9)
        assert [one.entry_index for one in kept] == [4, 3]


def test_a_node_without_appraisals_has_no_latest(database, node):
    with database.snapshot() as tx:
        assert tx.appraisals.latest(node.id) is None


def test_a_node_has_one_container_record_and_the_last_one_counts(database, node):
    first = ContainerRecord(
        node_id=node.id,
        records=3,
        logged_records=2,
        logged_size=700,
        logged_sha256="ab" * 32,
        document=b"{}",
    )
    second = replace(first, records=1, logged_records=1, logged_size=90, document=b"[]")
    with database.transaction() as tx:
        assert tx.container_records.get(node.id) is None
        tx.container_records.put(first)
        assert tx.container_records.get(node.id) == first
        tx.container_records.put(second)
    with database.snapshot() as tx:
        assert tx.container_records.get(node.id) == second


def test_a_node_has_one_container_record_for_each_nv_index(database, node):
    first, second = (
        ContainerRecord(
            node_id=node.id,
            records=records,
            logged_records=1,
            logged_size=90,
            logged_sha256="ab" * 32,
            document=b"{}",
            nv_index=index,
        )
        for records, index in ((3, 0x01BFFFFF), (4, 0x01800000))
    )
    with database.transaction() as tx:
        assert tx.container_records.indexed(node.id) == ()
        for record in (first, second, replace(first, records=5)):
            tx.container_records.put(record)
    with database.snapshot() as tx:
        assert tx.container_records.indexed(node.id) == (second, replace(first, records=5))
        assert tx.container_records.get(node.id) is None


def test_the_newest_version_of_a_secret_counts(database):
    with database.transaction() as tx:
        assert tx.secrets.next_version("db") == 1
        tx.secrets.put(secret(1))
        tx.secrets.put(secret(2, roles=()))
        tx.secrets.put(secret(1, name="api"))
        assert tx.secrets.latest("db") == secret(2, roles=())
        assert tx.secrets.list() == (secret(1, name="api"), secret(2, roles=()))
        assert tx.secrets.next_version("db") == 3
        assert tx.secrets.latest("other") is None


def test_a_version_cannot_be_overwritten(database):
    with database.transaction() as tx:
        tx.secrets.put(secret(1))
    with pytest.raises(Conflict), database.transaction() as tx:
        tx.secrets.put(secret(1, ciphertext=b"other"))


def test_a_removed_secret_is_wiped_and_its_versions_are_not_used_again(database, tmp_path):
    with database.transaction() as tx:
        tx.secrets.put(secret(1, ciphertext=b"PLAIN-TO-SEE" * 4))
        tx.secrets.put(secret(2))
    with database.transaction() as tx:
        assert tx.secrets.remove("db", at=NOON)
        assert not tx.secrets.remove("db", at=NOON)
        assert tx.secrets.latest("db") is None
        assert tx.secrets.list() == ()
        assert tx.secrets.next_version("db") == 3
    database.close()
    assert b"PLAIN-TO-SEE" not in (tmp_path / "catena.db").read_bytes()


def test_a_secret_does_not_show_its_content():
    assert "ccc" not in repr(secret(3))


def test_releases_are_remembered_for_rotation(database, node):
    first = Release(node_id=node.id, name="db", version=1, at=NOON)
    again = Release(node_id=node.id, name="db", version=1, at=NOON + timedelta(hours=1))
    with database.transaction() as tx:
        tx.secrets.record_release(first)
        tx.secrets.record_release(again)
        assert tx.secrets.held_by(node.id) == (again,)


def test_references_are_kept_by_digest_and_can_be_withdrawn(database):
    with database.transaction() as tx:
        stored = tx.references.put(name="os", kind="release", version="1", document=b"doc", at=NOON)
        assert stored.sha256 == hashlib.sha256(b"doc").hexdigest()
        assert tx.references.get(stored.sha256) == stored
        tx.references.set_active(stored.sha256, active=False)
        assert tx.references.list(active_only=True) == ()
        assert len(tx.references.list()) == 1
        again = tx.references.put(name="os", kind="release", version="1", document=b"doc", at=NOON)
        assert again == stored
        assert tx.references.list(active_only=True) == (stored,)
        with pytest.raises(NoSuchRow):
            tx.references.set_active(DIGEST, active=True)
        assert tx.references.get(DIGEST) is None


def test_tokens_are_known_by_their_hash(database):
    token = Token(hash=DIGEST, role="admin", label="alice", created_at=NOON)
    with database.transaction() as tx:
        tx.tokens.insert(token)
        assert tx.tokens.get(DIGEST) == token
        assert tx.tokens.list() == (token,)
        assert tx.tokens.remove(DIGEST)
        assert not tx.tokens.remove(DIGEST)
        assert tx.tokens.get(DIGEST) is None


def test_valid_certificates_are_those_not_expired(database, node):
    def certificate(serial, minutes):
        return Certificate(
            serial=serial,
            node_id=node.id,
            issued_at=NOON,
            not_after=NOON + timedelta(minutes=minutes),
        )

    with database.transaction() as tx:
        tx.certificates.insert(certificate("01", 1))
        tx.certificates.insert(certificate("02", 10))
        assert tx.certificates.valid(node.id, now=NOON + timedelta(minutes=5)) == (
            certificate("02", 10),
        )
        assert tx.certificates.prune(before=NOON + timedelta(minutes=5)) == 1
    with pytest.raises(Conflict), database.transaction() as tx:
        tx.certificates.insert(certificate("02", 10))


def test_the_remembered_checkpoint_never_goes_back(database):
    def state(size):
        return LogState(origin="log", size=size, checkpoint=f"checkpoint {size}")

    with database.transaction() as tx:
        assert tx.log_states.get("log") is None
        for size in (3, 5, 4):
            tx.log_states.advance(state(size))
        assert tx.log_states.get("log") == state(5)
        assert tx.log_states.get("other") is None
