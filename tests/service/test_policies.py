"""A policy counts once it is signed, newer, logged; and never comes back."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from catena.appraise.policy import AlwaysTruePolicy, EmptyPolicy, default_policy_text
from catena.audit.entries import PolicyAccepted
from catena.errors import FormatError, Refusal
from catena.formats.policies import POLICY_TYPE, PolicyDocument
from catena.formats.references import KEYSET_TYPE
from catena.keys.hierarchy import KeyName
from catena.service.policies import PolicyMoved, PolicyRollback, TamperedPolicy
from catena.service.trust import build
from catena.store.errors import OutdatedPolicy
from service.fixtures import listed, signed

STRICT = default_policy_text() + "\n[vendor] a vendor vouches for the TPM\n  tpm_kind == 'vendor'\n"


def document(version=1, text=STRICT, name="strict", previous=None):
    return PolicyDocument(name=name, version=version, text=text, previous=previous)


def envelope(server, signer=KeyName.RELEASE, kind=POLICY_TYPE, **fields):
    return signed(server.keys, kind, document(**fields), signer)


def apply(server, **fields):
    return server.service.policies.apply(envelope(server, **fields), "alice")


def refused(server, error, **fields):
    before, entries = server.service.policies.show(), server.kinds()
    with pytest.raises(error) as caught:
        apply(server, **fields)
    assert (server.service.policies.show(), server.kinds()) == (before, entries)
    assert caught.value.remedy
    return caught.value


def test_a_fresh_server_judges_by_the_shipped_policy(server):
    shown = server.service.policies.show()
    assert (shown.current.name, shown.current.version) == ("default", 0)
    assert shown.current.text == default_policy_text()
    assert (shown.current.applied_at, shown.history) == (None, ())


def test_an_applied_policy_is_logged_and_in_force(server):
    view = apply(server)
    (entry,) = [one for one in server.entries() if isinstance(one, PolicyAccepted)]
    assert (entry.name, entry.version, server.name(entry.actor)) == ("strict", 1, "alice")
    assert entry.policy_sha256 == view.sha256 == server.service.policies.current().policy.digest
    shown = server.service.policies.show()
    assert [one.version for one in (shown.current, *shown.history)] == [1, 0]
    assert [one.applied_by for one in (shown.current, *shown.history)] == ["alice", None]


def test_it_is_still_in_force_after_a_restart(server):
    apply(server)
    server.reopen()
    assert server.service.policies.current().version == 1


def test_verdicts_follow_the_policy_in_force_and_name_it(trusting, machine):
    trusting.admit(machine)
    assert machine.attest(trusting.call).verdict == "trusted"
    view = apply(trusting)
    trusting.clock.pass_(1)
    answer = machine.attest(trusting.call)
    assert [one.code for one in answer.reasons] == ["policy:vendor"]
    verdicts = [one for one in trusting.entries() if one.kind == "verdict"]
    assert verdicts[-1].policy_sha256 == view.sha256
    assert verdicts[-2].policy_sha256 != view.sha256


def test_another_replica_notices_within_seconds(server):
    other = build(server.service.setting)
    assert other.policies.current().version == 0
    apply(server)
    server.clock.pass_(11)
    assert other.policies.current().version == 1


def test_the_policy_is_the_same_object_while_nothing_changed(server):
    apply(server)
    first = server.service.policies.current().policy
    server.clock.pass_(60)
    assert server.service.policies.current().policy is first


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_policy_never_comes_back(server, version):
    apply(server, version=2)
    refused(server, PolicyRollback, version=version, text=default_policy_text())


def test_a_policy_may_name_the_one_that_it_replaces(server):
    present = server.service.policies.current().policy.digest
    refused(server, PolicyMoved, previous="0" * 64)
    assert apply(server, previous=present).version == 1


@pytest.mark.parametrize("signer", [KeyName.CA, KeyName.LOG])
def test_only_the_release_key_makes_a_policy(server, signer):
    refused(server, Refusal, signer=signer)


def test_what_is_no_policy_document_is_refused(server):
    refused(server, FormatError, kind=KEYSET_TYPE)
    with pytest.raises(FormatError):
        server.service.policies.apply(STRICT.encode(), "alice")


@pytest.mark.parametrize(
    ("text", "error"),
    [("// nothing\n", EmptyPolicy), ("[a] b\n  secure_boot || !secure_boot\n", AlwaysTruePolicy)],
)
def test_a_policy_that_says_nothing_is_not_applied(server, text, error):
    refused(server, error, text=text)


def test_nothing_is_applied_if_it_cannot_be_logged(server, monkeypatch):
    def broken(*_):
        raise OSError("no space")

    monkeypatch.setattr(server.service.setting.journal, "record", broken)
    with pytest.raises(OSError, match="no space"):
        apply(server)
    assert server.service.policies.show().current.version == 0


def change_database(server, statement, *values):
    with closing(sqlite3.connect(server.folder / "catena.db")) as database, database:
        assert database.execute(statement, values).rowcount == 1


def test_a_policy_changed_in_the_database_judges_nobody(server):
    apply(server)
    forged = envelope(server, signer=KeyName.CA, text=default_policy_text())
    change_database(server, "update policies set document = ?", forged)
    server.reopen()
    with pytest.raises(TamperedPolicy):
        server.service.policies.current()


def test_a_policy_changed_under_a_running_server_is_noticed_within_seconds(server):
    apply(server)
    assert server.service.policies.current().version == 1
    forged = envelope(server, signer=KeyName.CA, text=default_policy_text())
    change_database(server, "update policies set document = ?", forged)
    server.clock.pass_(11)
    with pytest.raises(TamperedPolicy):
        server.service.policies.current()


@pytest.mark.parametrize("version", [1, 2])
def test_a_policy_that_another_replica_overtook_while_it_was_logged_has_no_effect(
    server, monkeypatch, version
):
    journal = server.service.setting.journal
    record, winner = journal.record, envelope(server, version=version)

    def overtaken(*entries):
        with server.service.setting.database.transaction() as rows:
            rows.policies.put(
                version=version, name="strict", document=winner, at=server.clock(), actor="bob"
            )
        return record(*entries)

    monkeypatch.setattr(journal, "record", overtaken)
    with pytest.raises(OutdatedPolicy):
        apply(server, text=STRICT + "// another\n")
    shown = server.service.policies.show()
    assert (shown.current.version, shown.current.applied_by) == (version, "bob")
    assert len(shown.history) == 1


def test_a_policy_kept_under_another_version_judges_nobody(server):
    apply(server)
    change_database(server, "update policies set version = 9")
    server.reopen()
    with pytest.raises(TamperedPolicy):
        server.service.policies.current()


def test_a_policy_that_vanishes_is_noticed_by_who_knew_it(server):
    apply(server)
    assert server.service.policies.current().version == 1
    change_database(server, "delete from policies")
    server.clock.pass_(11)
    with pytest.raises(TamperedPolicy):
        server.service.policies.current()


def test_policies_are_no_references(server):
    apply(server)
    assert listed(server.service.references) == ()
    assert server.service.references.active().all() == ()
