"""Endorsement documents, in both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from store_samples import NOON

from catena.ids import Sha256Hex
from catena.store.endorsements import StoredEndorsement
from catena.store.errors import NoSuchRow

ROOT = StoredEndorsement(
    sha256=Sha256Hex("ab" * 32),
    type="root",
    name="acme-root",
    document=b"envelope",
    accepted_at=NOON,
    actor="alice",
)


def test_documents_are_listed_in_the_order_of_acceptance(database):
    later = replace(ROOT, sha256="cd" * 32, accepted_at=NOON + timedelta(hours=1))
    with database.transaction() as tx:
        tx.endorsements.put(later)
        tx.endorsements.put(ROOT)
    with database.snapshot() as tx:
        assert tx.endorsements.list() == (ROOT, later)


def test_a_withdrawn_document_is_not_listed_until_it_is_put_again(database):
    with database.transaction() as tx:
        tx.endorsements.put(ROOT)
        tx.endorsements.withdraw(ROOT.sha256)
        assert tx.endorsements.list() == ()
        again = replace(ROOT, actor="bob", document=b"another envelope")
        tx.endorsements.put(again)
        assert tx.endorsements.list() == (again,)


def test_which_documents_are_active_is_told_without_them(database):
    with database.transaction() as tx:
        tx.endorsements.put(ROOT)
        assert tx.endorsements.marks() == {(ROOT.sha256, NOON)}
        tx.endorsements.withdraw(ROOT.sha256)
        assert tx.endorsements.marks() == frozenset()


def test_what_is_not_there_cannot_be_withdrawn(database):
    with pytest.raises(NoSuchRow), database.transaction() as tx:
        tx.endorsements.withdraw(Sha256Hex("00" * 32))


def test_a_nodes_tpm_is_described_anew(database, node):
    with database.transaction() as tx:
        tx.nodes.describe_tpm(node.id, "vendor:CN=Acme", b"{}")
        found = tx.nodes.get(node.id)
    assert (found.ek_root, found.tpm) == ("vendor:CN=Acme", b"{}")
