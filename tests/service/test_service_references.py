from __future__ import annotations

import hashlib
import json

import msgspec
import pytest

from appraise.forged import firmware_of, keyset_of, release_of
from catena.errors import CatenaError
from catena.formats.references import (
    FIRMWARE_TYPE,
    KEYSET_TYPE,
    PCR_POLICY_TYPE,
    RELEASE_TYPE,
    PcrPolicy,
)
from catena.keys.envelope import ForgedEnvelope, UntrustedSigner
from catena.keys.hierarchy import KeyName
from catena.service.references import (
    BadReferenceName,
    BootLogMoved,
    NoBootLog,
    NoSuchReference,
    ReferenceTaken,
    TamperedReference,
    UnknownReferenceKind,
)
from catena.service.views import CaptureRequest, PcrPolicyRequest
from service.fixtures import capture, listed, signed
from swtpm import needs_swtpm


def test_signed_release_and_key_set_become_active_and_are_logged(server, boot):
    server.import_references(boot)
    found = {(one.kind, one.name) for one in listed(server.service.references)}
    assert found == {("keyset", "acme"), ("release", "lab")}
    active = server.service.references.active()
    assert (len(active.releases), len(active.keysets)) == (1, 1)
    assert server.kinds()[-2:] == ["reference", "reference"]


def test_an_import_counts_at_once(server, boot):
    assert server.service.references.active().releases == ()
    server.import_references(boot)
    assert len(server.service.references.active().releases) == 1


def test_importing_the_same_document_again_changes_nothing(server, boot):
    document = signed(server.keys, RELEASE_TYPE, release_of(boot))
    first = server.service.references.accept(document, "alice")
    assert server.service.references.accept(document, "alice") == first
    assert len(listed(server.service.references)) == 1


def test_a_published_version_never_changes(server, boot):
    server.service.references.accept(signed(server.keys, RELEASE_TYPE, release_of(boot)), "a")
    other = release_of(boot, security_version=9)
    with pytest.raises(ReferenceTaken):
        server.service.references.accept(signed(server.keys, RELEASE_TYPE, other), "a")


@pytest.mark.parametrize("signer", [KeyName.LOG, KeyName.CA, KeyName.DB])
def test_a_document_by_another_key_is_refused(server, boot, signer):
    document = signed(server.keys, RELEASE_TYPE, release_of(boot), signer)
    with pytest.raises(UntrustedSigner):
        server.service.references.accept(document, "alice")
    assert listed(server.service.references) == ()


def test_a_document_changed_after_signing_is_refused(server, boot):
    from catena.formats import dsse

    envelope = dsse.parse(signed(server.keys, KEYSET_TYPE, keyset_of(boot)))
    changed = msgspec.structs.replace(envelope, payload=envelope.payload + b" ")
    with pytest.raises(ForgedEnvelope):
        server.service.references.accept(changed.encode(), "alice")


def test_a_signed_statement_of_another_kind_is_refused(server, boot):
    document = signed(server.keys, "urn:example:other", keyset_of(boot))
    with pytest.raises(UnknownReferenceKind):
        server.service.references.accept(document, "alice")


@pytest.mark.parametrize("name", ["", "x" * 129, "a\x1b[31m", "caf\u00e9"])
def test_a_name_that_could_not_be_shown_is_refused(server, boot, name):
    document = msgspec.structs.replace(keyset_of(boot), name=name)
    with pytest.raises(BadReferenceName):
        server.service.references.accept(signed(server.keys, KEYSET_TYPE, document), "alice")
    assert server.kinds() == ["admin-token"]


def test_a_firmware_reference_of_the_enterprise_is_accepted_too(server, boot):
    document = signed(server.keys, FIRMWARE_TYPE, firmware_of(boot))
    assert server.service.references.accept(document, "alice").kind == "firmware"


def test_a_row_that_was_slipped_into_the_database_does_not_count(server, boot):
    forged = signed(server.keys, RELEASE_TYPE, release_of(boot), KeyName.LOG)
    with server.opened.database.transaction() as rows:
        rows.references.put(
            name="lab", kind="release", version="1", document=forged, at=server.clock()
        )
    with pytest.raises(TamperedReference):
        server.service.references.active()


