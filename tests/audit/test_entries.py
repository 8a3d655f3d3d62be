"""Entries: typed, signed, bounded, without secrets."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from audit_samples import NODE, NOON

from catena.audit import entries
from catena.audit.entries import (
    KINDS,
    AdminSignIn,
    AdminToken,
    Approval,
    AttestationDemanded,
    CertificateIssued,
    ContainersRecorded,
    Denial,
    EndorsementChanged,
    EndorsementJudged,
    Enrolment,
    InventoryChanged,
    KeyChanged,
    KeyRejected,
    LogContinues,
    LogEnded,
    LoggedContainerEvent,
    LogRead,
    NodeLabelled,
    PersonForgotten,
    PolicyAccepted,
    ReferenceAccepted,
    Revocation,
    SecretChanged,
    SecretRead,
    SecretReleased,
    TokenIssued,
    Transition,
    Verdict,
    abridge,
)
from catena.audit.leaf import UnloggableEntry, open_entry, seal_entry
from catena.audit.tiles import MAX_ENTRY
from catena.errors import FormatError, Refusal
from catena.formats import dsse
from catena.formats.nodeapi import Reason
from catena.keys.envelope import seal

DIGEST = "b" * 64
PERSON = f"person:{DIGEST}"
ABOUT = {"at": NOON, "actor": "alice", "node_id": NODE, "node_name": "n1"}
EXAMPLES = [
    Enrolment(
        **ABOUT, ak_sha256=DIGEST, ek_root="vendor", mode="open", state="trusted", again=True
    ),
    Approval(**ABOUT, ak_sha256=DIGEST, role="worker", readmitted=True),
    Verdict(
        **ABOUT,
        verdict="untrusted",
        state="untrusted",
        reasons=abridge([Reason(code="unclaimed-event", message="no claim", pcr=4, digest=DIGEST)]),
        reasons_total=1,
        evidence_sha256=DIGEST,
        logs=(DIGEST,),
        release="os 1",
    ),
    CertificateIssued(
        **ABOUT, serial="1f", certificate_sha256=DIGEST, spki_sha256=DIGEST, not_after=NOON
    ),
    SecretReleased(**ABOUT, secret="db", version=3),
    Denial(at=NOON, actor="server", request="attest", code="x", message="m", request_sha256=DIGEST),
    Revocation(**ABOUT, reason="stolen", certificates=("1f",), secrets=("db",)),
    TokenIssued(
        **ABOUT, audience="vault", svid_sha256=DIGEST, result_sha256=DIGEST, not_after=NOON
    ),
    Transition(
        **ABOUT,
        before="trusted",
        state="retired",
        reason="sold",
        last_attested=NOON,
        secrets=("db",),
    ),
    EndorsementJudged(
        **ABOUT,
        code="ek-certificate-revoked",
        message="a certificate of the EK's path was revoked by its issuer",
        before="trusted",
        state="untrusted",
    ),
    KeyRejected(**ABOUT, ak_sha256=DIGEST, reason="unknown"),
    AttestationDemanded(**ABOUT, by=NOON),
    InventoryChanged(at=NOON, actor="alice", action="expected", machines=2, list_sha256=DIGEST),
    NodeLabelled(**ABOUT, labels=("site=a",)),
    SecretRead(at=NOON, actor=PERSON, secret="db", version=3, ciphertext_sha256=DIGEST),
    ReferenceAccepted(
        at=NOON, actor="alice", name="os", type="release", version="1", document_sha256=DIGEST
    ),
    PolicyAccepted(
        at=NOON,
        actor="alice",
        name="strict",
        version=3,
        policy_sha256=DIGEST,
        document_sha256=DIGEST,
    ),
    SecretChanged(
        at=NOON, actor="alice", action="put", secret="db", version=3, ciphertext_sha256=DIGEST
    ),
    AdminToken(
        at=NOON, actor="server", action="created", label="alice", role="admin", token_sha256=DIGEST
    ),
    AdminSignIn(at=NOON, actor="alice", label="alice", role="admin", token_sha256=DIGEST),
    KeyChanged(at=NOON, actor="server", action="added", key="release", key_sha256=DIGEST),
    PersonForgotten(at=NOON, actor=PERSON, person=PERSON),
    LogEnded(at=NOON, actor="server", origin="log/2", log_key_sha256=DIGEST),
    LogContinues(
        at=NOON,
        actor="server",
        origin="log/1",
        log_key_sha256=DIGEST,
        tree_size=5,
        root_sha256=DIGEST,
    ),
    LogRead(at=NOON, actor="bob", label="bob", role="viewer", token_sha256=DIGEST),
    EndorsementChanged(
        at=NOON,
        actor="alice",
        name="acme-root",
        type="root",
        vouches="vendor",
        document_sha256=DIGEST,
        source="acme.example",
    ),
    ContainersRecorded(
        **ABOUT,
        evidence_sha256=DIGEST,
        record_sha256=DIGEST,
        record_size=900,
        first=4,
        last=5,
        started=1,
        refused=1,
        events=(
            LoggedContainerEvent(record=4, kind="create", container="web", publisher="acme"),
            LoggedContainerEvent(record=5, kind="deny", container="evil", code="image-unsigned"),
        ),
    ),
]


def test_the_examples_cover_every_kind():
    assert {type(entry) for entry in EXAMPLES} == set(KINDS.values())
    assert len({kind.kind for kind in KINDS.values()}) == len(KINDS)


@pytest.mark.parametrize("entry", EXAMPLES, ids=lambda entry: entry.kind)
def test_every_kind_is_signed_and_read_back(entry, signer):
    leaf = seal_entry(signer, entry)
    assert open_entry(leaf, signer.public_key) == entry
    statement = dsse.parse_statement(dsse.parse(leaf).payload)
    assert statement.predicate_type == f"urn:catena:audit:{entry.kind}:v1"
    assert all(len(subject.digest["sha256"]) == 64 for subject in statement.subject)
    assert statement.subject
    assert entry.summary()


def test_equal_entries_have_equal_leaves(signer):
    assert seal_entry(signer, EXAMPLES[0]) == seal_entry(signer, EXAMPLES[0])


def test_an_entry_of_another_key_is_refused(signer, stranger):
    with pytest.raises(Refusal):
        open_entry(seal_entry(stranger, EXAMPLES[0]), signer.public_key)


def test_a_changed_entry_is_refused(signer):
    leaf = json.loads(seal_entry(signer, EXAMPLES[4]))
    leaf["payload"] = json.loads(seal_entry(signer, EXAMPLES[0]))["payload"]
    with pytest.raises(Refusal):
        open_entry(json.dumps(leaf).encode(), signer.public_key)


@pytest.mark.parametrize(
    "respell",
    [
        lambda leaf: leaf + b" ",
        lambda leaf: leaf.replace(b'"keyid":"', b'"keyid":"0'),
        lambda leaf: json.dumps(json.loads(leaf)).encode(),
    ],
    ids=["space", "keyid", "spaced-json"],
)
def test_a_leaf_spelled_in_another_way_is_refused(signer, respell):
    with pytest.raises(FormatError, match="spelled"):
        open_entry(respell(seal_entry(signer, EXAMPLES[0])), signer.public_key)


def statement(entry, **changes):
    """A statement about ``entry``, signed below with changes that seal_entry never makes."""
    values = {
        "subject": entry.subjects(),
        "predicate_type": entry.predicate_type(),
        "predicate": msgspec.Raw(msgspec.json.encode(entry)),
    }
    return dsse.Statement(**{**values, **changes})


def test_a_signed_statement_of_an_unknown_kind_is_refused(signer):
    strange = statement(EXAMPLES[4], predicate_type="urn:catena:audit:secret-release:v2")
    with pytest.raises(FormatError, match="unknown kind"):
        open_entry(seal(signer, strange).encode(), signer.public_key)


def test_a_signed_predicate_with_an_unknown_field_is_refused(signer):
    predicate = json.loads(msgspec.json.encode(EXAMPLES[4])) | {"extra": 1}
    strange = statement(EXAMPLES[4], predicate=msgspec.Raw(json.dumps(predicate).encode()))
    with pytest.raises(FormatError, match="cannot be read"):
        open_entry(seal(signer, strange).encode(), signer.public_key)


def test_a_signed_statement_about_something_else_is_refused(signer):
    strange = statement(EXAMPLES[4], subject=EXAMPLES[5].subjects())
    with pytest.raises(FormatError, match="subjects"):
        open_entry(seal(signer, strange).encode(), signer.public_key)


@pytest.mark.parametrize(
    "change",
    [
        {"node_id": "A" * 64},
        {"node_id": "../../etc"},
        {"secret": "s" * 254},
        {"at": datetime(2026, 1, 1)},  # noqa: DTZ001 - naive on purpose
        {"at": datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1)))},
    ],
)
def test_an_entry_that_breaks_its_limits_is_not_signed(change, signer):
    entry = msgspec.structs.replace(EXAMPLES[4], **change)
    with pytest.raises(UnloggableEntry):
        seal_entry(signer, entry)


def test_the_largest_verdict_still_fits(signer):
    # Four-byte letters that JSON escapes at full length would be the worst case.
    reasons = abridge([Reason(code="c" * 253, message="\x01" * 9000, digest="d" * 253)] * 500)
    assert len(reasons) == entries.MAX_REASONS
    verdict = Verdict(
        at=datetime.now(UTC),
        actor="n" * 253,
        node_id=NODE,
        node_name="n" * 253,
        verdict="untrusted",
        state="untrusted",
        reasons=reasons,
        reasons_total=500,
        evidence_sha256=DIGEST,
        logs=(DIGEST,) * 64,
        references=(DIGEST,) * 64,
    )
    assert len(seal_entry(signer, verdict)) <= MAX_ENTRY


def test_an_entry_too_large_for_the_log_is_not_signed(signer):
    revocation = msgspec.structs.replace(EXAMPLES[6], secrets=("\x01" * 253,) * 64)
    with pytest.raises(UnloggableEntry, match="too large"):
        seal_entry(signer, revocation)


def test_a_denial_cuts_what_it_quotes(signer):
    denial = msgspec.structs.replace(EXAMPLES[5], message="x" * 100_000)
    assert len(denial.message) == entries.MAX_TEXT
    assert open_entry(seal_entry(signer, denial), signer.public_key) == denial


def test_what_a_gate_wrote_is_escaped_and_cut(signer):
    event = LoggedContainerEvent(record=0, kind="deny", container="\x1b[2J" + "c" * 500, code="\n")
    assert event.container.isprintable()
    assert (len(event.container), event.code) == (entries.MAX_SHOWN, "\\n")
    entry = msgspec.structs.replace(EXAMPLES[-1], events=(event,))
    assert open_entry(seal_entry(signer, entry), signer.public_key) == entry
    assert entry.summary().isprintable()