def test_a_reference_is_shown_by_name_version_or_digest(server, boot):
    server.import_references(boot)
    (release,) = (one for one in listed(server.service.references) if one.kind == "release")
    for name in ("lab", "lab-1", release.sha256[:8]):
        detail = server.service.references.show(name)
        assert detail.reference.name == "lab"
        assert detail.document["security_version"] == 1
        assert len(detail.events) == detail.reference.events
    with pytest.raises(NoSuchReference):
        server.service.references.show("nope")


@needs_swtpm
@pytest.mark.tpm
def test_a_capture_is_what_the_person_saw_signed_and_logged(trusting, machine):
    machine.enrol(trusting.call)
    with pytest.raises(NoBootLog):
        trusting.service.references.preview(machine.node_id)
    machine.attest(trusting.call)
    seen = trusting.service.references.preview(machine.node_id)
    assert {event.pcr for event in seen.events} <= {0, 1, 2, 3, 6}
    with pytest.raises(BootLogMoved):
        trusting.service.references.capture(
            CaptureRequest(node=machine.node_id, name="ovmf", boot_log="0" * 64), "alice"
        )
    capture(trusting.service, machine.node_id)
    detail = trusting.service.references.show("ovmf")
    assert detail.events == seen.events
    assert trusting.entries()[-1].document_sha256 == detail.reference.sha256
    trusting.reopen()
    assert len(trusting.service.references.active().firmware) == 1


POLICY = json.dumps(
    {"8": {"asciivalues": [{"prefix": "grub_cmd", "values": [{"value": "set .+"}]}]}}
).encode()


def policy_request(**changes) -> PcrPolicyRequest:
    return msgspec.structs.replace(
        PcrPolicyRequest(name="flatcar", version="3510.2.0", content=POLICY), **changes
    )


def test_an_imported_pcr_policy_is_sealed_logged_and_active(server):
    references = server.service.references
    view = references.accept_policy(policy_request(), "alice")
    assert (view.kind, view.name, view.version, view.events) == (
        "pcr-policy",
        "flatcar",
        "3510.2.0",
        1,
    )
    assert view.warnings == ("8.ascii.0 now has to match the whole text: set .+",)
    assert listed(references) == (view,)
    (policy,) = references.active().pcr_policies
    assert policy.label == "flatcar-3510.2.0"
    assert server.entries()[-1].document_sha256 == view.sha256
    detail = references.show("flatcar-3510.2.0")
    assert detail.document["source_sha256"] == hashlib.sha256(POLICY).hexdigest()
    assert detail.events[0].what == "grub_cmd /set .+/"
    server.reopen()
    assert len(server.service.references.active().pcr_policies) == 1


def test_importing_the_same_pcr_policy_again_changes_nothing(server):
    references = server.service.references
    first = references.accept_policy(policy_request(), "alice")
    assert references.accept_policy(policy_request(), "alice") == first
    with pytest.raises(ReferenceTaken):
        references.accept_policy(policy_request(content=POLICY.replace(b"set", b"unset")), "alice")
    assert listed(references) == (first,)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"name": ""}, "bad-reference-name"),
        ({"version": "a\x1b[31m"}, "bad-reference-name"),
        ({"content": b"{}"}, "pcr-policy-weak"),
        ({"content": b"PK\x03\x04"}, "pcr-policy-malformed"),
        ({"content": POLICY.replace(b"set .+", b"(?=a)")}, "pcr-policy-pattern"),
        ({"content": POLICY.replace(b'"8"', b'"7"')}, "reference-unusable"),
    ],
)
def test_a_pcr_policy_that_cannot_count_is_refused_and_not_logged(server, changes, code):
    with pytest.raises(CatenaError) as refused:
        server.service.references.accept_policy(policy_request(**changes), "alice")
    assert refused.value.code == code
    assert server.kinds() == ["admin-token"]
    assert listed(server.service.references) == ()


def test_a_pcr_policy_that_the_log_key_did_not_seal_does_not_count(server, boot):
    document = PcrPolicy(name="flatcar", version="1", source_sha256="", rules=())
    forged = signed(server.keys, PCR_POLICY_TYPE, document, KeyName.CA)
    with server.opened.database.transaction() as rows:
        rows.references.put(
            name="flatcar", kind="pcr-policy", version="1", document=forged, at=server.clock()
        )
    with pytest.raises(TamperedReference):
        server.service.references.active()
